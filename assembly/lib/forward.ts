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
  if (!sum) sum = y;

  // 4 or 1 per step
  for (let row: usize = 0; row < rows; ) {
    const count: usize = cols <= SHORT && rows - row >= 4 ? 4 : 1;
    const at = row * stride;
    const m = mean && mean + (row << 2);
    const r = rstd && rstd + (row << 2);
    let from = x + at;
    const more = residual && residual + at;
    // Long rows of LayerNorm add the residual in their first pass.
    if (more && (isVoid<Mean>() || cols <= SHORT)) {
      add(sum + at, from, more, count * stride);
      from = sum + at;
    }
    if (count === 4) fourRows<Mean>(y + at, m, r, from, weight, bias, cols, inverse, eps);
    else inline.always(oneRow<Mean>(y + at, sum + at, m, r, from, more, weight, bias, cols, inverse, eps));
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
  residual: usize, // [cols] or 0; not read without a mean, nor of short rows
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
): void {
  if (!isVoid<Mean>() && cols <= SHORT) {
    const sums = rowSums<Mean, Absent, Absent, Absent>(x, 0, 0, cols, 0);
    finishRow<Mean, Absent>(y, mean, rstd, x, weight, bias, cols, inverse, eps, 0, sums);
    return;
  }
  const from = !isVoid<Mean>() && residual ? sum : x;
  if (!isVoid<Mean>() && residual) add(sum, x, residual, 128);
  const k = isVoid<Mean>() ? <f32>0 : shiftOf(from);
  let sums: v128;
  if (!isVoid<Mean>() && k !== 0) {
    if (residual) add(sum + 128, x + 128, residual + 128, (cols << 2) - 128);
    sums = rowSums<Present, Present, Present, Absent>(from, 0, 0, cols, k);
  } else if (!isVoid<Mean>() && residual) {
    sums = rowSums<Present, Absent, Present, Present>(sum, x, residual, cols, 0);
  } else sums = inline.always(rowSums<Mean, Absent, Mean, Absent>(x, 0, 0, cols, 0));
  inline.always(finishRow<Mean, Mean>(y, mean, rstd, from, weight, bias, cols, inverse, eps, k, sums));
}
