// Layer normalization, forward.
//
//   mean = sum(x) / cols     var = sum((x - mean)^2) / cols     rstd = 1 / sqrt(var + eps)
//   y = (x - mean) * rstd * weight + bias
//
// A row is read twice, once for its moments and once to be normalized, the second time from the first-level cache where it
// fits there; a row of the second way below once more, of the third four times more.
// y, mean and rstd are assigned (=). y may be x; no other overlap is allowed. What a row yields depends on that row alone,
// bit for bit: the order of every sum is fixed by cols.
//
// One pass gives both moments, but only while the mean is not large against the standard deviation: the variance is then a
// small difference of large numbers, and one float doesn't hold the mean. So there are three ways, from fast to slow:
//
//   near   |mean| <= sigma: moments about zero, y from x - mean
//   far    the same about a rough mean k: y from (x - k) - delta, where k + delta is the mean and never rounded to a float
//   exact  everything in double: squares beyond float32's range, or a rough mean that misleads

import { Absent, Present } from "./f32x4";
import { BLOCK, exactMoments, moments, shiftedMoments, sound } from "./moments";
import { normalize } from "./normalize";
import { fourRows } from "./short";

export function layerNormForward(
  y: usize, // [rows, cols]
  mean: usize, // [rows], or 0: not wanted
  rstd: usize, // [rows], or 0: not wanted
  x: usize, // [rows, cols]
  weight: usize, // [cols], or 0: all ones
  bias: usize, // [cols], or 0: all zeros
  rows: usize,
  cols: usize,
  eps: f64,
): void {
  const stride = cols << 2;
  const inverse = 1 / f64(cols);

  // Short rows are tried four at a time, from this one on; one by one where that fails.
  let four: usize = cols > BLOCK ? rows : 0;

  // 4 or 1 per step
  for (let row: usize = 0; row < rows; row++) {
    if (row >= four && rows - row >= 4) {
      if (fourRows(y, mean, rstd, x, weight, bias, cols, eps)) {
        x += stride << 2;
        y += stride << 2;
        if (mean) mean += 16;
        if (rstd) rstd += 16;
        row += 3;
        continue;
      }
      four = row + 4;
    }
    let k: f32 = 0;
    let m = moments(x, cols, inverse);
    let delta = f64x2.extract_lane(m, 0);
    let variance = f64x2.extract_lane(m, 1);
    const near = sound(delta, variance, eps);
    if (!near) {
      k = roughMean(x, cols);
      m = shiftedMoments(x, cols, k, inverse);
      delta = f64x2.extract_lane(m, 0);
      variance = f64x2.extract_lane(m, 1);
    }
    if (near || sound(delta, variance, eps)) {
      const r = f32(1 / Math.sqrt(variance + eps));
      if (near) normalize<Absent>(y, x, weight, bias, cols, 0, f32(delta), r);
      else normalize<Present>(y, x, weight, bias, cols, k, f32(delta), r);
      if (mean) store<f32>(mean, f32(f64(k) + delta));
      if (rstd) store<f32>(rstd, r);
    } else {
      exact(y, mean, rstd, x, weight, bias, cols, eps);
    }
    x += stride;
    y += stride;
    if (mean) mean += 4;
    if (rstd) rstd += 4;
  }
}

/** The mean of the first 16, in an order that gives a constant row its constant exactly. */
function roughMean(
  x: usize, // [cols]
  cols: usize,
): f32 {
  if (cols < 16) return load<f32>(x);
  // [a, b, c, d] -> [a + c, b + d, ..] -> a + c + b + d
  let v = f32x4.add(f32x4.add(v128.load(x), v128.load(x, 16)), f32x4.add(v128.load(x, 32), v128.load(x, 48)));
  v = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) * <f32>0.0625;
}

/** One row in double, rounded once at the end: right for any finite input, and NaN for any other. */
function exact(
  y: usize, // [cols]
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  eps: f64,
): void {
  const end = cols << 2;
  const row = exactMoments(x, cols);
  const m = f64x2.extract_lane(row, 0);
  const r = 1 / Math.sqrt(f64x2.extract_lane(row, 1) + eps);
  for (let i: usize = 0; i < end; i += 4) {
    let d = (f64(load<f32>(x + i)) - m) * r;
    if (weight) d *= f64(load<f32>(weight + i));
    if (bias) d += f64(load<f32>(bias + i));
    store<f32>(y + i, f32(d));
  }
  if (mean) store<f32>(mean, f32(m));
  if (rstd) store<f32>(rstd, f32(r));
}
