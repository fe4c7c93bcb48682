// Backward of one row in double, two numbers at a time: right for any finite row. It computes the mean anew, and rstd
// where eps is known.
//
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add        g = dy * weight, xhat = (x - mean) * rstd

import { Absent, Present, pair, sumLanes } from "./lanes";

// Between these a float holds rstd well.
const LEAST: f64 = 7.52316384526264e-37; // 2^-120
const MOST: f64 = 1.329227995784916e36; // 2^120

/** Two numbers of a row in double, or the last one and 0. */
function two<Last>(pointer: usize): v128 {
  return f64x2.promote_low_f32x4(isVoid<Last>() ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
}

/** (x - k) - delta of two numbers, or of the last one and 0. */
function centered<Mean, Last>(x: usize, k: v128, delta: v128): v128 {
  let d = two<Last>(x);
  if (!isVoid<Mean>()) d = f64x2.sub(f64x2.sub(d, k), delta);
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

/** [mean(d), mean(d^2)] of a row, d = x - k. Divided by cols, where the product with 1 / cols would be less exact. */
function momentsAbout(
  x: usize, // [cols]
  cols: usize,
  k: f64,
): v128 {
  const kv = f64x2.splat(k);
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let values = f64x2.splat(0);
  let squares = values;
  let i: usize = 0;

  // 4 per step, and a tail of 1 per step
  for (; i < end4; i += 16) {
    const d = f64x2.sub(two<Absent>(x + i), kv);
    const e = f64x2.sub(two<Absent>(x + i + 8), kv);
    values = f64x2.add(values, f64x2.add(d, e));
    squares = f64x2.add(squares, f64x2.add(f64x2.mul(d, d), f64x2.mul(e, e)));
  }
  let total = sumLanes(values, squares);
  for (; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - k;
    total = f64x2.add(total, pair(d, d * d));
  }
  return f64x2.div(total, f64x2.splat(f64(cols)));
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
  // About the first number: nearly equal numbers keep all their digits, and equal ones have a variance of 0.
  const first = isVoid<Mean>() ? 0 : f64(load<f32>(x));
  const moments = momentsAbout(x, cols, first);
  const mean = isVoid<Mean>() ? 0 : f64x2.extract_lane(moments, 0);
  const known = eps >= 0;
  let r = f64(rstd);
  if (known || !(r > LEAST && r < MOST)) {
    r = 1 / Math.sqrt(f64x2.extract_lane(moments, 1) - mean * mean + (known ? eps : 0));
  }
  const k = f64x2.splat(first);
  const delta = f64x2.splat(mean);
  const rv = f64x2.splat(r);
  let s = f64x2.splat(0);
  let q = s;
  let i: usize = 0;

  // the sums, 2 per step
  for (; i < end2; i += 8) {
    const xhat = f64x2.mul(centered<Mean, Absent>(x + i, k, delta), rv);
    const g = gradient<Absent>(dy, weight, i);
    s = f64x2.add(s, g);
    q = f64x2.add(q, f64x2.mul(g, xhat));
    if (totals) addRow<Mean, Absent>(totals, dy, i, cols, xhat);
  }
  if (cols & 1) {
    const xhat = f64x2.mul(centered<Mean, Present>(x + i, k, delta), rv);
    const g = gradient<Present>(dy, weight, i);
    s = f64x2.add(s, g);
    q = f64x2.add(q, f64x2.mul(g, xhat));
    if (totals) addRow<Mean, Present>(totals, dy, i, cols, xhat);
  }
  if (!dx) return;
  const means = f64x2.div(sumLanes(s, q), f64x2.splat(f64(cols)));
  const a = f64x2.splat(isVoid<Mean>() ? 0 : f64x2.extract_lane(means, 0));
  const c = f64x2.splat(f64x2.extract_lane(means, 1) * r);

  // dx, 2 per step
  for (i = 0; i < end2; i += 8) {
    const d = centered<Mean, Absent>(x + i, k, delta);
    let v = dxOf(gradient<Absent>(dy, weight, i), d, rv, a, c);
    if (add) v = f32x4.add(v, v128.load64_zero(add + i));
    v128.store64_lane(dx + i, v, 0);
  }
  if (cols & 1) {
    const d = centered<Mean, Present>(x + i, k, delta);
    let v = dxOf(gradient<Present>(dy, weight, i), d, rv, a, c);
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

/** rstd * (g - a - c * d) as floats, where d = x - mean. */
function dxOf(g: v128, d: v128, r: v128, a: v128, c: v128): v128 {
  return f32x4.demote_f64x2_zero(f64x2.mul(r, f64x2.sub(f64x2.sub(g, a), f64x2.mul(d, c))));
}
