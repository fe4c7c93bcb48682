// The parameters' gradients, and what goes into them.
//
//   dweight += dy * xhat        dbias += dy        xhat = (x - mean) * rstd
//
// Where a row's sums are taken anyway, backward.ts adds to both in that pass, with the lane helpers here; the loops here are
// for a single one of them, or for none of dx's weight.

/** x - mean, to the precision of x - mean. */
export function centered<Shift>(x: v128, m: v128, delta: v128): v128 {
  x = f32x4.sub(x, m);
  return isVoid<Shift>() ? x : f32x4.sub(x, delta);
}

/** The same for one number. */
export function centeredOne<Shift>(x: f32, m: f32, delta: f32): f32 {
  return isVoid<Shift>() ? x - m : x - m - delta;
}

/** Adds `v` to the 4 floats at `pointer`. */
export function accumulate(pointer: usize, v: v128): void {
  v128.store(pointer, f32x4.add(v128.load(pointer), v));
}

/** The same for one float. */
export function accumulateOne(pointer: usize, v: f32): void {
  store<f32>(pointer, load<f32>(pointer) + v);
}

/** dweight += dy * xhat of one row. */
export function addDweight<Shift>(
  dweight: usize, // [cols]
  dy: usize, // [cols]
  x: usize, // [cols]
  cols: usize,
  m: f32,
  delta: f32,
  r: f32,
): void {
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(delta);
  const rv = f32x4.splat(r);
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 4 per step
  for (; i < end4; i += 16) {
    const xhat = f32x4.mul(centered<Shift>(v128.load(x + i), mv, ev), rv);
    accumulate(dweight + i, f32x4.mul(v128.load(dy + i), xhat));
  }

  // tail, 1 per step
  for (; i < end; i += 4) {
    const xhat = centeredOne<Shift>(load<f32>(x + i), m, delta) * r;
    accumulateOne(dweight + i, load<f32>(dy + i) * xhat);
  }
}

/** dbias += dy of one row. */
export function addDbias(
  dbias: usize, // [cols]
  dy: usize, // [cols]
  cols: usize,
): void {
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 4 per step
  for (; i < end4; i += 16) accumulate(dbias + i, v128.load(dy + i));

  // tail, 1 per step
  for (; i < end; i += 4) accumulateOne(dbias + i, load<f32>(dy + i));
}
