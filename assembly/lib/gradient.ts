// Backward of one row in float32, from the statistics of the forward pass. RMSNorm has no `Mean`.
//
//   xhat = (x - mean) * rstd         g = dy * weight
//   c = rstd^2 * mean(g * xhat)      k = rstd * mean(g) - c * mean
//
//   dx = (rstd * g - c * x) - k
//
// A row is read twice. The first pass sums g and g * (x - mean), and adds to dweight and dbias. The second, in dx.ts,
// writes dx. A sum along the row runs in float32 over a block of 32 columns, and in double from block to block. The
// proof in docs/guides/numerics.md derives the limits of the results from the roundings of these loops. It also has the
// range in which they hold.
//
// In a row far from zero one float doesn't hold the mean, which is m + rest there. The first pass then sums x - m too,
// whose mean is the rest. dweight needs the rest, so it has a pass of its own. `Far` takes the place of `Mean`.

import { writeDx } from "./dx";
import { load4, store4, sumHalves, sumLanes } from "./lanes";

// The bytes of a block. At most four additions in float32 lie between a number and the double that it is added to. This
// is D = 4 in the proof, the largest with which dx errs by less than 16 units.
const BLOCK: usize = 128;
// The squares of 2^-67 and of 2^64, for the size of g. Above the first, products that underflow don't count. Below the
// second, none overflows. See "The range of backward" in docs/guides/numerics.md.
const LEAST: f64 = 4.591774807899561e-41;
const LARGEST: f64 = 3.402823669209385e38;

/**
 * Adds a row to dweight and dbias, and writes dx. False where dx is out of range, and still to be written. With `All`,
 * sums and weight are there.
 */
export function gradientRow<Mean, All>(
  dx: usize, // [cols] or 0
  sums: usize, // [cols] or 0: += what the row adds to dweight
  biases: usize, // [cols]: the same of dbias; not written to without `sums`, nor without a mean
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  m: f32, // mean
  r: f32, // rstd
  inverse: f64, // 1 / cols
): bool {
  const end8 = (cols & ~7) << 2;
  const end = cols << 2;
  const mv = f32x4.splat(m);
  const rv = f32x4.splat(r);
  const one = f32x4.splat(1);
  let s = f64x2.splat(0);
  let q = s;
  let e = s;
  let i: usize = 0;

  // a block per step
  while (i < end8) {
    const stop = min(i + BLOCK, end8);
    let sb = f32x4.splat(0);
    let qb = sb;
    let eb = sb;

    // 8 per step
    for (; i < stop; i += 32) {
      const w0 = !isVoid<All>() || weight ? v128.load(weight + i) : one;
      const w1 = !isVoid<All>() || weight ? v128.load(weight + i, 16) : one;
      let g0 = v128.load(dy + i);
      let g1 = v128.load(dy + i, 16);
      const d0 = centered<Mean>(v128.load(x + i), mv);
      const d1 = centered<Mean>(v128.load(x + i, 16), mv);
      if (!isFloat<Mean>() && (!isVoid<All>() || sums)) {
        v128.store(sums + i, f32x4.add(v128.load(sums + i), f32x4.mul(g0, f32x4.mul(d0, rv))));
        if (!isVoid<Mean>()) v128.store(biases + i, f32x4.add(v128.load(biases + i), g0));
        v128.store(sums + i, f32x4.add(v128.load(sums + i, 16), f32x4.mul(g1, f32x4.mul(d1, rv))), 16);
        if (!isVoid<Mean>()) v128.store(biases + i, f32x4.add(v128.load(biases + i, 16), g1), 16);
      }
      g0 = f32x4.mul(g0, w0);
      g1 = f32x4.mul(g1, w1);
      sb = f32x4.add(sb, f32x4.add(g0, g1));
      qb = f32x4.add(qb, f32x4.add(f32x4.mul(g0, d0), f32x4.mul(g1, d1)));
      if (isFloat<Mean>()) eb = f32x4.add(eb, f32x4.add(d0, d1));
    }
    if (!isVoid<Mean>()) s = f64x2.add(s, sumHalves(sb));
    q = f64x2.add(q, sumHalves(qb));
    if (isFloat<Mean>()) e = f64x2.add(e, sumHalves(eb));
  }

  // tail, 4 or 1 per step, in double
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    let g = load4(dy + i, left);
    let d = centered<Mean>(load4(x + i, left), mv);
    if (left < 16) d = v128.and(d, i32x4(-1, 0, 0, 0));
    if (!isFloat<Mean>() && sums) {
      store4(sums + i, f32x4.add(load4(sums + i, left), f32x4.mul(g, f32x4.mul(d, rv))), left);
      if (!isVoid<Mean>()) store4(biases + i, f32x4.add(load4(biases + i, left), g), left);
    }
    if (weight) g = f32x4.mul(g, load4(weight + i, left));
    if (!isVoid<Mean>()) s = f64x2.add(s, sumHalves(g));
    q = f64x2.add(q, sumHalves(f32x4.mul(g, d)));
    if (isFloat<Mean>()) e = f64x2.add(e, sumHalves(d));
  }

  const total = f64x2.mul(sumLanes(s, q), f64x2.splat(inverse));
  const rest = isFloat<Mean>() ? f64x2.extract_lane(sumLanes(e, e), 0) * inverse : 0;
  if (isFloat<Mean>() && sums) addFar(sums, biases, dy, x, cols, m, f32(rest), r);
  if (!dx) return true;
  const rr = f64(r);
  const a = f64x2.extract_lane(total, 0); // mean(g)
  let b = f64x2.extract_lane(total, 1); // mean(g * (x - mean))
  if (isFloat<Mean>()) b -= rest * a;
  const c = f32(b * (rr * rr * rr));
  b *= rr;
  // mean(g)^2 + mean(g * xhat)^2. By Bessel's inequality mean(g^2) is at least this.
  const size = a * a + b * b;
  if (!(size > LEAST && size < LARGEST) && !inRange(dy, weight, cols, r, inverse, size)) return false;
  const k = f32(rr * a - f64(c) * (isFloat<Mean>() ? rest : f64(m)));
  inline.always(writeDx<Mean, All>(dx, dy, x, weight, add, cols, m, r, c, k));
  return true;
}

/** Whether floats hold dx of a row whose sums are very small, or cancel: the largest |g| tells it. */
function inRange(dy: usize, weight: usize, cols: usize, r: f32, inverse: f64, size: f64): bool {
  if (!(size < 1)) return false;
  const end = cols << 2;
  let v = f32x4.splat(0);

  // 4 or 1 per step
  for (let i: usize = 0; i < end; i += end - i < 16 ? 4 : 16) {
    const g = load4(dy + i, end - i);
    v = f32x4.pmax(v, f32x4.abs(weight ? f32x4.mul(g, load4(weight + i, end - i)) : g));
  }
  v = f32x4.pmax(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  const most = max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1));
  // Beyond 2^13, dx may be a normal float though every g underflows to 0.
  return most === 0 ? r <= 8192 : f64(most) * f64(most) * inverse > LEAST;
}

/** x - m; for RMSNorm x. */
function centered<Mean>(x: v128, m: v128): v128 {
  return isVoid<Mean>() ? x : f32x4.sub(x, m);
}

/** What a row far from zero adds to dweight and dbias. */
function addFar(sums: usize, biases: usize, dy: usize, x: usize, cols: usize, m: f32, rest: f32, r: f32): void {
  const end8 = (cols & ~7) << 2;
  const end = cols << 2;
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(rest);
  const rv = f32x4.splat(r);
  let i: usize = 0;

  // 8 per step
  for (; i < end8; i += 32) {
    const g0 = v128.load(dy + i);
    const g1 = v128.load(dy + i, 16);
    const d0 = f32x4.mul(f32x4.sub(f32x4.sub(v128.load(x + i), mv), ev), rv);
    const d1 = f32x4.mul(f32x4.sub(f32x4.sub(v128.load(x + i, 16), mv), ev), rv);
    v128.store(sums + i, f32x4.add(v128.load(sums + i), f32x4.mul(g0, d0)));
    v128.store(biases + i, f32x4.add(v128.load(biases + i), g0));
    v128.store(sums + i, f32x4.add(v128.load(sums + i, 16), f32x4.mul(g1, d1)), 16);
    v128.store(biases + i, f32x4.add(v128.load(biases + i, 16), g1), 16);
  }

  // tail, 4 or 1 per step
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    const g = load4(dy + i, left);
    const d = f32x4.mul(f32x4.sub(f32x4.sub(load4(x + i, left), mv), ev), rv);
    store4(sums + i, f32x4.add(load4(sums + i, left), f32x4.mul(g, d)), left);
    store4(biases + i, f32x4.add(load4(biases + i, left), g), left);
  }
}
