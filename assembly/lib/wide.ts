// Backward of two wide rows at a time, with the same bits as one after the other. In wide rows the first-level cache
// does not hold weight, dweight and dbias from row to row. Here they are read, and the latter two written, half as
// often.

import { BLOCK, blockSums, centered, finish } from "./ordinary";

/** Both passes over two rows that have all operands. Returns which of them, 1 + 2, still need their dx in double. */
export function twoRows<Mean>(
  dx: usize, // [2, cols] or 0
  sums: usize, // [2, cols]: += what the rows add to dweight, and to dbias
  dy: usize, // [2, cols]
  x: usize, // [2, cols]
  weight: usize, // [cols]
  add: usize, // [2, cols] or 0
  cols: usize, // a multiple of 16
  ma: f32,
  mb: f32,
  ra: f32,
  rb: f32,
  inverse: f64, // 1 / cols
): i32 {
  const stride = cols << 2;
  const biases = sums + stride;
  const mav = f32x4.splat(ma);
  const mbv = f32x4.splat(mb);
  const rav = f32x4.splat(ra);
  const rbv = f32x4.splat(rb);
  let totalA = f64x2.splat(0);
  let totalB = totalA;
  let largestA = f32x4.splat(0);
  let largestB = f32x4.splat(0);
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
      let da = centered<Mean>(v128.load(x + i), mav);
      let db = centered<Mean>(v128.load(x + stride + i), mbv);
      let w = v128.load(weight + i);
      accumulateTwo(sums + i, f32x4.mul(ga, f32x4.mul(da, rav)), f32x4.mul(gb, f32x4.mul(db, rbv)));
      if (!isVoid<Mean>()) accumulateTwo(biases + i, ga, gb);
      const ga0 = f32x4.mul(ga, w);
      const pa0 = f32x4.mul(ga0, da);
      const gb0 = f32x4.mul(gb, w);
      const pb0 = f32x4.mul(gb0, db);
      ga = v128.load(dy + i, 16);
      gb = v128.load(dy + stride + i, 16);
      da = centered<Mean>(v128.load(x + i, 16), mav);
      db = centered<Mean>(v128.load(x + stride + i, 16), mbv);
      w = v128.load(weight + i, 16);
      accumulateTwo(sums + i + 16, f32x4.mul(ga, f32x4.mul(da, rav)), f32x4.mul(gb, f32x4.mul(db, rbv)));
      if (!isVoid<Mean>()) accumulateTwo(biases + i + 16, ga, gb);
      ga = f32x4.mul(ga, w);
      gb = f32x4.mul(gb, w);
      const sa = f32x4.add(sa0, f32x4.add(ga0, ga));
      const qa = f32x4.add(qa0, f32x4.add(pa0, f32x4.mul(ga, da)));
      const sb = f32x4.add(sb0, f32x4.add(gb0, gb));
      const qb = f32x4.add(qb0, f32x4.add(pb0, f32x4.mul(gb, db)));
      sa0 = sa1;
      qa0 = qa1;
      sb0 = sb1;
      qb0 = qb1;
      sa1 = sa;
      qa1 = qa;
      sb1 = sb;
      qb1 = qb;
    }
    const blockA = blockSums(f32x4.add(sa0, sa1), f32x4.add(qa0, qa1));
    const blockB = blockSums(f32x4.add(sb0, sb1), f32x4.add(qb0, qb1));
    totalA = f64x2.add(totalA, f64x2.promote_low_f32x4(blockA));
    totalB = f64x2.add(totalB, f64x2.promote_low_f32x4(blockB));
    largestA = f32x4.pmax(largestA, blockA);
    largestB = f32x4.pmax(largestB, blockB);
  }
  if (!dx) return 0;
  const a = finish<Mean>(dx, dy, x, weight, add, cols, ma, 0, ra, inverse, totalA, f32x4.extract_lane(largestA, 2));
  const b = finish<Mean>(
    dx + stride,
    dy + stride,
    x + stride,
    weight,
    add && add + stride,
    cols,
    mb,
    0,
    rb,
    inverse,
    totalB,
    f32x4.extract_lane(largestB, 2),
  );
  return (a ? 0 : 1) | (b ? 0 : 2);
}

/** Adds `v`, then `w`, to the 4 floats at `pointer`. */
function accumulateTwo(pointer: usize, v: v128, w: v128): void {
  v128.store(pointer, f32x4.add(f32x4.add(v128.load(pointer), v), w));
}
