// Forward of both norms: rows one by one, or four at a time where they are short.
//
// A row is read twice, for its moments and to be normalized, the second time from the first-level cache where it fits
// there. With a residual, x + residual is first stored in `sum`, which takes the place of x.
//
// What a row yields depends on that row alone, bit for bit: the order of every sum is fixed by cols.

import { Absent, Present } from "./lanes";
import { rowSums, shiftOf } from "./moments";
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
    let from = x + at;
    if (residual) {
      add(sum + at, from, residual + at, count * stride);
      from = sum + at;
    }
    const m = mean && mean + (row << 2);
    const r = rstd && rstd + (row << 2);
    if (count === 4) fourRows<Mean>(y + at, m, r, from, weight, bias, cols, inverse, eps);
    else inline.always(oneRow<Mean>(y + at, m, r, from, weight, bias, cols, inverse, eps));
    row += count;
  }
}

/** sum = x + residual. sum may be x or residual. */
function add(sum: usize, x: usize, residual: usize, bytes: usize): void {
  const end = bytes & ~15;
  let i: usize = 0;

  // 4 per step
  for (; i < end; i += 16) v128.store(sum + i, f32x4.add(v128.load(x + i), v128.load(residual + i)));

  // tail, 1 per step
  for (; i < bytes; i += 4) store<f32>(sum + i, load<f32>(x + i) + load<f32>(residual + i));
}

/** y, mean and rstd of a row. */
function oneRow<Mean>(
  y: usize, // [cols]
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
): void {
  if (cols <= SHORT) {
    const sums = rowSums<Mean, Absent, Absent>(x, cols, 0);
    finishRow<Mean, Absent>(y, mean, rstd, x, weight, bias, cols, inverse, eps, 0, sums);
    return;
  }
  let k: f32 = 0;
  let sums: v128;
  if (!isVoid<Mean>()) k = shiftOf(x);
  if (!isVoid<Mean>() && k !== 0) sums = rowSums<Present, Present, Present>(x, cols, k);
  else sums = inline.always(rowSums<Mean, Absent, Mean>(x, cols, 0));
  inline.always(finishRow<Mean, Mean>(y, mean, rstd, x, weight, bias, cols, inverse, eps, k, sums));
}
