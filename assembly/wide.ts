// Backward of two wide rows at a time, to the same bits as one after the other: weight, dweight and dbias, which no longer stay in
// the first-level cache from row to row, are then read, and the latter two written, half as often.

import { writeDx } from "./dx";
import { Absent, Present, sumPair } from "./f32x4";
import { BLOCK } from "./gradients";

/** Both passes over two rows that are near, with all three gradients. */
export function backwardPair(
  dx: usize, // [2, cols] or 0
  dweight: usize, // [cols]
  dbias: usize, // [cols]
  dy: usize, // [2, cols]
  x: usize, // [2, cols]
  mean: usize, // [2]
  rstd: usize, // [2]
  weight: usize, // [cols]
  cols: usize, // a multiple of 16
): void {
  const stride = cols << 2;
  const ma = load<f32>(mean);
  const mb = load<f32>(mean, 4);
  const ra = load<f32>(rstd);
  const rb = load<f32>(rstd, 4);
  const mav = f32x4.splat(ma);
  const mbv = f32x4.splat(mb);
  const rav = f32x4.splat(ra);
  const rbv = f32x4.splat(rb);
  let totalA = f64x2.splat(0);
  let totalB = totalA;
  let i: usize = 0;

  // a block per step
  while (i < stride) {
    const end = min(i + (BLOCK << 2), stride);
    let sa0 = f32x4.splat(0);
    let sa1 = sa0;
    let qa0 = sa0;
    let qa1 = sa0;
    let sb0 = sa0;
    let sb1 = sa0;
    let qb0 = sa0;
    let qb1 = sa0;

    // 8 per step, whose sums go to the two accumulators in turn
    for (; i < end; i += 32) {
      let ga = v128.load(dy + i);
      let gb = v128.load(dy + stride + i);
      let pa = f32x4.mul(ga, f32x4.mul(f32x4.sub(v128.load(x + i), mav), rav));
      let pb = f32x4.mul(gb, f32x4.mul(f32x4.sub(v128.load(x + stride + i), mbv), rbv));
      let w = v128.load(weight + i);
      accumulateTwo(dweight + i, pa, pb);
      accumulateTwo(dbias + i, ga, gb);
      const ga0 = f32x4.mul(ga, w);
      const pa0 = f32x4.mul(pa, w);
      const gb0 = f32x4.mul(gb, w);
      const pb0 = f32x4.mul(pb, w);
      ga = v128.load(dy + i, 16);
      gb = v128.load(dy + stride + i, 16);
      pa = f32x4.mul(ga, f32x4.mul(f32x4.sub(v128.load(x + i, 16), mav), rav));
      pb = f32x4.mul(gb, f32x4.mul(f32x4.sub(v128.load(x + stride + i, 16), mbv), rbv));
      w = v128.load(weight + i, 16);
      accumulateTwo(dweight + i + 16, pa, pb);
      accumulateTwo(dbias + i + 16, ga, gb);
      const sa = f32x4.add(sa0, f32x4.add(ga0, f32x4.mul(ga, w)));
      const qa = f32x4.add(qa0, f32x4.add(pa0, f32x4.mul(pa, w)));
      const sb = f32x4.add(sb0, f32x4.add(gb0, f32x4.mul(gb, w)));
      const qb = f32x4.add(qb0, f32x4.add(pb0, f32x4.mul(pb, w)));
      sa0 = sa1;
      qa0 = qa1;
      sb0 = sb1;
      qb0 = qb1;
      sa1 = sa;
      qa1 = qa;
      sb1 = sb;
      qb1 = qb;
    }
    totalA = f64x2.add(totalA, sumPair(f32x4.add(sa0, sa1), f32x4.add(qa0, qa1)));
    totalB = f64x2.add(totalB, sumPair(f32x4.add(sb0, sb1), f32x4.add(qb0, qb1)));
  }
  if (!dx) return;
  finish(dx, dy, x, weight, cols, ma, ra, totalA);
  finish(dx + stride, dy + stride, x + stride, weight, cols, mb, rb, totalB);
}

/** Adds `v`, then `w`, to the 4 floats at `pointer`. */
function accumulateTwo(pointer: usize, v: v128, w: v128): void {
  v128.store(pointer, f32x4.add(f32x4.add(v128.load(pointer), v), w));
}

/** dx of one row from the totals of its first pass. */
function finish(dx: usize, dy: usize, x: usize, weight: usize, cols: usize, m: f32, r: f32, total: v128): void {
  const inverse = 1 / f64(cols);
  const a = f32(f64x2.extract_lane(total, 0) * inverse);
  const c = f32(f64x2.extract_lane(total, 1) * inverse * f64(r));
  writeDx<Present, Absent>(dx, dy, x, weight, cols, m, 0, r, a, c);
}
