// One row of forward, from the sums of its first pass about a shift k.
//
// If its moments are not accurate, the pass is repeated about a better shift, k + delta, at most three times. Rows end
// up as one of three kinds, from fast to slow:
//
// - near: accurate about 0. y comes from x - delta.
// - shifted: accurate about k. y comes from (x - k) - delta, so that the mean is never rounded to one float.
// - exact: squares are beyond the range of float32, or no float is near enough to the mean. All is computed in double.

import { Absent, Present } from "./lanes";
import { accurate, momentsOf, rowSums } from "./moments";
import { normalize, normalizeAffine } from "./normalize";

/** y, mean and rstd of a row. */
export function finishRow(
  y: usize, // [cols]
  mean: usize, // [1] or 0
  rstd: usize, // [1] or 0
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
  k: f32,
  sums: v128, // [sum of x - k, sum of (x - k)^2]
  long: bool, // whether `sums` are those of a long row, about 0
  centered: bool, // whether there is a mean
): void {
  let moments = momentsOf(sums, inverse);
  for (let pass = 0; !accurate(moments, k, eps, long); pass++) {
    if (!centered || pass === 3) {
      exactRow(y, mean, rstd, x, weight, bias, cols, eps, centered);
      return;
    }
    k = f32(f64(k) + f64x2.extract_lane(moments, 0));
    moments = momentsOf(rowSums<Present, Present>(x, 0, 0, cols, k, true), inverse);
  }
  const delta = f64x2.extract_lane(moments, 0);
  const r = f32(1 / Math.sqrt(f64x2.extract_lane(moments, 1) + eps));
  if (!centered && weight) normalizeAffine<Absent>(y, x, weight, 0, cols, 0, r);
  else if (k === 0 && weight && bias) normalizeAffine<Present>(y, x, weight, bias, cols, f32(delta), r);
  else normalize(y, x, weight, bias, cols, k, f32(delta), r);
  if (mean) store<f32>(mean, f32(f64(k) + delta));
  if (rstd) store<f32>(rstd, r);
}

/** A row in double, rounded once at the end: right for any finite input. */
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
  const end = cols << 2;
  // The mean is first + rest. One double would not hold it well enough where numbers differ in their last bits alone.
  const first = centered ? f64(load<f32>(x)) : 0;
  let rest: f64 = 0;
  if (centered) {
    for (let i: usize = 0; i < end; i += 4) rest += f64(load<f32>(x + i)) - first;
    rest /= f64(cols);
  }
  let squares: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - first - rest;
    squares += d * d;
  }
  const r = 1 / Math.sqrt(squares / f64(cols) + eps);

  // 1 per step
  for (let i: usize = 0; i < end; i += 4) {
    let d = (f64(load<f32>(x + i)) - first - rest) * r;
    if (weight) d *= f64(load<f32>(weight + i));
    if (bias) d += f64(load<f32>(bias + i));
    store<f32>(y + i, f32(d));
  }
  if (mean) store<f32>(mean, f32(first + rest));
  if (rstd) store<f32>(rstd, f32(r));
}
