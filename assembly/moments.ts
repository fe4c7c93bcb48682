// Mean and variance of one row about a shift k, in one pass:
//
//   d = x - k      [mean(d), mean(d^2) - mean(d)^2]
//
// The subtraction at the end is exact enough while mean(d)^2 is no more than a few times the variance, whence the shift:
// 0 for a row near zero (the common case, whose loop leaves the subtraction of k out), a rough mean for one that is far.
//
// A running sum of floats errs by up to a rounding of its total for each addition, and on rows of few distinct values all of
// them err the same way. So a step adds 16 numbers pairwise before it adds them to the sum, a block of 128 takes eight such
// steps, and the sums of the blocks are added in double.

import { Absent, Present, pair, sumPair } from "./f32x4";

/** The columns of a block: rows of no more are short. */
export const BLOCK: usize = 128;

// Beyond this, mean^2 / var, a row is far. The error of the variance grows by one more than this factor.
const FAR: f64 = 1;
// Below this a variance may have lost squares to underflow: 2^-100, where 2^-126 is the least normal float.
const TINY: f64 = 7.888609052210118e-31;

function shifted<Shift>(x: v128, k: v128): v128 {
  return isVoid<Shift>() ? x : f32x4.sub(x, k);
}

/** [sum of d, sum of d^2] of a block. */
export function sums<Shift>(
  x: usize, // [count]
  count: usize,
  k: f32,
): v128 {
  const kv = f32x4.splat(k);
  let s = f32x4.splat(0);
  let q = s;
  const end16 = (count & ~15) << 2;
  const end4 = (count & ~3) << 2;
  const end = count << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const p = x + i;
    const d0 = shifted<Shift>(v128.load(p), kv);
    const d1 = shifted<Shift>(v128.load(p, 16), kv);
    const d2 = shifted<Shift>(v128.load(p, 32), kv);
    const d3 = shifted<Shift>(v128.load(p, 48), kv);
    s = f32x4.add(s, f32x4.add(f32x4.add(d0, d1), f32x4.add(d2, d3)));
    const e01 = f32x4.add(f32x4.mul(d0, d0), f32x4.mul(d1, d1));
    const e23 = f32x4.add(f32x4.mul(d2, d2), f32x4.mul(d3, d3));
    q = f32x4.add(q, f32x4.add(e01, e23));
  }

  // tail, 4 per step
  for (; i < end4; i += 16) {
    const d = shifted<Shift>(v128.load(x + i), kv);
    s = f32x4.add(s, d);
    q = f32x4.add(q, f32x4.mul(d, d));
  }
  let total = sumPair(s, q);

  // tail, 1 per step
  for (; i < end; i += 4) {
    const d = isVoid<Shift>() ? load<f32>(x + i) : load<f32>(x + i) - k;
    total = f64x2.add(total, pair(f64(d), f64(d * d)));
  }
  return total;
}

/** [mean - k, variance] of a row. */
function momentsAbout<Shift>(
  x: usize, // [cols]
  cols: usize,
  k: f32,
  inverse: f64, // 1 / cols
): v128 {
  let total = f64x2.splat(0);

  // a block per step
  for (let start: usize = 0; start < cols; start += BLOCK) {
    const block = inline.always(sums<Shift>(x + (start << 2), min(cols - start, BLOCK), k));
    total = f64x2.add(total, block);
  }
  const mean = f64x2.extract_lane(total, 0) * inverse;
  return pair(mean, f64x2.extract_lane(total, 1) * inverse - mean * mean);
}

/** [mean, variance] of a row, from moments about zero. */
export function moments(
  x: usize, // [cols]
  cols: usize,
  inverse: f64, // 1 / cols
): v128 {
  return momentsAbout<Absent>(x, cols, 0, inverse);
}

/** [mean - k, variance] of a row, from moments about k. */
export function shiftedMoments(
  x: usize, // [cols]
  cols: usize,
  k: f32,
  inverse: f64, // 1 / cols
): v128 {
  return momentsAbout<Present>(x, cols, k, inverse);
}

/** Whether moments about a shift are good: the row lies near the shift, its squares neither overflowed nor underflowed. */
export function sound(delta: f64, variance: f64, eps: f64): bool {
  return delta * delta <= FAR * variance && variance < Infinity && (variance > TINY || (delta === 0 && eps > TINY));
}

/** The same of two rows about zero, as far as it takes no eps: squares of the means, and variances. A mask of 64 bits for each. */
export function soundPair(squares: v128, variances: v128): v128 {
  const ordinary = v128.and(f64x2.gt(variances, f64x2.splat(TINY)), f64x2.lt(variances, f64x2.splat(Infinity)));
  return v128.and(f64x2.le(squares, f64x2.mul(f64x2.splat(FAR), variances)), ordinary);
}

/** [mean, variance] of a row in double throughout: right for any finite row. */
export function exactMoments(
  x: usize, // [cols]
  cols: usize,
): v128 {
  const end = cols << 2;
  let mean: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) mean += f64(load<f32>(x + i));
  mean /= f64(cols);
  let variance: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - mean;
    variance += d * d;
  }
  return pair(mean, variance / f64(cols));
}
