// The second pass of forward: a row normalized about its mean, k + delta, which is never rounded to one float.
//
//   y = ((x - k) - delta) * rstd * weight + bias

import { Absent, Present } from "./f32x4";

/** y = ((x - k) - delta) * rstd * weight + bias, 4 lanes. */
function lanes<Weight, Bias, Shift>(x: v128, weight: usize, bias: usize, k: v128, delta: v128, rstd: v128): v128 {
  if (!isVoid<Shift>()) x = f32x4.sub(x, k);
  x = f32x4.mul(f32x4.sub(x, delta), rstd);
  if (!isVoid<Weight>()) x = f32x4.mul(x, v128.load(weight));
  if (!isVoid<Bias>()) x = f32x4.add(x, v128.load(bias));
  return x;
}

/** All of a row, compiled once for each set of operands. */
function write<Weight, Bias, Shift>(
  y: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols]
  bias: usize, // [cols]
  cols: usize,
  k: f32,
  delta: f32,
  rstd: f32,
): void {
  const kv = f32x4.splat(k);
  const dv = f32x4.splat(delta);
  const rv = f32x4.splat(rstd);
  const end16 = (cols & ~15) << 2;
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    const q = y + i;
    const p = x + i;
    const w = weight + i;
    const b = bias + i;
    v128.store(q, lanes<Weight, Bias, Shift>(v128.load(p), w, b, kv, dv, rv));
    v128.store(q, lanes<Weight, Bias, Shift>(v128.load(p, 16), w + 16, b + 16, kv, dv, rv), 16);
    v128.store(q, lanes<Weight, Bias, Shift>(v128.load(p, 32), w + 32, b + 32, kv, dv, rv), 32);
    v128.store(q, lanes<Weight, Bias, Shift>(v128.load(p, 48), w + 48, b + 48, kv, dv, rv), 48);
  }

  // tail, 4 per step
  for (; i < end4; i += 16) {
    v128.store(y + i, lanes<Weight, Bias, Shift>(v128.load(x + i), weight + i, bias + i, kv, dv, rv));
  }

  // tail, 1 per step
  for (; i < end; i += 4) {
    let d = load<f32>(x + i);
    if (!isVoid<Shift>()) d -= k;
    d = (d - delta) * rstd;
    if (!isVoid<Weight>()) d *= load<f32>(weight + i);
    if (!isVoid<Bias>()) d += load<f32>(bias + i);
    store<f32>(y + i, d);
  }
}

/** All of a row, whichever operands it has. Inlined, because beside a row of 8 columns a call costs as much as the row. */
export function normalize<Shift>(
  y: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  k: f32,
  delta: f32,
  rstd: f32,
): void {
  if (weight) {
    if (bias) inline.always(write<Present, Present, Shift>(y, x, weight, bias, cols, k, delta, rstd));
    else inline.always(write<Present, Absent, Shift>(y, x, weight, bias, cols, k, delta, rstd));
  } else {
    if (bias) inline.always(write<Absent, Present, Shift>(y, x, weight, bias, cols, k, delta, rstd));
    else inline.always(write<Absent, Absent, Shift>(y, x, weight, bias, cols, k, delta, rstd));
  }
}
