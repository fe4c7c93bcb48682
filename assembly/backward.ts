// Layer normalization, backward, from the statistics of the forward pass.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat))
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// A row is read twice: for its two sums and for dweight and dbias, then for dx; where only one of dweight and dbias is
// wanted, or there is no weight, each takes a pass of its own. dx is assigned (=), dweight and dbias are added to (+=).
// dx may be dy; no other overlap is allowed.
//
// One float doesn't hold the mean of a row far from zero. There, and there alone, a pass more finds what the rounding left
// behind, delta = mean(x - mean), and xhat is ((x - mean) - delta) * rstd. A row so large that rstd or x - mean leave the
// range of a normal float is computed in double.
//
// The sums over rows run in float32 for a part of PART rows, and the parts are added in double: float32 alone would drift, by
// a rounding of the total for each row. The parts are fixed by the number of rows, and so is every sum.

import { Absent, Present, pair, sumPair } from "./f32x4";
import {
  accumulate,
  accumulateOne,
  addDweight,
  addPart,
  addRow,
  addTotal,
  centered,
  centeredOne,
  exactRow,
} from "./gradients";
import { shiftedMoments } from "./moments";

// |mean| * rstd beyond which a row is far. The mean's own rounding, half a unit in its last place, moves xhat by 2^-24 of this.
const FAR: f32 = 2;
// rstd below which a row is huge: 2^-120. Above it, x - mean is finite in rows of up to 2^16 columns.
const HUGE: f32 = 7.52316384526264e-37;
// Rows whose dweight and dbias are summed in float32.
const PART: usize = 64;
// Sums along a row run in float32 over this many columns, 16 additions to a lane, and in double from there on: see moments.ts.
// Nothing is subtracted from them that could magnify their error, so the block may be longer here.
const BLOCK: usize = 256;

/** The bytes of workspace that `layerNormBackward` needs to add the parts in double; 0 where there is but one. */
export function layerNormBackwardWorkspace(rows: usize, cols: usize): usize {
  // For dweight and for dbias: a total in double and the sum of a part in float32.
  return rows > PART ? cols * 24 : 0;
}

export function layerNormBackward(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  rows: usize,
  cols: usize,
  workspace: usize, // as layerNormBackwardWorkspace says, or 0: sum the rows in float32 throughout
): void {
  if (!workspace || rows <= PART || !(dweight | dbias)) {
    backwardRows(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols);
    return;
  }
  // The workspace: the totals of dweight and dbias in double, then the sums of a part in float32.
  const stride = cols << 2;
  const totals = workspace;
  const part = workspace + (stride << 2);
  memory.fill(totals, 0, stride << 2);

  // PART rows per step
  for (let start: usize = 0; start < rows; start += PART) {
    const at = start * stride;
    memory.fill(part, 0, stride << 1);
    backwardRows(
      dx && dx + at,
      dweight && part,
      dbias && part + stride,
      dy + at,
      x + at,
      mean + (start << 2),
      rstd + (start << 2),
      weight,
      min(rows - start, PART),
      cols,
    );
    addPart(totals, part, cols << 1);
  }
  if (dweight) addTotal(dweight, totals, cols);
  if (dbias) addTotal(dbias, totals + (stride << 1), cols);
}

/** All rows one after the other. */
function backwardRows(
  dx: usize, // [rows, cols] or 0
  dweight: usize, // [cols] or 0
  dbias: usize, // [cols] or 0
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols] or 0
  rows: usize,
  cols: usize,
): void {
  const stride = cols << 2;
  const inverse = 1 / f64(cols);

  // 1 per step
  for (let row: usize = 0; row < rows; row++) {
    const m = load<f32>(mean);
    const r = load<f32>(rstd);
    if (r < HUGE) {
      exactRow(dx, dweight, dbias, dy, x, weight, cols, r);
    } else if (abs(m) * r > FAR) {
      const delta = f32(f64x2.extract_lane(shiftedMoments(x, cols, m, inverse), 0));
      backwardRow<Present>(dx, dweight, dbias, dy, x, weight, cols, inverse, m, delta, r);
    } else {
      backwardRow<Absent>(dx, dweight, dbias, dy, x, weight, cols, inverse, m, 0, r);
    }
    if (dx) dx += stride;
    dy += stride;
    x += stride;
    mean += 4;
    rstd += 4;
  }
}

/** Both passes over one row. */
function backwardRow<Shift>(
  dx: usize, // [cols] or 0
  dweight: usize, // [cols] or 0
  dbias: usize, // [cols] or 0
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  m: f32,
  delta: f32,
  r: f32,
): void {
  const fused = weight && dweight && dbias;
  if (!fused) {
    if (dweight) addDweight<Shift>(dweight, dy, x, cols, m, delta, r);
    if (dbias) addRow(dbias, dy, cols);
    if (!dx) return;
  }
  let total = f64x2.splat(0);

  // a block per step
  for (let start: usize = 0; start < cols; start += BLOCK) {
    const o = start << 2;
    const count = min(cols - start, BLOCK);
    let block: v128;
    if (fused) {
      block = sums<Present, Present, Shift>(dweight + o, dbias + o, dy + o, x + o, weight + o, count, m, delta, r);
    } else if (weight) {
      block = sums<Present, Absent, Shift>(0, 0, dy + o, x + o, weight + o, count, m, delta, r);
    } else {
      block = sums<Absent, Absent, Shift>(0, 0, dy + o, x + o, 0, count, m, delta, r);
    }
    total = f64x2.add(total, block);
  }
  if (!dx) return;
  const a = f32(f64x2.extract_lane(total, 0) * inverse);
  const c = f32(f64x2.extract_lane(total, 1) * inverse * f64(r));
  if (weight) write<Present, Shift>(dx, dy, x, weight, cols, m, delta, r, a, c);
  else write<Absent, Shift>(dx, dy, x, weight, cols, m, delta, r, a, c);
}

/** The first pass over a block of a row: [sum of g, sum of g * xhat], and with `Gradients` the row's part of dweight and dbias. */
function sums<Weight, Gradients, Shift>(
  dweight: usize, // [count]
  dbias: usize, // [count]
  dy: usize, // [count]
  x: usize, // [count]
  weight: usize, // [count]
  count: usize,
  m: f32,
  delta: f32,
  r: f32,
): v128 {
  const mv = f32x4.splat(m);
  const ev = f32x4.splat(delta);
  const rv = f32x4.splat(r);
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let q0 = s0;
  let q1 = s0;
  const end16 = (count & ~15) << 2;
  const end4 = (count & ~3) << 2;
  const end = count << 2;
  let i: usize = 0;

  // 16 per step
  for (; i < end16; i += 64) {
    let g0 = v128.load(dy + i);
    let p0 = f32x4.mul(g0, f32x4.mul(centered<Shift>(v128.load(x + i), mv, ev), rv));
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i, p0);
      accumulate(dbias + i, g0);
    }
    if (!isVoid<Weight>()) {
      const w = v128.load(weight + i);
      g0 = f32x4.mul(g0, w);
      p0 = f32x4.mul(p0, w);
    }
    let g1 = v128.load(dy + i, 16);
    let p1 = f32x4.mul(g1, f32x4.mul(centered<Shift>(v128.load(x + i, 16), mv, ev), rv));
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 16, p1);
      accumulate(dbias + i + 16, g1);
    }
    if (!isVoid<Weight>()) {
      const w = v128.load(weight + i, 16);
      g1 = f32x4.mul(g1, w);
      p1 = f32x4.mul(p1, w);
    }
    s0 = f32x4.add(s0, f32x4.add(g0, g1));
    q0 = f32x4.add(q0, f32x4.add(p0, p1));
    let g2 = v128.load(dy + i, 32);
    let p2 = f32x4.mul(g2, f32x4.mul(centered<Shift>(v128.load(x + i, 32), mv, ev), rv));
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 32, p2);
      accumulate(dbias + i + 32, g2);
    }
    if (!isVoid<Weight>()) {
      const w = v128.load(weight + i, 32);
      g2 = f32x4.mul(g2, w);
      p2 = f32x4.mul(p2, w);
    }
    let g3 = v128.load(dy + i, 48);
    let p3 = f32x4.mul(g3, f32x4.mul(centered<Shift>(v128.load(x + i, 48), mv, ev), rv));
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 48, p3);
      accumulate(dbias + i + 48, g3);
    }
    if (!isVoid<Weight>()) {
      const w = v128.load(weight + i, 48);
      g3 = f32x4.mul(g3, w);
      p3 = f32x4.mul(p3, w);
    }
    s1 = f32x4.add(s1, f32x4.add(g2, g3));
    q1 = f32x4.add(q1, f32x4.add(p2, p3));
  }

  // tail, 4 per step
  for (; i < end4; i += 16) {
    const d = v128.load(dy + i);
    const t = f32x4.mul(d, f32x4.mul(centered<Shift>(v128.load(x + i), mv, ev), rv));
    const w = isVoid<Weight>() ? f32x4.splat(1) : v128.load(weight + i);
    s0 = f32x4.add(s0, f32x4.mul(d, w));
    q0 = f32x4.add(q0, f32x4.mul(t, w));
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i, t);
      accumulate(dbias + i, d);
    }
  }
  let total = sumPair(f32x4.add(s0, s1), f32x4.add(q0, q1));

  // tail, 1 per step
  for (; i < end; i += 4) {
    const d = load<f32>(dy + i);
    const t = d * (centeredOne<Shift>(load<f32>(x + i), m, delta) * r);
    const w = isVoid<Weight>() ? <f32>1 : load<f32>(weight + i);
    total = f64x2.add(total, pair(f64(d * w), f64(t * w)));
    if (!isVoid<Gradients>()) {
      accumulateOne(dweight + i, t);
      accumulateOne(dbias + i, d);
    }
  }
  return total;
}

/** rstd * ((g - a) - (x - mean) * c), 4 lanes. */
function lanes<Weight, Shift>(dy: v128, x: v128, weight: usize, m: v128, delta: v128, r: v128, a: v128, c: v128): v128 {
  if (!isVoid<Weight>()) dy = f32x4.mul(dy, v128.load(weight));
  return f32x4.mul(r, f32x4.sub(f32x4.sub(dy, a), f32x4.mul(centered<Shift>(x, m, delta), c)));
}

/** The second pass: dx, with a = mean(g) and c = rstd * mean(g * xhat). */
function write<Weight, Shift>(
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
