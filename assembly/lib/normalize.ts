// The second pass of forward: a row normalized. Once for any row and operands, and once, faster, for rows near zero
// with the usual operands. A mean far from zero comes as k + delta and is never rounded to one float.

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
  const end4 = (cols & ~3) << 2;
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

  // tail, 4 per step
  for (; i < end4; i += 16) {
    v128.store(y + i, affine<Mean>(v128.load(x + i), v128.load(weight + i), v128.load(bias + i), dv, rv));
  }

  // tail, 1 per step
  for (; i < end; i += 4) {
    let d = load<f32>(x + i);
    if (!isVoid<Mean>()) d -= delta;
    d = d * rstd * load<f32>(weight + i);
    if (!isVoid<Mean>()) d += load<f32>(bias + i);
    store<f32>(y + i, d);
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
  const end4 = (cols & ~3) << 2;
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

  // tail, 4 per step
  for (; i < end4; i += 16) {
    let d = centered(v128.load(x + i), kv, dv, rv);
    if (weight) d = f32x4.mul(d, v128.load(weight + i));
    if (bias) d = f32x4.add(d, v128.load(bias + i));
    v128.store(y + i, d);
  }

  // tail, 1 per step
  for (; i < end; i += 4) {
    let d = (load<f32>(x + i) - k - delta) * rstd;
    if (weight) d *= load<f32>(weight + i);
    if (bias) d += load<f32>(bias + i);
    store<f32>(y + i, d);
  }
}
