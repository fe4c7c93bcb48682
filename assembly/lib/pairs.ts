// Backward of two rows at a time. It loads weight, and loads and stores the sums, half as often as one row after the
// other does. dx has the same bits. What two rows add to a sum is added up first, which rounds less.

import { sumHalves, sumLanes } from "./lanes";
import { blockOf, centered, finish, most } from "./ordinary";

/**
 * Both passes over two rows with a weight and sums. Returns which of them, 1 + 2, still need their dx in double. With
 * `Before`, what they add to the sums is added to what is in `sums`; without it, that is overwritten.
 */
export function twoRows<Mean, Before>(
  dx: usize, // [cols] or 0: of the first row
  sums: usize, // [2, cols]: what the rows add to dweight, and to dbias
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols]
  add: usize, // [cols] or 0
  cols: usize, // a multiple of 8
  apart: usize, // bytes from the first row to the second
  ma: f32,
  mb: f32,
  ra: f32,
  rb: f32,
  inverse: f64, // 1 / cols
): i32 {
  const dyb = dy + apart;
  const xb = x + apart;
  const end = cols << 2;
  const biases = sums + end;
  const block = blockOf(cols) << 2;
  const mav = f32x4.splat(ma);
  const mbv = f32x4.splat(mb);
  const rav = f32x4.splat(ra);
  const rbv = f32x4.splat(rb);
  let sa = f64x2.splat(0);
  let qa = sa;
  let sb = sa;
  let qb = sa;
  let largestA = f32x4.splat(0);
  let largestB = largestA;
  let i: usize = 0;

  // a block per step
  while (i < end) {
    const stop = min(i + block, end);
    let sa0 = f32x4.splat(0);
    let qa0 = sa0;
    let sb0 = sa0;
    let qb0 = sa0;

    // 8 per step
    for (; i < stop; i += 32) {
      let ga = v128.load(dy + i);
      let gb = v128.load(dyb + i);
      let da = centered<Mean>(v128.load(x + i), mav);
      let db = centered<Mean>(v128.load(xb + i), mbv);
      let w = v128.load(weight + i);
      accumulateTwo<Before>(sums + i, f32x4.mul(ga, f32x4.mul(da, rav)), f32x4.mul(gb, f32x4.mul(db, rbv)));
      if (!isVoid<Mean>()) accumulateTwo<Before>(biases + i, ga, gb);
      const ga0 = f32x4.mul(ga, w);
      const gb0 = f32x4.mul(gb, w);
      const pa0 = f32x4.mul(ga0, da);
      const pb0 = f32x4.mul(gb0, db);
      ga = v128.load(dy + i, 16);
      gb = v128.load(dyb + i, 16);
      da = centered<Mean>(v128.load(x + i, 16), mav);
      db = centered<Mean>(v128.load(xb + i, 16), mbv);
      w = v128.load(weight + i, 16);
      accumulateTwo<Before>(sums + i + 16, f32x4.mul(ga, f32x4.mul(da, rav)), f32x4.mul(gb, f32x4.mul(db, rbv)));
      if (!isVoid<Mean>()) accumulateTwo<Before>(biases + i + 16, ga, gb);
      ga = f32x4.mul(ga, w);
      gb = f32x4.mul(gb, w);
      sa0 = f32x4.add(sa0, f32x4.add(ga0, ga));
      sb0 = f32x4.add(sb0, f32x4.add(gb0, gb));
      qa0 = f32x4.add(qa0, f32x4.add(pa0, f32x4.mul(ga, da)));
      qb0 = f32x4.add(qb0, f32x4.add(pb0, f32x4.mul(gb, db)));
    }
    sa = f64x2.add(sa, sumHalves(sa0));
    sb = f64x2.add(sb, sumHalves(sb0));
    qa = f64x2.add(qa, sumHalves(qa0));
    qb = f64x2.add(qb, sumHalves(qb0));
    largestA = f32x4.pmax(largestA, f32x4.abs(qa0));
    largestB = f32x4.pmax(largestB, f32x4.abs(qb0));
  }
  if (!dx) return 0;
  const a = finish<Mean>(dx, dy, x, weight, add, cols, ma, 0, ra, inverse, sumLanes(sa, qa), most(largestA));
  const dxb = dx + apart;
  const addb = add && add + apart;
  const b = finish<Mean>(dxb, dyb, xb, weight, addb, cols, mb, 0, rb, inverse, sumLanes(sb, qb), most(largestB));
  return (a ? 0 : 1) | (b ? 0 : 2);
}

/** Adds `v + w` to the 4 floats at `pointer`, or stores it there. */
function accumulateTwo<Before>(pointer: usize, v: v128, w: v128): void {
  const sum = f32x4.add(v, w);
  v128.store(pointer, isVoid<Before>() ? sum : f32x4.add(v128.load(pointer), sum));
}
