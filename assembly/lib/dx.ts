// The second pass of backward over a row: dx, from the sums of the first.
//
//   c = rstd^2 * mean(g * xhat)      k = rstd * mean(g) - c * mean
//
//   dx = (rstd * g - c * x) - k + add
//
// In a row far from zero x - m takes the place of x, and k has the rest of the mean in place of the mean.
//
// dx is assigned, and may be dy or add. Its roundings are counted in "Backward: the roundings of dx" in
// docs/guides/numerics.md.

import { load4, store4 } from "./lanes";

/** dx of a row. */
export function writeDx<Mean>(
  dx: usize, // [cols]
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  m: f32,
  r: f32,
  c: f32,
  k: f32,
): void {
  const mv = f32x4.splat(m);
  const rv = f32x4.splat(r);
  const cv = f32x4.splat(c);
  const kv = f32x4.splat(k);
  const end16 = (cols & ~15) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const d = dy + i;
    const e = x + i;
    const t = dx + i;
    let g0 = v128.load(d);
    let g1 = v128.load(d, 16);
    let g2 = v128.load(d, 32);
    let g3 = v128.load(d, 48);
    if (weight) {
      const w = weight + i;
      g0 = f32x4.mul(g0, v128.load(w));
      g1 = f32x4.mul(g1, v128.load(w, 16));
      g2 = f32x4.mul(g2, v128.load(w, 32));
      g3 = f32x4.mul(g3, v128.load(w, 48));
    }
    g0 = gradient<Mean>(g0, v128.load(e), mv, rv, cv, kv);
    g1 = gradient<Mean>(g1, v128.load(e, 16), mv, rv, cv, kv);
    g2 = gradient<Mean>(g2, v128.load(e, 32), mv, rv, cv, kv);
    g3 = gradient<Mean>(g3, v128.load(e, 48), mv, rv, cv, kv);
    if (add) {
      const f = add + i;
      g0 = f32x4.add(g0, v128.load(f));
      g1 = f32x4.add(g1, v128.load(f, 16));
      g2 = f32x4.add(g2, v128.load(f, 32));
      g3 = f32x4.add(g3, v128.load(f, 48));
    }
    v128.store(t, g0);
    v128.store(t, g1, 16);
    v128.store(t, g2, 32);
    v128.store(t, g3, 48);
  }

  // tail, 4 or 1 per step
  for (; i < end; i += end - i < 16 ? 4 : 16) {
    const left = end - i;
    let d = load4(dy + i, left);
    if (weight) d = f32x4.mul(d, load4(weight + i, left));
    d = gradient<Mean>(d, load4(x + i, left), mv, rv, cv, kv);
    if (add) d = f32x4.add(d, load4(add + i, left));
    store4(dx + i, d, left);
  }
}

/** dx, 4 lanes: (rstd * g - c * x) - k, with x - m in place of x far from zero. */
function gradient<Mean>(g: v128, x: v128, m: v128, r: v128, c: v128, k: v128): v128 {
  const d = f32x4.sub(f32x4.mul(g, r), f32x4.mul(isFloat<Mean>() ? f32x4.sub(x, m) : x, c));
  return isVoid<Mean>() ? d : f32x4.sub(d, k);
}
