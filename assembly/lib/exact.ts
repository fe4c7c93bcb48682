// Backward of one row in double, two numbers at a time, with a mean of its own, and an rstd of its own where eps is
// known: right for any finite row.
//
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add        g = dy * weight, xhat = (x - mean) * rstd

import { Absent, Present } from "./lanes";

// Between these a float holds rstd well.
const LEAST: f64 = 7.52316384526264e-37; // 2^-120
const MOST: f64 = 1.329227995784916e36; // 2^120

/** Two numbers of a row in double, or the last one and 0. */
function two<Last>(pointer: usize): v128 {
  return f64x2.promote_low_f32x4(isVoid<Last>() ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
}

/** x - m of two numbers, or of the last one and 0. */
function centered<Last>(x: usize, m: v128): v128 {
  const d = f64x2.sub(two<Last>(x), m);
  return isVoid<Last>() ? d : f64x2.replace_lane(d, 1, 0);
}

/** dy * weight of two numbers, or of the last one and 0. */
function gradient<Last>(dy: usize, weight: usize, i: usize): v128 {
  const d = two<Last>(dy + i);
  return weight ? f64x2.mul(d, two<Last>(weight + i)) : d;
}

/** total += v, of two numbers or the last one. */
function addTo<Last>(total: usize, v: v128): void {
  if (isVoid<Last>()) v128.store(total, f64x2.add(v128.load(total), v));
  else v128.store64_lane(total, f64x2.add(v128.load64_zero(total), v), 0);
}

/** The sum of both lanes. */
function sumLanes(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}

/** The mean of a row. The sum is divided by cols: multiplied by 1 / cols, it would not be exact for equal numbers. */
export function exactMean(
  x: usize, // [cols]
  cols: usize,
): f64 {
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let s0 = f64x2.splat(0);
  let s1 = s0;
  let i: usize = 0;

  // 4 per step, and a tail of 1 per step
  for (; i < end4; i += 16) {
    s0 = f64x2.add(s0, two<Absent>(x + i));
    s1 = f64x2.add(s1, two<Absent>(x + i + 8));
  }
  for (; i < end; i += 4) s0 = f64x2.add(s0, two<Present>(x + i));
  return sumLanes(f64x2.add(s0, s1)) / f64(cols);
}

/** The mean of squares about `m`. */
function variance(
  x: usize, // [cols]
  cols: usize,
  m: v128,
): f64 {
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let s0 = f64x2.splat(0);
  let s1 = s0;
  let i: usize = 0;

  // 4 per step, and a tail of 1 per step
  for (; i < end4; i += 16) {
    const d = centered<Absent>(x + i, m);
    const e = centered<Absent>(x + i + 8, m);
    s0 = f64x2.add(s0, f64x2.mul(d, d));
    s1 = f64x2.add(s1, f64x2.mul(e, e));
  }
  for (; i < end; i += 4) {
    const d = centered<Present>(x + i, m);
    s0 = f64x2.add(s0, f64x2.mul(d, d));
  }
  return sumLanes(f64x2.add(s0, s1)) / f64(cols);
}

/** dx =, totals += of one row. */
export function exactRow<Mean>(
  dx: usize, // [cols] or 0
  totals: usize, // [2, cols], double: of dweight, and of dbias; or 0
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  rstd: f32,
  eps: f64, // that of the forward pass, or NaN: not known
): void {
  const end2 = (cols & ~1) << 2;
  const m = f64x2.splat(isVoid<Mean>() ? 0 : exactMean(x, cols));
  const known = eps >= 0;
  let r = f64(rstd);
  if (known || !(r > LEAST && r < MOST)) r = 1 / Math.sqrt(variance(x, cols, m) + (known ? eps : 0));
  const rv = f64x2.splat(r);
  const n = f64(cols);
  let s = f64x2.splat(0);
  let q = s;
  let i: usize = 0;

  // the sums, 2 per step
  for (; i < end2; i += 8) {
    const xhat = f64x2.mul(centered<Absent>(x + i, m), rv);
    const g = gradient<Absent>(dy, weight, i);
    s = f64x2.add(s, g);
    q = f64x2.add(q, f64x2.mul(g, xhat));
    if (totals) addRow<Mean, Absent>(totals, dy, i, cols, xhat);
  }
  if (cols & 1) {
    const xhat = f64x2.mul(centered<Present>(x + i, m), rv);
    const g = gradient<Present>(dy, weight, i);
    s = f64x2.add(s, g);
    q = f64x2.add(q, f64x2.mul(g, xhat));
    if (totals) addRow<Mean, Present>(totals, dy, i, cols, xhat);
  }
  if (!dx) return;
  const a = f64x2.splat(isVoid<Mean>() ? 0 : sumLanes(s) / n);
  const c = f64x2.splat((sumLanes(q) / n) * r);

  // dx, 2 per step
  for (i = 0; i < end2; i += 8) {
    let v = dxOf<Absent>(dy, x, weight, i, m, rv, a, c);
    if (add) v = f32x4.add(v, v128.load64_zero(add + i));
    v128.store64_lane(dx + i, v, 0);
  }
  if (cols & 1) {
    let v = dxOf<Present>(dy, x, weight, i, m, rv, a, c);
    if (add) v = f32x4.add(v, v128.load32_zero(add + i));
    v128.store32_lane(dx + i, v, 0);
  }
}

/** What two numbers of a row, or the last one, add to the totals. */
function addRow<Mean, Last>(totals: usize, dy: usize, i: usize, cols: usize, xhat: v128): void {
  const d = two<Last>(dy + i);
  const t = totals + (i << 1);
  addTo<Last>(t, f64x2.mul(d, xhat));
  if (!isVoid<Mean>()) addTo<Last>(t + (cols << 3), d);
}

/** dx without `add`, 2 lanes. */
function dxOf<Last>(dy: usize, x: usize, weight: usize, i: usize, m: v128, r: v128, a: v128, c: v128): v128 {
  const g = f64x2.sub(gradient<Last>(dy, weight, i), a);
  return f32x4.demote_f64x2_zero(f64x2.mul(r, f64x2.sub(g, f64x2.mul(centered<Last>(x + i, m), c))));
}
