// The parameters' gradients and their sums, and a row of backward in double.
//
//   dweight += dy * xhat        dbias += dy        xhat = (x - mean) * rstd
//
// Where the sums of a row are taken anyway, backward.ts adds to both in that pass with the lane helpers here. The loops here are
// for the cases beside it: one gradient alone, the parts of many rows, a row too large for floats.

import { exactMoments } from "./moments";

// Sums along a row run in float32 over this many columns, 16 additions to a lane, and in double from there on: see moments.ts.
// Nothing is subtracted from them that could magnify their error, so the block may be longer here.
export const BLOCK: usize = 256;

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

/** sum += row, float by float: dbias += dy of one row. */
export function addRow(
  sum: usize, // [cols]
  row: usize, // [cols]
  cols: usize,
): void {
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 4 per step
  for (; i < end4; i += 16) accumulate(sum + i, v128.load(row + i));

  // tail, 1 per step
  for (; i < end; i += 4) accumulateOne(sum + i, load<f32>(row + i));
}

/** totals += part, from float32 to double, of an even number of columns. */
export function addPart(
  totals: usize, // [count], double
  part: usize, // [count]
  count: usize,
): void {
  const end = count << 2;

  // 2 per step
  for (let i: usize = 0; i < end; i += 8) {
    const t = totals + (i << 1);
    v128.store(t, f64x2.add(v128.load(t), f64x2.promote_low_f32x4(v128.load64_zero(part + i))));
  }
}

/** totals += more, both double, of an even number of columns. */
export function addTotals(
  totals: usize, // [count], double
  more: usize, // [count], double
  count: usize,
): void {
  const end = count << 3;

  // 2 per step
  for (let i: usize = 0; i < end; i += 16)
    v128.store(totals + i, f64x2.add(v128.load(totals + i), v128.load(more + i)));
}

/** sum += totals, from double to float32. */
export function addTotal(
  sum: usize, // [cols]
  totals: usize, // [cols], double
  cols: usize,
): void {
  const end = cols << 2;

  // 1 per step
  for (let i: usize = 0; i < end; i += 4)
    store<f32>(sum + i, f32(f64(load<f32>(sum + i)) + load<f64>(totals + (i << 1))));
}

/**
 * One row in double, with a mean of its own: for an rstd below 2^-120, where float32 holds neither rstd well nor x - mean
 * always. The standard deviation then gives rstd too, unless it was an enormous eps that made it so small.
 */
export function exactRow(
  dx: usize, // [cols] or 0
  dweight: usize, // [cols] or 0
  dbias: usize, // [cols] or 0
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  cols: usize,
  rstd: f32,
): void {
  const end = cols << 2;
  const row = exactMoments(x, cols);
  const m = f64x2.extract_lane(row, 0);
  const own = 1 / Math.sqrt(f64x2.extract_lane(row, 1));
  const r = own < 1.01 * f64(rstd) ? own : f64(rstd);

  // the sums, and dweight and dbias, 1 per step
  let a: f64 = 0;
  let c: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) {
    const d = load<f32>(dy + i);
    const xhat = (f64(load<f32>(x + i)) - m) * r;
    const g = weight ? f64(d) * f64(load<f32>(weight + i)) : f64(d);
    a += g;
    c += g * xhat;
    if (dweight) accumulateOne(dweight + i, f32(f64(d) * xhat));
    if (dbias) accumulateOne(dbias + i, d);
  }
  if (!dx) return;
  a /= f64(cols);
  c /= f64(cols);

  // dx, 1 per step
  for (let i: usize = 0; i < end; i += 4) {
    const xhat = (f64(load<f32>(x + i)) - m) * r;
    const g = weight ? f64(load<f32>(dy + i)) * f64(load<f32>(weight + i)) : f64(load<f32>(dy + i));
    store<f32>(dx + i, f32(r * (g - a - xhat * c)));
  }
}
