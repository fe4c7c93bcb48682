// Backward of one row in float32, where floats hold its results.
//
// A row is read twice: for its two sums and for dweight and dbias, then for dx. Before and after the first pass a few
// numbers of the row tell whether it is ordinary. It is not where one of these holds:
//
// - The mean is hundreds of times the spread of the row.
// - Numbers are so large or small that products leave the range of floats.
// - Sizes of g nearly repeat, so that roundings don't average out. And so do numbers of x, or x has an outlier.
// - One lane has most of the sum of g * xhat, and x has an outlier, which magnifies the error of that sum.
// - The sums are large beside g: dx is then a small difference, or roundings of the sums outweigh it. The
//   rounding of rstd counts twice there.
//
// Where the mean is more than twice the spread, a float doesn't hold it well enough. Such a row is far from zero: one
// more pass computes the rest of the mean.

import { sumHalves, sumLanes } from "./lanes";
import { shiftedMoments } from "./moments";

/** The columns of a long row. */
export const LONG: usize = 256;

/**
 * Sums along a row run in float32 over this many columns, 16 additions to a lane, and in double from there on. In a row
 * that isn't long one number may be most of the sum, so blocks have half as many.
 */
export function blockOf(cols: usize): usize {
  return cols < LONG ? 64 : 128;
}

// Between these sizes of dy * weight no product here overflows, nor loses digits to underflow.
const LEAST: f32 = 1e-15;
const MOST: f32 = 1e25;

/** The least spread of a row beside its mean, where that is one float. */
export const NEAR: f32 = 0.5;
/** The same where it is two: 2^-9. */
export const FAR: f32 = 0.001953125;

/** x - mean, or (x - mean) - rest. */
export function centered<Mean>(x: v128, m: v128, rest: v128 = m): v128 {
  if (isVoid<Mean>()) return x;
  const d = f32x4.sub(x, m);
  return isFloat<Mean>() ? f32x4.sub(d, rest) : d;
}

/**
 * Whether a row is ordinary, as far as its first eight numbers tell. A spread of these is no larger than that of
 * the row, so a row that passes errs by no more than a unit of its largest xhat.
 */
export function ordinary<Mean>(
  dy: usize, // [cols]
  x: usize, // [cols]
  cols: usize,
  m: f32,
  r: f32,
  least: f32, // spread beside the mean: NEAR or FAR
): bool {
  if (cols < 4 || r <= <f32>1e-9 || r >= <f32>1e6 || abs(m) * least * r > <f32>2) return false;
  const mv = f32x4.splat(m);
  const next = min(cols - 4, 4) << 2;
  const first = f32x4.abs(centered<Mean>(v128.load(x), mv));
  const spread = f32x4.pmax(first, f32x4.abs(centered<Mean>(v128.load(x + next), mv)));
  const size = f32x4.pmax(f32x4.abs(v128.load(dy)), f32x4.abs(v128.load(dy + next)));
  return (
    !i32x4.all_true(f32x4.lt(spread, f32x4.splat(abs(m) * least + <f32>1e-26))) &&
    !v128.any_true(f32x4.gt(size, f32x4.splat(1e30)))
  );
}

/** The 4 floats at `pointer`, or the one that is left, and zeros. */
function load4(pointer: usize, left: usize): v128 {
  return left < 16 ? v128.load32_zero(pointer) : v128.load(pointer);
}

/** Stores 4 floats, or the one that is left. */
function store4(pointer: usize, v: v128, left: usize): void {
  if (left < 16) v128.store32_lane(pointer, v, 0);
  else v128.store(pointer, v);
}

/** Adds `v` to the 4 floats at `pointer`. */
function accumulate(pointer: usize, v: v128): void {
  v128.store(pointer, f32x4.add(v128.load(pointer), v));
}

/**
 * Both passes over a row; false where dx is still to be written, in double. With `All`, the code for operands that are
 * absent is left out.
 */
export function ordinaryRow<Mean, All>(
  dx: usize, // [cols] or 0
  sums: usize, // [cols] or 0: += what the row adds to dweight
  biases: usize, // [cols]: the same of dbias; not written to without `sums`, nor without a mean
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  m: f32,
  r: f32,
  inverse: f64, // 1 / cols
): bool {
  const rest = isFloat<Mean>() ? f32(f64x2.extract_lane(shiftedMoments(x, cols, m, inverse), 0)) : <f32>0;
  const block = blockOf(cols) << 2;
  const end8 = (cols & ~7) << 2;
  const end = cols << 2;
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(rest);
  const rv = f32x4.splat(r);
  const one = f32x4.splat(1);
  let s = f64x2.splat(0);
  let q = s;
  let largest = f32x4.splat(0);
  let i: usize = 0;

  // a block per step
  do {
    const stop = min(i + block, end8);
    let sb = f32x4.splat(0);
    let qb = sb;

    // 8 per step
    for (; i < stop; i += 32) {
      let g0 = v128.load(dy + i);
      const d0 = centered<Mean>(v128.load(x + i), mv, ev);
      const w0 = isVoid<All>() ? (weight ? v128.load(weight + i) : one) : v128.load(weight + i);
      if (!isVoid<All>() || sums) {
        accumulate(sums + i, f32x4.mul(g0, f32x4.mul(d0, rv)));
        if (!isVoid<Mean>()) accumulate(biases + i, g0);
      }
      g0 = f32x4.mul(g0, w0);
      let g1 = v128.load(dy + i, 16);
      const d1 = centered<Mean>(v128.load(x + i, 16), mv, ev);
      const w1 = isVoid<All>() ? (weight ? v128.load(weight + i, 16) : one) : v128.load(weight + i, 16);
      if (!isVoid<All>() || sums) {
        accumulate(sums + i + 16, f32x4.mul(g1, f32x4.mul(d1, rv)));
        if (!isVoid<Mean>()) accumulate(biases + i + 16, g1);
      }
      g1 = f32x4.mul(g1, w1);
      sb = f32x4.add(sb, f32x4.add(g0, g1));
      qb = f32x4.add(qb, f32x4.add(f32x4.mul(g0, d0), f32x4.mul(g1, d1)));
    }

    // tail, 4 or 1 per step
    while (stop === end8 && i < end) {
      const left = end - i;
      let g = load4(dy + i, left);
      const d = centered<Mean>(load4(x + i, left), mv, ev);
      if (sums) {
        store4(sums + i, f32x4.add(load4(sums + i, left), f32x4.mul(g, f32x4.mul(d, rv))), left);
        if (!isVoid<Mean>()) store4(biases + i, f32x4.add(load4(biases + i, left), g), left);
      }
      if (weight) g = f32x4.mul(g, load4(weight + i, left));
      sb = f32x4.add(sb, g);
      qb = f32x4.add(qb, f32x4.mul(g, d));
      i += left < 16 ? 4 : 16;
    }
    s = f64x2.add(s, sumHalves(sb));
    q = f64x2.add(q, sumHalves(qb));
    largest = f32x4.pmax(largest, f32x4.abs(qb));
  } while (i < end);
  return !dx || finish<Mean>(dx, dy, x, weight, add, cols, m, rest, r, inverse, sumLanes(s, q), most(largest));
}

/** The second pass, from the sums of the first; false where dx is still to be written, in double. */
export function finish<Mean>(
  dx: usize, // [cols]
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  m: f32,
  rest: f32,
  r: f32,
  inverse: f64, // 1 / cols
  total: v128, // [sum of g, sum of g * d]
  largest: f32, // sum of g * d in a lane of a block
): bool {
  // RMSNorm needs the mean of g only to tell whether the row is ordinary.
  const a = f64x2.extract_lane(total, 0) * inverse;
  const q = f64x2.extract_lane(total, 1) * inverse * f64(r);
  // What one float leaves of the mean counts in the sums.
  const error: f32 = isFloat<Mean>() ? 0.35 : <f32>0.35 + <f32>0.5 * abs(m) * r;
  if (!steady(dy, x, weight, cols, m, r, f32(abs(a)), f32(abs(q)), error, largest * r)) return false;
  const c = f32(f64(r) * f64(r) * q);
  const k = f32(f64(r) * a - f64(c) * f64(isFloat<Mean>() ? rest : m));
  writeDx<Mean>(dx, dy, x, weight, add, cols, m, r, c, k);
  return true;
}

/**
 * Whether floats hold dx, from the sums of the first pass. Of most rows a few numbers tell it. Of the others the
 * largest xhat is looked for, then the largest g.
 */
function steady(
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  cols: usize,
  m: f32,
  r: f32,
  a: f32, // |mean(g)|
  q: f32, // |mean(g * xhat)|
  error: f32, // of the mean of x
  largest: f32,
): bool {
  const last = (cols - 4) << 2;
  const g0 = sizes(dy, weight, 0);
  const g1 = sizes(dy, weight, last);
  let g = f32x4.pmax(g0, g1);
  if (cols >= 64) g = f32x4.pmax(g, f32x4.pmax(sizes(dy, weight, (cols / 3) << 2), sizes(dy, weight, (cols / 2) << 2)));
  let size = most(g);
  const same = repeat(g0, g1, size * 256);
  const alike = cols > 128 && repeats(x, x + last, m, r);
  const sum = a * error + q;
  // No xhat is larger than the root of cols. The lanes of ordinary rows have sums well below these limits.
  const root = Mathf.sqrt(f32(cols));
  const lane = cols < LONG ? root * <f32>0.6 + <f32>1.2 : cols < 1024 ? root * <f32>0.45 + 1 : <f32>15;
  const even = largest <= size * lane;
  if (size > LEAST && size < MOST && !same && !alike && even && a + root * sum <= size * <f32>1.1) return true;

  let high = v128.load(x + last);
  let low = high;
  let i: usize = 0;
  for (; i + 48 < last; i += 64) {
    const p = x + i;
    const u0 = v128.load(p);
    const u1 = v128.load(p, 16);
    const u2 = v128.load(p, 32);
    const u3 = v128.load(p, 48);
    high = f32x4.pmax(high, f32x4.pmax(f32x4.pmax(u0, u1), f32x4.pmax(u2, u3)));
    low = f32x4.pmin(low, f32x4.pmin(f32x4.pmin(u0, u1), f32x4.pmin(u2, u3)));
  }
  for (; i < last; i += 16) {
    const p = v128.load(x + i);
    high = f32x4.pmax(high, p);
    low = f32x4.pmin(low, p);
  }
  const t = max(most(high) - m, m + most(f32x4.neg(low))) * r;
  if (same && (t > 3 || repeats(x, x + last, m, r))) return false;
  if (alike && t > 6) return false;
  if (!even && t * largest > size * f32(cols) * <f32>0.2) return false;
  if (moderate(a, a + t * sum, size)) return true;
  for (i = 0; i < last; i += 16) g = f32x4.pmax(g, sizes(dy, weight, i));
  size = most(g);
  return size === 0 || moderate(a, a + t * sum, size);
}

/** Whether mean(g), and all that is taken from g, are moderate beside a size of g, and that is well within range. */
function moderate(a: f32, all: f32, size: f32): bool {
  return size > LEAST && size < MOST && a <= size * <f32>0.5 && all <= size * <f32>0.8;
}

/** Whether of 4 floats each at two places of a row some nearly repeat, but for those near its mean. */
function repeats(x: usize, y: usize, m: f32, r: f32): bool {
  const mv = f32x4.splat(m);
  return repeat(f32x4.sub(v128.load(x), mv), f32x4.sub(v128.load(y), mv), 256 / r);
}

/** Whether numbers that are not 0 repeat, rounded to 2^-23 of a size: in one of two vectors, or in a lane of both. */
function repeat(u: v128, v: v128, size: f32): bool {
  const zero = f32x4.splat(size);
  u = f32x4.add(u, zero);
  v = f32x4.add(v, zero);
  const ofU = v128.or(
    f32x4.eq(u, v128.shuffle<f32>(u, u, 1, 2, 3, 0)),
    v128.or(f32x4.eq(u, v128.shuffle<f32>(u, u, 2, 3, 0, 1)), f32x4.eq(u, v)),
  );
  const ofV = v128.or(
    f32x4.eq(v, v128.shuffle<f32>(v, v, 1, 2, 3, 0)),
    f32x4.eq(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1)),
  );
  return v128.any_true(v128.or(v128.and(ofU, f32x4.ne(u, zero)), v128.and(ofV, f32x4.ne(v, zero))));
}

/** |dy * weight|, 4 lanes. */
function sizes(dy: usize, weight: usize, i: usize): v128 {
  const g = v128.load(dy + i);
  return f32x4.abs(weight ? f32x4.mul(g, v128.load(weight + i)) : g);
}

/** The largest lane. */
export function most(v: v128): f32 {
  v = f32x4.pmax(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmax(v, v128.shuffle<f32>(v, v, 1, 0, 3, 2)), 0);
}

function writeDx<Mean>(
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
    const w = weight + i;
    const t = dx + i;
    let g0 = v128.load(d);
    let g1 = v128.load(d, 16);
    let g2 = v128.load(d, 32);
    let g3 = v128.load(d, 48);
    if (weight) {
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
  while (i < end) {
    const left = end - i;
    let d = load4(dy + i, left);
    if (weight) d = f32x4.mul(d, load4(weight + i, left));
    d = gradient<Mean>(d, load4(x + i, left), mv, rv, cv, kv);
    if (add) d = f32x4.add(d, load4(add + i, left));
    store4(dx + i, d, left);
    i += left < 16 ? 4 : 16;
  }
}

/**
 * dx, 4 lanes: (rstd * g - c * x) - k, where k = rstd * mean(g) - c * mean. Of a row far from zero x - m takes the
 * place of x, and what a float leaves of the mean that of the mean.
 */
function gradient<Mean>(g: v128, x: v128, m: v128, r: v128, c: v128, k: v128): v128 {
  const d = f32x4.sub(f32x4.mul(g, r), f32x4.mul(isFloat<Mean>() ? f32x4.sub(x, m) : x, c));
  return isVoid<Mean>() ? d : f32x4.sub(d, k);
}
