// The second pass of forward, which writes y. `normalize` is for any row and operands. `normalizeAffine` is faster, for
// rows near zero with the usual operands; `normalizeFour` does the same for four rows. y is assigned, and may be x.
//
// A mean far from zero comes as k + delta and is never rounded to one float. "Forward: y" in docs/guides/numerics.md
// counts each rounding.

import { load4, Present, store4 } from "./lanes";

/** (x - delta) * rstd * weight + bias; without a mean, x * rstd * weight. 4 lanes. */
function affine<Mean>(x: v128, weight: v128, bias: v128, delta: v128, rstd: v128): v128 {
  if (isVoid<Mean>()) return f32x4.mul(f32x4.mul(x, rstd), weight);
  return f32x4.add(f32x4.mul(f32x4.mul(f32x4.sub(x, delta), rstd), weight), bias);
}

/** y = (x - delta) * rstd * weight + bias; without a mean, y = x * rstd * weight. */
export function normalizeAffine<Mean>(
  y: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols]
  bias: usize, // [cols]; not read without a mean
  cols: usize,
  delta: f32,
  rstd: f32,
): void {
  if (isVoid<Mean>()) bias = weight;
  const dv = f32x4.splat(delta);
  const rv = f32x4.splat(rstd);
  const end16 = (cols & ~15) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const q = y + i;
    const p = x + i;
    const w = weight + i;
    const b = bias + i;
    v128.store(q, affine<Mean>(v128.load(p), v128.load(w), v128.load(b), dv, rv));
    v128.store(q, affine<Mean>(v128.load(p, 16), v128.load(w, 16), v128.load(b, 16), dv, rv), 16);
    v128.store(q, affine<Mean>(v128.load(p, 32), v128.load(w, 32), v128.load(b, 32), dv, rv), 32);
    v128.store(q, affine<Mean>(v128.load(p, 48), v128.load(w, 48), v128.load(b, 48), dv, rv), 48);
  }

  // tail, 4 or 1 per step
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    const d = load4(x + i, left);
    store4(y + i, affine<Mean>(d, load4(weight + i, left), load4(bias + i, left), dv, rv), left);
  }
}

/** The same of four rows side by side, which loads weight and bias once for four. */
export function normalizeFour(
  y: usize, // [4, cols]
  x: usize, // [4, cols]
  weight: usize, // [cols]
  bias: usize, // [cols]
  cols: usize, // a multiple of 8
  delta: v128, // [4]
  rstd: v128, // [4]
): void {
  const stride = cols << 2;
  const d0 = v128.shuffle<f32>(delta, delta, 0, 0, 0, 0);
  const d1 = v128.shuffle<f32>(delta, delta, 1, 1, 1, 1);
  const d2 = v128.shuffle<f32>(delta, delta, 2, 2, 2, 2);
  const d3 = v128.shuffle<f32>(delta, delta, 3, 3, 3, 3);
  const r0 = v128.shuffle<f32>(rstd, rstd, 0, 0, 0, 0);
  const r1 = v128.shuffle<f32>(rstd, rstd, 1, 1, 1, 1);
  const r2 = v128.shuffle<f32>(rstd, rstd, 2, 2, 2, 2);
  const r3 = v128.shuffle<f32>(rstd, rstd, 3, 3, 3, 3);
  const x1 = x + stride;
  const x2 = x1 + stride;
  const x3 = x2 + stride;
  const y1 = y + stride;
  const y2 = y1 + stride;
  const y3 = y2 + stride;

  // 8 per step
  for (let i: usize = 0; i < stride; i += 32) {
    const w = v128.load(weight + i);
    const b = v128.load(bias + i);
    const v = v128.load(weight + i, 16);
    const c = v128.load(bias + i, 16);
    v128.store(y + i, affine<Present>(v128.load(x + i), w, b, d0, r0));
    v128.store(y + i, affine<Present>(v128.load(x + i, 16), v, c, d0, r0), 16);
    v128.store(y1 + i, affine<Present>(v128.load(x1 + i), w, b, d1, r1));
    v128.store(y1 + i, affine<Present>(v128.load(x1 + i, 16), v, c, d1, r1), 16);
    v128.store(y2 + i, affine<Present>(v128.load(x2 + i), w, b, d2, r2));
    v128.store(y2 + i, affine<Present>(v128.load(x2 + i, 16), v, c, d2, r2), 16);
    v128.store(y3 + i, affine<Present>(v128.load(x3 + i), w, b, d3, r3));
    v128.store(y3 + i, affine<Present>(v128.load(x3 + i, 16), v, c, d3, r3), 16);
  }
}

/** ((x - k) - delta) * rstd, 4 lanes. */
function centered(x: v128, k: v128, delta: v128, rstd: v128): v128 {
  return f32x4.mul(f32x4.sub(f32x4.sub(x, k), delta), rstd);
}

/** y = ((x - k) - delta) * rstd * weight + bias. */
export function normalize(
  y: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  k: f32,
  delta: f32,
  rstd: f32,
): void {
  const kv = f32x4.splat(k);
  const dv = f32x4.splat(delta);
  const rv = f32x4.splat(rstd);
  const end16 = (cols & ~15) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const p = x + i;
    let a = centered(v128.load(p), kv, dv, rv);
    let b = centered(v128.load(p, 16), kv, dv, rv);
    let c = centered(v128.load(p, 32), kv, dv, rv);
    let d = centered(v128.load(p, 48), kv, dv, rv);
    if (weight) {
      const w = weight + i;
      a = f32x4.mul(a, v128.load(w));
      b = f32x4.mul(b, v128.load(w, 16));
      c = f32x4.mul(c, v128.load(w, 32));
      d = f32x4.mul(d, v128.load(w, 48));
    }
    if (bias) {
      const w = bias + i;
      a = f32x4.add(a, v128.load(w));
      b = f32x4.add(b, v128.load(w, 16));
      c = f32x4.add(c, v128.load(w, 32));
      d = f32x4.add(d, v128.load(w, 48));
    }
    const q = y + i;
    v128.store(q, a);
    v128.store(q, b, 16);
    v128.store(q, c, 32);
    v128.store(q, d, 48);
  }

  // tail, 4 or 1 per step
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    let d = centered(load4(x + i, left), kv, dv, rv);
    if (weight) d = f32x4.mul(d, load4(weight + i, left));
    if (bias) d = f32x4.add(d, load4(bias + i, left));
    store4(y + i, d, left);
  }
}
