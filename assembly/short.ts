// Forward, four short rows at a time, to the same bits as one by one: what a row costs beside its elements, the moments' last
// steps and above all the wait for a root and a division, is then paid for all four at once.

import { Absent } from "./f32x4";
import { soundPair, sums } from "./moments";
import { normalize } from "./normalize";

/** Normalizes four rows of one block each; false where one of them is not near zero, and nothing is written then. */
export function fourRows(
  y: usize, // [4, cols]
  mean: usize, // [4], or 0: not wanted
  rstd: usize, // [4], or 0: not wanted
  x: usize, // [4, cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  eps: f64,
): bool {
  const stride = cols << 2;
  const a = inline.always(sums<Absent>(x, cols, 0));
  const b = inline.always(sums<Absent>(x + stride, cols, 0));
  const c = inline.always(sums<Absent>(x + stride * 2, cols, 0));
  const d = inline.always(sums<Absent>(x + stride * 3, cols, 0));

  // two rows to a vector: means, their squares, variances, rstd
  const inverse = f64x2.splat(1 / f64(cols));
  const mab = f64x2.mul(v128.shuffle<f64>(a, b, 0, 2), inverse);
  const mcd = f64x2.mul(v128.shuffle<f64>(c, d, 0, 2), inverse);
  const sab = f64x2.mul(mab, mab);
  const scd = f64x2.mul(mcd, mcd);
  const vab = f64x2.sub(f64x2.mul(v128.shuffle<f64>(a, b, 1, 3), inverse), sab);
  const vcd = f64x2.sub(f64x2.mul(v128.shuffle<f64>(c, d, 1, 3), inverse), scd);
  if (!i64x2.all_true(v128.and(soundPair(sab, vab), soundPair(scd, vcd)))) return false;
  const one = f64x2.splat(1);
  const ev = f64x2.splat(eps);
  const rab = f64x2.div(one, f64x2.sqrt(f64x2.add(vab, ev)));
  const rcd = f64x2.div(one, f64x2.sqrt(f64x2.add(vcd, ev)));

  // four rows to a vector
  let m = v128.shuffle<f64>(f32x4.demote_f64x2_zero(mab), f32x4.demote_f64x2_zero(mcd), 0, 2);
  let r = v128.shuffle<f64>(f32x4.demote_f64x2_zero(rab), f32x4.demote_f64x2_zero(rcd), 0, 2);
  if (mean) v128.store(mean, m);
  if (rstd) v128.store(rstd, r);

  // 1 per step, whose numbers have been turned to the first lane
  for (const end = x + stride * 4; x !== end; x += stride) {
    inline.always(normalize<Absent>(y, x, weight, bias, cols, 0, f32x4.extract_lane(m, 0), f32x4.extract_lane(r, 0)));
    m = v128.shuffle<f32>(m, m, 1, 2, 3, 0);
    r = v128.shuffle<f32>(r, r, 1, 2, 3, 0);
    y += stride;
  }
  return true;
}
