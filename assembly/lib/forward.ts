// Forward of both norms: rows one by one, or four at a time where they are short.
//
// A row is read twice: for its moments, and to be normalized. The second time, it comes from the first-level cache if
// it fits there. With a residual, x + residual is stored in `sum`, which takes the place of x.
//
// What a row yields depends on that row alone, bit for bit: the order of every sum is fixed by cols.

import { Absent, Present } from "./lanes";
import { add, rowSums, shiftOf } from "./moments";
import { finishRow } from "./row";
import { fourRows, SHORT } from "./short";

/** Without a `Mean` it is RMSNorm, where mean and bias are 0. */
export function forward<Mean>(
  y: usize, // [rows, cols]
  sum: usize, // [rows, cols], or 0: sums go to y
  mean: usize, // [rows] or 0
  rstd: usize, // [rows] or 0
  x: usize, // [rows, cols]
  residual: usize, // [rows, cols] or 0
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  rows: usize,
  cols: usize,
  eps: f64,
): void {
  assert(((y | sum | mean | rstd | x | residual | weight | bias) & 3) === 0, "a pointer is not a multiple of 4");
  assert(cols > 0, "cols is 0");
  const stride = cols << 2;
  const inverse = 1 / f64(cols);
  const short = cols <= SHORT;
  if (!sum) sum = y;

  // 4 or 1 per step
  for (let row: usize = 0; row < rows; ) {
    const count: usize = short && rows - row >= 4 ? 4 : 1;
    const at = row * stride;
    const m = mean && mean + (row << 2);
    const r = rstd && rstd + (row << 2);
    let from = x + at;
    let more = residual && residual + at;
    // Long rows of LayerNorm add the residual in their first pass.
    if (more && (short || isVoid<Mean>())) {
      add(sum + at, from, more, count * stride);
      from = sum + at;
      more = 0;
    }
    if (count === 1) inline.always(oneRow<Mean>(y + at, sum + at, m, r, from, more, weight, bias, cols, inverse, eps));
    else fourRows<Mean>(y + at, m, r, from, weight, bias, cols, inverse, eps);
    row += count;
  }
}

/** y, mean and rstd of a row. */
function oneRow<Mean>(
  y: usize, // [cols]
  sum: usize, // [cols], written where there is a residual
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  residual: usize, // [cols] or 0; 0 for a short row, and without a mean
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
): void {
  const long = !isVoid<Mean>() && cols > SHORT;
  const adds = !isVoid<Mean>() && residual !== 0;
  const from = adds ? sum : x;
  if (adds) add(sum, x, residual, 128);
  const k = long ? shiftOf(from) : <f32>0;
  if (adds) {
    // Without a shift, rowSums adds the columns from the 33rd on, as far as they come 32 at a time.
    const start: usize = k !== 0 ? 128 : (cols & ~31) << 2;
    add(sum + start, x + start, residual + start, (cols << 2) - start);
  }
  let sums: v128;
  if (isVoid<Mean>()) sums = inline.always(rowSums<Absent, Absent>(x, 0, 0, cols, 0, false));
  else if (k !== 0) sums = rowSums<Present, Present>(from, 0, 0, cols, k, true);
  else sums = inline.always(rowSums<Present, Absent>(from, x, residual, cols, 0, long));
  if (isVoid<Mean>()) finishRow(y, 0, rstd, x, weight, 0, cols, inverse, eps, 0, sums, false, false);
  else inline.always(finishRow(y, mean, rstd, from, weight, bias, cols, inverse, eps, k, sums, long, true));
}
