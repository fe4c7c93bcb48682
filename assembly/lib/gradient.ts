// Backward of one row in float32, from the statistics of the forward pass. RMSNorm has no `Mean`.
//
//   xhat = (x - mean) * rstd         g = dy * weight
//   c = rstd^2 * mean(g * xhat)      k = rstd * mean(g) - c * mean
//
//   dx = (rstd * g - c * x) - k
//
// A row is read twice. The first pass sums g and g * (x - mean), and adds to dweight and dbias. The second, in dx.ts,
// writes dx. A sum along the row runs in float32 over a block of 48 columns, and in double from block to block. The
// proof in docs/guides/numerics.md derives the limits of the results from the roundings of these loops. It also has the
// range in which they hold.
//
// In a row far from zero one float doesn't hold the mean, which is m + rest there. So (x - m) - rest takes the place of
// x - mean, and `Far` that of `Mean`.

import { writeDx } from "./dx";
import { load4, store4, sumHalves, sumLanes } from "./lanes";

// The bytes of a block. At most four additions in float32 lie between a number and the double that it is added to. This
// is D = 4 in the proof, the largest with which dx errs by less than 16 units.
const BLOCK: usize = 192;
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
  rest: f32, // what m lacks of the mean, in a row far from zero
  r: f32, // rstd
  inverse: f64, // 1 / cols
): bool {
  const end = cols << 2;
  const last = dy + ((cols & ~15) << 2);
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(rest);
  const rv = f32x4.splat(r);
  // The pointers move. With one offset for all, engines would add it to each.
  let d = dy;
  let v = x;
  let w = weight;
  let t = sums;
  let u = biases;
  let s = f64x2.splat(0);
  let q = s;

  // a block per step
  while (d !== last) {
    const stop = last - d > BLOCK ? d + BLOCK : last;
    let sb = f32x4.splat(0);
    let qb = sb;

    // 16 per step; what is only read comes first, because a store may hold up loads after it
    do {
      const g0 = v128.load(d);
      const g1 = v128.load(d, 16);
      const g2 = v128.load(d, 32);
      const g3 = v128.load(d, 48);
      const d0 = centered<Mean>(v128.load(v), mv, ev);
      const d1 = centered<Mean>(v128.load(v, 16), mv, ev);
      const d2 = centered<Mean>(v128.load(v, 32), mv, ev);
      const d3 = centered<Mean>(v128.load(v, 48), mv, ev);
      let a = g0;
      let b = g1;
      if (!isVoid<All>() || weight) {
        a = f32x4.mul(a, v128.load(w));
        b = f32x4.mul(b, v128.load(w, 16));
      }
      const s0 = f32x4.add(a, b);
      const q0 = f32x4.add(f32x4.mul(a, d0), f32x4.mul(b, d1));
      a = g2;
      b = g3;
      if (!isVoid<All>() || weight) {
        a = f32x4.mul(a, v128.load(w, 32));
        b = f32x4.mul(b, v128.load(w, 48));
      }
      sb = f32x4.add(sb, f32x4.add(s0, f32x4.add(a, b)));
      qb = f32x4.add(qb, f32x4.add(q0, f32x4.add(f32x4.mul(a, d2), f32x4.mul(b, d3))));
      if (!isVoid<All>() || sums) {
        v128.store(t, f32x4.add(v128.load(t), f32x4.mul(g0, f32x4.mul(d0, rv))));
        v128.store(t, f32x4.add(v128.load(t, 16), f32x4.mul(g1, f32x4.mul(d1, rv))), 16);
        v128.store(t, f32x4.add(v128.load(t, 32), f32x4.mul(g2, f32x4.mul(d2, rv))), 32);
        v128.store(t, f32x4.add(v128.load(t, 48), f32x4.mul(g3, f32x4.mul(d3, rv))), 48);
        if (!isVoid<Mean>()) {
          v128.store(u, f32x4.add(v128.load(u), g0));
          v128.store(u, f32x4.add(v128.load(u, 16), g1), 16);
          v128.store(u, f32x4.add(v128.load(u, 32), g2), 32);
          v128.store(u, f32x4.add(v128.load(u, 48), g3), 48);
        }
      }
      d += 64;
      v += 64;
      w += 64;
      t += 64;
      u += 64;
    } while (d !== stop);
    if (!isVoid<Mean>()) s = f64x2.add(s, sumHalves(sb));
    q = f64x2.add(q, sumHalves(qb));
  }

  // tail, 4 or 1 per step, in double
  for (let i = last - dy; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    let g = load4(dy + i, left);
    const d = centered<Mean>(load4(x + i, left), mv, ev); // of fewer than 4, only the first: g is 0 in the others
    if (sums) {
      store4(sums + i, f32x4.add(load4(sums + i, left), f32x4.mul(g, f32x4.mul(d, rv))), left);
      if (!isVoid<Mean>()) store4(biases + i, f32x4.add(load4(biases + i, left), g), left);
    }
    if (weight) g = f32x4.mul(g, load4(weight + i, left));
    if (!isVoid<Mean>()) s = f64x2.add(s, sumHalves(g));
    q = f64x2.add(q, sumHalves(f32x4.mul(g, d)));
  }

  const total = f64x2.mul(sumLanes(s, q), f64x2.splat(inverse));
  if (!dx) return true;
  const rr = f64(r);
  const a = f64x2.extract_lane(total, 0); // mean(g)
  let b = f64x2.extract_lane(total, 1); // mean(g * (x - mean))
  const c = f32(b * (rr * rr * rr));
  b *= rr;
  // mean(g)^2 + mean(g * xhat)^2. By Bessel's inequality mean(g^2) is at least this.
  const size = a * a + b * b;
  if (!(size > LEAST && size < LARGEST) && !inRange(dy, weight, cols, r, inverse, size)) return false;
  const k = f32(rr * a - f64(c) * f64(isFloat<Mean>() ? rest : m));
  inline.always(writeDx<Mean>(dx, dy, x, weight, add, cols, m, r, c, k));
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

/** x - m, and less the rest of the mean in a row far from zero; for RMSNorm x. */
function centered<Mean>(x: v128, m: v128, rest: v128): v128 {
  const d = isVoid<Mean>() ? x : f32x4.sub(x, m);
  return isFloat<Mean>() ? f32x4.sub(d, rest) : d;
}
