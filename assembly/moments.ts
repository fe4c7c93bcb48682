// Mean and variance of one row about a shift k, in one pass:
//
//   d = x - k      [mean(d), mean(d^2) - mean(d)^2]
//
// The subtraction at the end is exact enough while mean(d)^2 is no more than a few times the variance, whence the shift:
// 0 for a row near zero (the common case, whose loop leaves the subtraction of k out), a rough mean for one that is far.
//
// A step takes 16 numbers into four pairs of accumulators, so that the additions don't wait for each other. A running sum of
// n floats errs by about sqrt(n) roundings of its total: each block of 4096 is summed in float32 and the blocks in double.

import { Absent, Present, pair, sumLanes } from "./f32x4";

const BLOCK: usize = 4096;

function shifted<Shift>(x: v128, k: v128): v128 {
  return isVoid<Shift>() ? x : f32x4.sub(x, k);
}

/** [sum of d, sum of d^2] of a block. */
function sums<Shift>(
  x: usize, // [count]
  count: usize,
  k: f32,
): v128 {
  const kv = f32x4.splat(k);
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  let q0 = s0;
  let q1 = s0;
  let q2 = s0;
  let q3 = s0;
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
    s0 = f32x4.add(s0, d0);
    s1 = f32x4.add(s1, d1);
    s2 = f32x4.add(s2, d2);
    s3 = f32x4.add(s3, d3);
    q0 = f32x4.add(q0, f32x4.mul(d0, d0));
    q1 = f32x4.add(q1, f32x4.mul(d1, d1));
    q2 = f32x4.add(q2, f32x4.mul(d2, d2));
    q3 = f32x4.add(q3, f32x4.mul(d3, d3));
  }

  // tail, 4 per step
  for (; i < end4; i += 16) {
    const d = shifted<Shift>(v128.load(x + i), kv);
    s0 = f32x4.add(s0, d);
    q0 = f32x4.add(q0, f32x4.mul(d, d));
  }
  let s = sumLanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  let q = sumLanes(f32x4.add(f32x4.add(q0, q1), f32x4.add(q2, q3)));

  // tail, 1 per step
  for (; i < end; i += 4) {
    const d = isVoid<Shift>() ? load<f32>(x + i) : load<f32>(x + i) - k;
    s += f64(d);
    q += f64(d * d);
  }
  return pair(s, q);
}

function momentsAbout<Shift>(x: usize, cols: usize, k: f32, inverse: f64): v128 {
  let total = f64x2.splat(0);
  for (let start: usize = 0; start < cols; start += BLOCK) {
    total = f64x2.add(total, sums<Shift>(x + (start << 2), min(cols - start, BLOCK), k));
  }
  const mean = f64x2.extract_lane(total, 0) * inverse;
  return pair(mean, f64x2.extract_lane(total, 1) * inverse - mean * mean);
}

/** [mean, variance] of a row of which nothing is known. */
export function moments(
  x: usize, // [cols]
  cols: usize,
  inverse: f64, // 1 / cols
): v128 {
  return momentsAbout<Absent>(x, cols, 0, inverse);
}

/** [mean - k, variance] of a row. */
export function shiftedMoments(
  x: usize, // [cols]
  cols: usize,
  k: f32,
  inverse: f64, // 1 / cols
): v128 {
  return momentsAbout<Present>(x, cols, k, inverse);
}
