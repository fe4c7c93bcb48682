// Backward of one row in double, two numbers at a time, with a mean of its own, and an rstd of its own where eps is
// known: right for any finite row.
//
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add        g = dy * weight, xhat = (x - mean) * rstd

// Between these a float holds rstd well.
const LEAST: f64 = 7.52316384526264e-37; // 2^-120
const MOST: f64 = 1.329227995784916e36; // 2^120

/** Two numbers of a row in double, or the last one and 0. */
function two(pointer: usize, left: usize): v128 {
  return f64x2.promote_low_f32x4(left > 4 ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
}

/** x - m of two numbers, or of the last one and 0. */
function centered(x: usize, left: usize, m: v128): v128 {
  const d = f64x2.sub(two(x, left), m);
  return left > 4 ? d : f64x2.replace_lane(d, 1, 0);
}

/** dy * weight of two numbers, or of the last one and 0. */
function gradient(dy: usize, weight: usize, left: usize): v128 {
  const d = two(dy, left);
  return weight ? f64x2.mul(d, two(weight, left)) : d;
}

/** total += v, of two numbers or the last one. */
function addTo(total: usize, v: v128, left: usize): void {
  v = f64x2.add(v128.load(total), v);
  if (left > 4) v128.store(total, v);
  else v128.store64_lane(total, v, 0);
}

/** The sum of both lanes. */
function sumLanes(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}

/** The mean of a row. It is divided by the count, which gives that of equal numbers exactly; multiplied by 1 / cols, it is not. */
export function exactMean(
  x: usize, // [cols]
  cols: usize,
): f64 {
  const end = cols << 2;
  let s = f64x2.splat(0);
  for (let i: usize = 0; i < end; i += 8) s = f64x2.add(s, two(x + i, end - i));
  return sumLanes(s) / f64(cols);
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
  const end = cols << 2;
  const n = f64(cols);
  const m = f64x2.splat(isVoid<Mean>() ? 0 : exactMean(x, cols));
  let s: v128;

  const known = eps >= 0;
  let r = f64(rstd);
  if (known || !(r > LEAST && r < MOST)) {
    s = f64x2.splat(0);
    for (let i: usize = 0; i < end; i += 8) {
      const d = centered(x + i, end - i, m);
      s = f64x2.add(s, f64x2.mul(d, d));
    }
    r = 1 / Math.sqrt(sumLanes(s) / n + (known ? eps : 0));
  }
  const rv = f64x2.splat(r);

  // the sums, 2 per step
  s = f64x2.splat(0);
  let q = s;
  for (let i: usize = 0; i < end; i += 8) {
    const left = end - i;
    const xhat = f64x2.mul(centered(x + i, left, m), rv);
    const g = gradient(dy + i, weight && weight + i, left);
    s = f64x2.add(s, g);
    q = f64x2.add(q, f64x2.mul(g, xhat));
    if (totals) {
      const d = two(dy + i, left);
      const t = totals + (i << 1);
      addTo(t, f64x2.mul(d, xhat), left);
      if (!isVoid<Mean>()) addTo(t + (cols << 3), d, left);
    }
  }
  if (!dx) return;
  const a = f64x2.splat(isVoid<Mean>() ? 0 : sumLanes(s) / n);
  const c = f64x2.splat((sumLanes(q) / n) * r);

  // dx, 2 per step
  for (let i: usize = 0; i < end; i += 8) {
    const left = end - i;
    const g = f64x2.sub(gradient(dy + i, weight && weight + i, left), a);
    const d = f64x2.mul(rv, f64x2.sub(g, f64x2.mul(centered(x + i, left, m), c)));
    let v = f32x4.demote_f64x2_zero(d);
    if (left > 4) {
      if (add) v = f32x4.add(v, v128.load64_zero(add + i));
      v128.store64_lane(dx + i, v, 0);
    } else {
      if (add) v = f32x4.add(v, v128.load32_zero(add + i));
      v128.store32_lane(dx + i, v, 0);
    }
  }
}
