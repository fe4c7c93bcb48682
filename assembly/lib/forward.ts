// Forward of both norms: rows one by one, or four at a time where they are short.
//
// A row is read twice, for its moments and to be normalized, the second time from the first-level cache where it fits
// there. The first pass adds the residual, if there is one, and stores the sum; the second reads it.
//
// One pass gives both moments, but only where the mean is small beside the standard deviation. Otherwise the variance
// is a small difference of large numbers, and one float does not hold the mean. So there are three kinds of row, from
// fast to slow:
//
//   near   moments about zero; y from x - mean
//   far    moments about k, the mean of the pass before; y from (x - k) - delta. The mean is k + delta. So are constant
//          rows
//   exact  squares beyond the range of float32: everything in double
//
// What a row yields depends on that row alone, bit for bit: the order of every sum is fixed by cols.

import { Absent, Present } from "./lanes";
import { accurate, BLOCK, exactMoments, largestRatio, momentsOf, rowSums, shiftedMoments } from "./moments";
import { normalize, normalizeAffine } from "./normalize";
import { fourRows } from "./short";

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
    let at = row * stride;
    let from = x + at;
    let more = residual && residual + at;
    let end = row + 1;
    if (cols <= BLOCK && rows - row >= 4) {
      end = row + 4;
      if (more) {
        addRows(sum + at, from, more, cols << 2);
        from = sum + at;
        more = 0;
      }
      const m = mean && mean + (row << 2);
      const r = rstd && rstd + (row << 2);
      if (fourRows<Mean>(y + at, m, r, from, weight, bias, cols, inverse, eps)) {
        row = end;
        continue;
      }
    }
    for (; row < end; row++) {
      const m = mean && mean + (row << 2);
      const r = rstd && rstd + (row << 2);
      inline.always(nearRow<Mean>(y + at, sum + at, m, r, from, more, weight, bias, cols, inverse, eps));
      at += stride;
      from += stride;
    }
  }
}

/** sum = x + residual of four rows. */
function addRows(
  sum: usize, // [count]
  x: usize, // [count]
  residual: usize, // [count]
  count: usize, // a multiple of 4
): void {
  const end = count << 2;

  // 4 per step
  for (let i: usize = 0; i < end; i += 16) {
    v128.store(sum + i, f32x4.add(v128.load(x + i), v128.load(residual + i)));
  }
}

/** A row that may be near; if it is not, it goes to `farRow`. */
function nearRow<Mean>(
  y: usize, // [cols]
  sum: usize, // [cols], written where there is a residual
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  residual: usize, // [cols] or 0
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
): void {
  let sums: v128;
  if (residual) {
    sums = rowSums<Present, Present, Absent, Present>(sum, x, residual, cols, 0);
    if (isVoid<Mean>()) sums = f64x2.replace_lane(sums, 0, 0);
    x = sum;
  } else {
    sums = inline.always(rowSums<Present, Mean, Absent, Absent>(0, x, 0, cols, 0));
  }
  const moments = momentsOf(sums, inverse);
  const delta = f64x2.extract_lane(moments, 0);
  const variance = f64x2.extract_lane(moments, 1);
  if (!accurate(delta, variance, largestRatio(inverse))) {
    farRow(y, mean, rstd, x, weight, bias, cols, inverse, eps, delta, !isVoid<Mean>());
    return;
  }
  const r = f32(1 / Math.sqrt(variance + eps));
  if (weight && (isVoid<Mean>() || bias)) normalizeAffine<Mean>(y, x, weight, bias, cols, f32(delta), r);
  else normalize(y, x, weight, bias, cols, 0, f32(delta), r);
  if (!isVoid<Mean>() && mean) store<f32>(mean, f32(delta));
  if (rstd) store<f32>(rstd, r);
}

/** A row whose moments about zero are not accurate; if it is neither far nor constant, it goes to `exactRow`. */
function farRow(
  y: usize, // [cols]
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
  delta: f64, // the mean, as moments about zero have it
  centered: bool, // whether there is a mean
): void {
  let k: f32 = centered ? load<f32>(x) : 0;
  let variance: f64 = 0;
  let done: bool = isConstant(x, cols, k) && <f32>(1 / Math.sqrt(eps)) < Infinity;
  if (done) {
    delta = 0;
  } else if (centered) {
    k = 0;
    // The third k is as close to the mean as a float can be. There x - k is a few of its last bits, and sums are exact.
    for (let pass = 1; !done && pass <= 3; pass++) {
      k = f32(f64(k) + delta);
      const moments = shiftedMoments(x, cols, k, inverse);
      delta = f64x2.extract_lane(moments, 0);
      variance = f64x2.extract_lane(moments, 1);
      done = accurate(delta, variance, pass < 3 ? largestRatio(inverse) : 1);
    }
  }
  if (!done) {
    exactRow(y, mean, rstd, x, weight, bias, cols, eps, centered);
    return;
  }
  const r = f32(1 / Math.sqrt(variance + eps));
  normalize(y, x, weight, bias, cols, k, f32(delta), r);
  if (mean) store<f32>(mean, f32(f64(k) + delta));
  if (rstd) store<f32>(rstd, r);
}

/** Whether all numbers of a row are k, and k is finite. */
function isConstant(
  x: usize, // [cols]
  cols: usize,
  k: f32,
): bool {
  const end = x + (cols << 2);
  while (x !== end && load<f32>(x) - k === 0) x += 4;
  return x === end;
}

/** A row in double, rounded once at the end: right for any finite input, and NaN for any other. */
function exactRow(
  y: usize, // [cols]
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  eps: f64,
  centered: bool, // whether there is a mean
): void {
  const moments = exactMoments(x, cols, centered);
  const m = f64x2.extract_lane(moments, 0);
  const r = 1 / Math.sqrt(f64x2.extract_lane(moments, 1) + eps);
  const end = cols << 2;

  // 1 per step
  for (let i: usize = 0; i < end; i += 4) {
    let d = (f64(load<f32>(x + i)) - m) * r;
    if (weight) d *= f64(load<f32>(weight + i));
    if (bias) d += f64(load<f32>(bias + i));
    store<f32>(y + i, f32(d));
  }
  if (mean) store<f32>(mean, f32(m));
  if (rstd) store<f32>(rstd, f32(r));
}
