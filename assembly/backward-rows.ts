// The rows of backward, one after the other, or two by two where they are wide.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat))
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// A row is read twice: for its two sums and for dweight and dbias, then for dx; where only one of dweight and dbias is
// wanted, or there is no weight, each takes a pass of its own.
//
// One float doesn't hold the mean of a row far from zero. There, and there alone, a pass more finds what the rounding left
// behind, delta = mean(x - mean), and xhat is ((x - mean) - delta) * rstd. A row so large that rstd or x - mean leave the
// range of a normal float is computed in double.

import { writeDx } from "./dx";
import { Absent, Present, pair, sumPair } from "./f32x4";
import { accumulate, accumulateOne, addDweight, addRow, BLOCK, centered, centeredOne, exactRow } from "./gradients";
import { shiftedMoments } from "./moments";
import { backwardPair } from "./wide";

// |mean| * rstd beyond which a row is far. The mean's own rounding, half a unit in its last place, moves xhat by 2^-24 of this.
const FAR: f32 = 2;
// rstd below which a row is huge: 2^-120. Above it, x - mean is finite in rows of up to 2^16 columns.
const HUGE: f32 = 7.52316384526264e-37;
// Columns from which two rows at a time win: their weight, dweight and dbias alone fill a first-level cache. Fewer, and two rows
// lie so close that the hardware no longer sees one stream to follow: then it takes twice the time.
const WIDE: usize = 2560;

/** dx =, dweight +=, dbias += of some rows, summed in float32. */
export function backwardRows(
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
  const wide = cols >= WIDE && !(cols & 15) && weight && dweight && dbias;

  // 2 or 1 per step
  for (let row: usize = 0; row < rows; row++) {
    const m = load<f32>(mean);
    const r = load<f32>(rstd);
    if (wide && rows - row >= 2 && near(m, r) && near(load<f32>(mean, 4), load<f32>(rstd, 4))) {
      backwardPair(dx, dweight, dbias, dy, x, mean, rstd, weight, cols);
      if (dx) dx += stride << 1;
      dy += stride << 1;
      x += stride << 1;
      mean += 8;
      rstd += 8;
      row++;
      continue;
    }
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

/** Whether a row is neither huge nor far. */
function near(m: f32, r: f32): bool {
  return r >= HUGE && abs(m) * r <= FAR;
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
  if (weight) writeDx<Present, Shift>(dx, dy, x, weight, cols, m, delta, r, a, c);
  else writeDx<Absent, Shift>(dx, dy, x, weight, cols, m, delta, r, a, c);
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
    const w0 = isVoid<Weight>() ? g0 : v128.load(weight + i);
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i, p0);
      accumulate(dbias + i, g0);
    }
    if (!isVoid<Weight>()) {
      g0 = f32x4.mul(g0, w0);
      p0 = f32x4.mul(p0, w0);
    }
    let g1 = v128.load(dy + i, 16);
    let p1 = f32x4.mul(g1, f32x4.mul(centered<Shift>(v128.load(x + i, 16), mv, ev), rv));
    const w1 = isVoid<Weight>() ? g1 : v128.load(weight + i, 16);
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 16, p1);
      accumulate(dbias + i + 16, g1);
    }
    if (!isVoid<Weight>()) {
      g1 = f32x4.mul(g1, w1);
      p1 = f32x4.mul(p1, w1);
    }
    s0 = f32x4.add(s0, f32x4.add(g0, g1));
    q0 = f32x4.add(q0, f32x4.add(p0, p1));
    let g2 = v128.load(dy + i, 32);
    let p2 = f32x4.mul(g2, f32x4.mul(centered<Shift>(v128.load(x + i, 32), mv, ev), rv));
    const w2 = isVoid<Weight>() ? g2 : v128.load(weight + i, 32);
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 32, p2);
      accumulate(dbias + i + 32, g2);
    }
    if (!isVoid<Weight>()) {
      g2 = f32x4.mul(g2, w2);
      p2 = f32x4.mul(p2, w2);
    }
    let g3 = v128.load(dy + i, 48);
    let p3 = f32x4.mul(g3, f32x4.mul(centered<Shift>(v128.load(x + i, 48), mv, ev), rv));
    const w3 = isVoid<Weight>() ? g3 : v128.load(weight + i, 48);
    if (!isVoid<Gradients>()) {
      accumulate(dweight + i + 48, p3);
      accumulate(dbias + i + 48, g3);
    }
    if (!isVoid<Weight>()) {
      g3 = f32x4.mul(g3, w3);
      p3 = f32x4.mul(p3, w3);
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
