// Mean and variance of one row about a shift k, in one pass:
//
//   d = x - k      [mean(d), mean(d^2) - mean(d)^2]
//
// The subtraction magnifies the error of mean(d^2) where mean(d)^2 is not small beside the variance. `accurate`
// tells. The shift is 0 at first, which costs nothing, and the row's own mean where that is not accurate. RMSNorm takes
// mean(d) as 0.
//
// Each addition in float32 rounds its sum, and in rows of few distinct values the roundings add up. So float32 sums
// stay short: no more than six additions lie between a number and the sum of its block. The sums of blocks are added
// in double, and so are the last columns of a row, fewer than 16. Squares are added in double after two additions:
// beside that of an outlier, float32 would round off the others.

import { Absent, Present, pair, promoteHigh, sumHalves, sumLanes } from "./lanes";

/** The columns of a block. Rows of one block are short: see short.ts. */
export const BLOCK: usize = 128;

// Beyond these, 2^-100 and 2^126, squares may have left the range of float32.
const LEAST_VARIANCE: f64 = 7.888609052210118e-31;
const LARGEST_VARIANCE: f64 = 8.507059173023462e37;

/**
 * [sum of d, sum of d^2] of a row, which is `Long` where it may have more than one block. With a residual it is the row
 * x + residual, which is stored in `sum`.
 */
export function rowSums<Long, Mean, Shift, Residual>(
  sum: usize, // [cols]
  x: usize, // [cols]
  residual: usize, // [cols]
  cols: usize,
  k: f32,
): v128 {
  const kv = f32x4.splat(k);
  let values = f64x2.splat(0);
  // Sums of the lower and of the upper lanes.
  let squares = values;
  let upper = values;
  const end16 = (cols & ~15) << 2;
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // a block per step
  do {
    const stop = isVoid<Long>() || isVoid<Mean>() ? end16 : min(i + (BLOCK << 2), end16);
    let s0 = f32x4.splat(0);
    let s1 = s0;

    // 16 per step, whose sums go to the two accumulators in turn
    for (; i < stop; i += 64) {
      const p = x + i;
      let a = v128.load(p);
      let b = v128.load(p, 16);
      let c = v128.load(p, 32);
      let d = v128.load(p, 48);
      if (!isVoid<Residual>()) {
        const r = residual + i;
        const t = sum + i;
        a = f32x4.add(a, v128.load(r));
        b = f32x4.add(b, v128.load(r, 16));
        c = f32x4.add(c, v128.load(r, 32));
        d = f32x4.add(d, v128.load(r, 48));
        v128.store(t, a);
        v128.store(t, b, 16);
        v128.store(t, c, 32);
        v128.store(t, d, 48);
      }
      if (!isVoid<Shift>()) {
        a = f32x4.sub(a, kv);
        b = f32x4.sub(b, kv);
        c = f32x4.sub(c, kv);
        d = f32x4.sub(d, kv);
      }
      if (!isVoid<Mean>()) {
        const s = f32x4.add(s0, f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
        s0 = s1;
        s1 = s;
      }
      const ab = f32x4.add(f32x4.mul(a, a), f32x4.mul(b, b));
      const cd = f32x4.add(f32x4.mul(c, c), f32x4.mul(d, d));
      const q = f32x4.add(ab, cd);
      squares = f64x2.add(squares, f64x2.promote_low_f32x4(q));
      upper = f64x2.add(upper, promoteHigh(q));
    }
    if (!isVoid<Mean>()) {
      const s = sumHalves(f32x4.add(s0, s1));
      values = isVoid<Long>() ? s : f64x2.add(values, s);
    }
  } while (!isVoid<Long>() && i < end16);

  // tail, 4 per step, in double
  for (; i < end4; i += 16) {
    let d = v128.load(x + i);
    if (!isVoid<Residual>()) {
      d = f32x4.add(d, v128.load(residual + i));
      v128.store(sum + i, d);
    }
    if (!isVoid<Shift>()) d = f32x4.sub(d, kv);
    const low = f64x2.promote_low_f32x4(d);
    const high = promoteHigh(d);
    if (!isVoid<Mean>()) values = f64x2.add(values, f64x2.add(low, high));
    squares = f64x2.add(squares, f64x2.add(f64x2.mul(low, low), f64x2.mul(high, high)));
  }
  let total = sumLanes(values, f64x2.add(squares, upper));

  // tail, 1 per step
  for (; i < end; i += 4) {
    let d = load<f32>(x + i);
    if (!isVoid<Residual>()) {
      d += load<f32>(residual + i);
      store<f32>(sum + i, d);
    }
    if (!isVoid<Shift>()) d -= k;
    const e = f64(d);
    total = f64x2.add(total, pair(isVoid<Mean>() ? 0 : e, e * e));
  }
  return total;
}

/** [sum of d, sum of d^2] -> [mean(d), variance] */
export function momentsOf(
  sums: v128,
  inverse: f64, // 1 / cols
): v128 {
  const mean = f64x2.extract_lane(sums, 0) * inverse;
  return pair(mean, f64x2.extract_lane(sums, 1) * inverse - mean * mean);
}

/** [mean - k, variance] of a row. */
export function shiftedMoments(
  x: usize, // [cols]
  cols: usize,
  k: f32,
  inverse: f64, // 1 / cols
): v128 {
  return momentsOf(rowSums<Present, Present, Present, Absent>(0, x, 0, cols, k), inverse);
}

/**
 * The largest mean(d)^2 / variance that counts as accurate. It is larger where the columns are few: the
 * mean of few numbers is seldom near 0, and their sums are more exact.
 */
export function largestRatio(inverse: f64): f64 {
  return max<f64>(0.25, 10 * inverse);
}

/** Whether moments about a shift are accurate. */
export function accurate(delta: f64, variance: f64, ratio: f64): bool {
  return delta * delta <= ratio * variance && variance > LEAST_VARIANCE && variance < LARGEST_VARIANCE;
}

/** The same of two rows, from the squares of mean(d): a mask of 64 bits for each. */
export function accuratePair(squares: v128, variances: v128, ratio: f64): v128 {
  const least = f64x2.gt(variances, f64x2.splat(LEAST_VARIANCE));
  const largest = f64x2.lt(variances, f64x2.splat(LARGEST_VARIANCE));
  return v128.and(f64x2.le(squares, f64x2.mul(variances, f64x2.splat(ratio))), v128.and(least, largest));
}

/** [mean, variance] of a row in double throughout: right for any finite row. Not centered, [0, mean of squares]. */
export function exactMoments(
  x: usize, // [cols]
  cols: usize,
  centered: bool = true,
): v128 {
  const end = cols << 2;
  let mean: f64 = 0;
  if (centered) {
    // About the first number: nearly equal numbers keep all their digits.
    const first = f64(load<f32>(x));
    for (let i: usize = 4; i < end; i += 4) mean += f64(load<f32>(x + i)) - first;
    mean = first + mean / f64(cols);
  }
  let variance: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - mean;
    variance += d * d;
  }
  return pair(mean, variance / f64(cols));
}
