// Backward of one row in double, two numbers at a time: right for any finite row. It computes the mean anew, and rstd
// where eps is known.
//
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add        g = dy * weight, xhat = (x - mean) * rstd
//
// A row is read twice. The first pass adds d, d^2, g and g * d, where d = x - the first number of the row. The second
// writes dx, and adds to dweight and dbias. About the first number nearly equal numbers keep all their digits, and
// equal ones have a variance of 0.

import { Absent, Present, sumLanes } from "./lanes";

// Between these a float holds rstd well.
const LEAST: f64 = 7.52316384526264e-37; // 2^-120
const MOST: f64 = 1.329227995784916e36; // 2^120

/** Two numbers of a row in double, or the last one and 0. */
function two<Last>(pointer: usize): v128 {
  return f64x2.promote_low_f32x4(isVoid<Last>() ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
}

/** x - first of two numbers, or of the last one and 0. */
function difference<Mean, Last>(x: usize, first: v128): v128 {
  const v = two<Last>(x);
  if (isVoid<Mean>()) return v;
  const d = f64x2.sub(v, first);
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
  const end4 = (cols & ~3) << 2;
  const end2 = (cols & ~1) << 2;
  const first = f64x2.splat(isVoid<Mean>() ? 0 : f64(load<f32>(x)));
  let values = f64x2.splat(0);
  let squares = values;
  let s = values;
  let q = values;
  let i: usize = 0;

  // the sums, 4 per step
  for (; i < end4; i += 16) {
    const d0 = difference<Mean, Absent>(x + i, first);
    const d1 = difference<Mean, Absent>(x + i + 8, first);
    const g0 = gradient<Absent>(dy, weight, i);
    const g1 = gradient<Absent>(dy, weight, i + 8);
    if (!isVoid<Mean>()) {
      values = f64x2.add(values, f64x2.add(d0, d1));
      s = f64x2.add(s, f64x2.add(g0, g1));
    }
    squares = f64x2.add(squares, f64x2.add(f64x2.mul(d0, d0), f64x2.mul(d1, d1)));
    q = f64x2.add(q, f64x2.add(f64x2.mul(g0, d0), f64x2.mul(g1, d1)));
  }

  // tail, 1 per step
  for (const end = cols << 2; i < end; i += 4) {
    const d = difference<Mean, Present>(x + i, first);
    const g = gradient<Present>(dy, weight, i);
    values = f64x2.add(values, d);
    s = f64x2.add(s, g);
    squares = f64x2.add(squares, f64x2.mul(d, d));
    q = f64x2.add(q, f64x2.mul(g, d));
  }

  // Divided by cols, where the product with 1 / cols would be less exact.
  const n = f64x2.splat(f64(cols));
  const moments = f64x2.div(sumLanes(values, squares), n);
  const means = f64x2.div(sumLanes(s, q), n);
  const delta = isVoid<Mean>() ? 0 : f64x2.extract_lane(moments, 0);
  const mean = isVoid<Mean>() ? 0 : f64x2.extract_lane(means, 0);
  const known = eps >= 0;
  let r = f64(rstd);
  if (known || !(r > LEAST && r < MOST)) {
    r = 1 / Math.sqrt(f64x2.extract_lane(moments, 1) - delta * delta + (known ? eps : 0));
  }
  const c = (f64x2.extract_lane(means, 1) - mean * delta) * r * r;
  const dv = f64x2.splat(delta);
  const rv = f64x2.splat(r);
  const cv = f64x2.splat(c);
  const av = f64x2.splat(mean - delta * c);

  // totals and dx, 2 per step
  for (i = 0; i < end2; i += 8) {
    const d = difference<Mean, Absent>(x + i, first);
    if (totals) addRow<Mean, Absent>(totals, dy, i, cols, d, dv, rv);
    if (!dx) continue;
    let v = dxOf<Mean, Absent>(dy, weight, i, d, rv, cv, av);
    if (add) v = f32x4.add(v, v128.load64_zero(add + i));
    v128.store64_lane(dx + i, v, 0);
  }
  if (cols & 1) {
    const d = difference<Mean, Present>(x + i, first);
    if (totals) addRow<Mean, Present>(totals, dy, i, cols, d, dv, rv);
    if (!dx) return;
    let v = dxOf<Mean, Present>(dy, weight, i, d, rv, cv, av);
    if (add) v = f32x4.add(v, v128.load32_zero(add + i));
    v128.store32_lane(dx + i, v, 0);
  }
}

/** What two numbers of a row, or the last one, add to the totals. */
function addRow<Mean, Last>(totals: usize, dy: usize, i: usize, cols: usize, d: v128, delta: v128, r: v128): void {
  const g = two<Last>(dy + i);
  const t = totals + (i << 1);
  addTo<Last>(t, f64x2.mul(g, f64x2.mul(isVoid<Mean>() ? d : f64x2.sub(d, delta), r)));
  if (!isVoid<Mean>()) addTo<Last>(t + (cols << 3), g);
}

/** rstd * (g - d * c - a) as floats, where a = mean(g) - mean(d) * c. */
function dxOf<Mean, Last>(dy: usize, weight: usize, i: usize, d: v128, r: v128, c: v128, a: v128): v128 {
  const g = f64x2.sub(gradient<Last>(dy, weight, i), f64x2.mul(d, c));
  return f32x4.demote_f64x2_zero(f64x2.mul(r, isVoid<Mean>() ? g : f64x2.sub(g, a)));
}
