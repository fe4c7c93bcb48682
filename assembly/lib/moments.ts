// The moments of one row about a shift k, in one pass:
//
//   d = x - k      delta = mean(d)      variance = mean(d^2) - delta^2
//
// RMSNorm takes k and delta as 0. The difference magnifies the errors of both means where delta^2 is large beside the
// variance. `accurate` tells where it is small enough for the limits of docs/guides/numerics.md.
//
// At most two additions in float32 lie between a number and the double that it is added to, or three in a long row.
// This is D in the proof. Sums in float32 alone would lose small squares beside that of an outlier. The last columns,
// fewer than 16, are added in double.

import { load4, pair, sumHalves, sumLanes } from "./lanes";

// 2^-100 and 2^126. Where squares leave the range of float32, the variance lies outside of these. See "The range of
// forward" in docs/guides/numerics.md.
const LEAST: f64 = 7.888609052210118e-31;
const LARGEST: f64 = 8.507059173023462e37;

// The largest delta^2 beside the variance, rho in the proof. The first two are of moments about 0, with two additions
// and with three. The last is of moments about a shift, where x - k is rounded too. With these, rstd errs by less than
// 3.5 units, dx by less than 16, and dweight by less than 9.
const SHORT_RATIO: f64 = 1;
const LONG_RATIO: f64 = 0.54;
const SHIFTED_RATIO: f64 = 0.2;

/**
 * [sum of d, sum of d^2] of a row. With a residual, x = other + residual is computed on the way in each step of 32 but
 * the first.
 */
export function rowSums<Mean, Shift>(
  x: usize, // [cols]
  other: usize, // [cols]; not read without a residual
  residual: usize, // [cols] or 0; 0 for a short row
  cols: usize,
  k: f32,
  long: bool, // whether 32 columns at a time are added in float32, or 16
): v128 {
  const kv = f32x4.splat(k);
  const end32 = long ? (cols & ~31) << 2 : 0;
  const end16 = (cols & ~15) << 2;
  const end = cols << 2;
  let values = f64x2.splat(0);
  let squares = values;
  let i: usize = 0;

  // 32 per step
  for (; i < end32; i += 128) {
    const p = x + i;
    if (residual && i) add(p, other + i, residual + i, 128);
    const a = shifted<Shift>(v128.load(p), kv);
    const b = shifted<Shift>(v128.load(p, 16), kv);
    const c = shifted<Shift>(v128.load(p, 32), kv);
    const d = shifted<Shift>(v128.load(p, 48), kv);
    const e = shifted<Shift>(v128.load(p, 64), kv);
    const f = shifted<Shift>(v128.load(p, 80), kv);
    const g = shifted<Shift>(v128.load(p, 96), kv);
    const h = shifted<Shift>(v128.load(p, 112), kv);
    if (!isVoid<Mean>()) values = f64x2.add(values, sumHalves(f32x4.add(sum4(a, b, c, d), sum4(e, f, g, h))));
    squares = f64x2.add(squares, sumHalves(f32x4.add(squares4(a, b, c, d), squares4(e, f, g, h))));
  }

  // 16 per step
  for (; i < end16; i += 64) {
    const p = x + i;
    const a = shifted<Shift>(v128.load(p), kv);
    const b = shifted<Shift>(v128.load(p, 16), kv);
    const c = shifted<Shift>(v128.load(p, 32), kv);
    const d = shifted<Shift>(v128.load(p, 48), kv);
    if (!isVoid<Mean>()) values = f64x2.add(values, sumHalves(sum4(a, b, c, d)));
    squares = f64x2.add(squares, sumHalves(squares4(a, b, c, d)));
  }

  // tail, 4 or 1 per step
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    let d = shifted<Shift>(load4(x + i, left), kv);
    if (!isVoid<Shift>() && left < 16) d = v128.and(d, i32x4(-1, 0, 0, 0));
    if (!isVoid<Mean>()) values = f64x2.add(values, sumHalves(d));
    squares = f64x2.add(squares, sumHalves(f32x4.mul(d, d)));
  }
  return sumLanes(values, squares);
}

/** sum = x + residual. sum may be x or residual. */
export function add(sum: usize, x: usize, residual: usize, bytes: usize): void {
  const end = bytes & ~15;
  let i: usize = 0;

  // 4 per step
  for (; i < end; i += 16) v128.store(sum + i, f32x4.add(v128.load(x + i), v128.load(residual + i)));

  // tail, 1 per step
  for (; i < bytes; i += 4) store<f32>(sum + i, load<f32>(x + i) + load<f32>(residual + i));
}

/** (a + b) + (c + d), 4 lanes. */
function sum4(a: v128, b: v128, c: v128, d: v128): v128 {
  return f32x4.add(f32x4.add(a, b), f32x4.add(c, d));
}

/** The same of squares. */
function squares4(a: v128, b: v128, c: v128, d: v128): v128 {
  return sum4(f32x4.mul(a, a), f32x4.mul(b, b), f32x4.mul(c, c), f32x4.mul(d, d));
}

/** x - k, 4 lanes. */
function shifted<Shift>(x: v128, k: v128): v128 {
  return isVoid<Shift>() ? x : f32x4.sub(x, k);
}

/** [sum of d, sum of d^2] -> [delta, variance] */
export function momentsOf(
  sums: v128,
  inverse: f64, // 1 / cols
): v128 {
  const mean = f64x2.extract_lane(sums, 0) * inverse;
  return pair(mean, f64x2.extract_lane(sums, 1) * inverse - mean * mean);
}

/**
 * The shift about which to begin with a long row: the mean of its first 16 numbers if its square is more than twice
 * their variance, else 0. This is for speed alone. `accurate` decides in the end, and a bad guess only costs a pass.
 */
export function shiftOf(x: usize): f32 {
  const a = v128.load(x);
  const b = v128.load(x, 16);
  const c = v128.load(x, 32);
  const d = v128.load(x, 48);
  const s = sum4(a, b, c, d);
  const q = squares4(a, b, c, d);
  const v = f32x4.add(v128.shuffle<f32>(s, q, 0, 1, 4, 5), v128.shuffle<f32>(s, q, 2, 3, 6, 7));
  const sums = f32x4.add(v, v128.shuffle<f32>(v, v, 1, 0, 3, 2));
  const m = f32x4.extract_lane(sums, 0) / 16;
  return m * m > f32x4.extract_lane(sums, 2) / 24 ? m : 0;
}

/** Whether moments about k are accurate, and in range. */
export function accurate(moments: v128, k: f32, eps: f64, long: bool): bool {
  const delta = f64x2.extract_lane(moments, 0);
  const variance = f64x2.extract_lane(moments, 1);
  const ratio = k !== 0 ? SHIFTED_RATIO : long ? LONG_RATIO : SHORT_RATIO;
  return delta * delta <= ratio * variance && variance + eps > LEAST && variance < LARGEST;
}

/** The same for two short rows about 0, from delta^2 and the variance of each. The mask has 64 bits for each. */
export function accuratePair(squares: v128, variances: v128, eps: v128): v128 {
  const least = f64x2.gt(f64x2.add(variances, eps), f64x2.splat(LEAST));
  const largest = f64x2.lt(variances, f64x2.splat(LARGEST));
  return v128.and(f64x2.le(squares, f64x2.mul(f64x2.splat(SHORT_RATIO), variances)), v128.and(least, largest));
}
