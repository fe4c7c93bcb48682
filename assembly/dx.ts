// The second pass of backward: dx of a row from its two sums.
//
//   dx = rstd * ((g - a) - (x - mean) * c)        g = dy * weight, a = mean(g), c = rstd * mean(g * xhat)

import { centered, centeredOne } from "./gradients";

/** 4 lanes. */
function lanes<Weight, Shift>(dy: v128, x: v128, weight: usize, m: v128, delta: v128, r: v128, a: v128, c: v128): v128 {
  if (!isVoid<Weight>()) dy = f32x4.mul(dy, v128.load(weight));
  return f32x4.mul(r, f32x4.sub(f32x4.sub(dy, a), f32x4.mul(centered<Shift>(x, m, delta), c)));
}

/** All of a row. */
export function writeDx<Weight, Shift>(
  dx: usize, // [cols]
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols]
  cols: usize,
  m: f32,
  delta: f32,
  r: f32,
  a: f32,
  c: f32,
): void {
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(delta);
  const rv = f32x4.splat(r);
  const av = f32x4.splat(a);
  const cv = f32x4.splat(c);
  const end16 = (cols & ~15) << 2;
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const o = dx + i;
    const d = dy + i;
    const p = x + i;
    const w = weight + i;
    v128.store(o, lanes<Weight, Shift>(v128.load(d), v128.load(p), w, mv, ev, rv, av, cv));
    v128.store(o, lanes<Weight, Shift>(v128.load(d, 16), v128.load(p, 16), w + 16, mv, ev, rv, av, cv), 16);
    v128.store(o, lanes<Weight, Shift>(v128.load(d, 32), v128.load(p, 32), w + 32, mv, ev, rv, av, cv), 32);
    v128.store(o, lanes<Weight, Shift>(v128.load(d, 48), v128.load(p, 48), w + 48, mv, ev, rv, av, cv), 48);
  }

  // tail, 4 per step
  for (; i < end4; i += 16) {
    v128.store(dx + i, lanes<Weight, Shift>(v128.load(dy + i), v128.load(x + i), weight + i, mv, ev, rv, av, cv));
  }

  // tail, 1 per step
  for (; i < end; i += 4) {
    let g = load<f32>(dy + i);
    if (!isVoid<Weight>()) g *= load<f32>(weight + i);
    store<f32>(dx + i, r * (g - a - centeredOne<Shift>(load<f32>(x + i), m, delta) * c));
  }
}
