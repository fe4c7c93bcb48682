// Forward, four short rows at a time, with the same bits as one by one. Beside its elements a row costs the last
// steps of the moments, and above all the wait for a root and a division. Four rows pay for these once.

import { Absent } from "./lanes";
import { accuratePair, largestRatio, rowSums } from "./moments";
import { normalize, normalizeAffine } from "./normalize";

/** Normalizes four rows of one block each. False where moments about zero are not accurate: then nothing is written. */
export function fourRows<Mean>(
  y: usize, // [4, cols]
  mean: usize, // [4] or 0
  rstd: usize, // [4] or 0
  x: usize, // [4, cols]
  weight: usize, // [cols] or 0
  bias: usize, // [cols] or 0
  cols: usize,
  inverse: f64, // 1 / cols
  eps: f64,
): bool {
  const stride = cols << 2;
  const end = stride << 2;
  const a = inline.always(rowSums<Absent, Mean, Absent, Absent>(0, x, 0, cols, 0));
  const b = inline.always(rowSums<Absent, Mean, Absent, Absent>(0, x + stride, 0, cols, 0));
  const c = inline.always(rowSums<Absent, Mean, Absent, Absent>(0, x + stride * 2, 0, cols, 0));
  const d = inline.always(rowSums<Absent, Mean, Absent, Absent>(0, x + stride * 3, 0, cols, 0));

  // two rows to a vector: means, their squares, variances, rstd
  const iv = f64x2.splat(inverse);
  const mab = f64x2.mul(v128.shuffle<f64>(a, b, 0, 2), iv);
  const mcd = f64x2.mul(v128.shuffle<f64>(c, d, 0, 2), iv);
  const sab = f64x2.mul(mab, mab);
  const scd = f64x2.mul(mcd, mcd);
  const vab = f64x2.sub(f64x2.mul(v128.shuffle<f64>(a, b, 1, 3), iv), sab);
  const vcd = f64x2.sub(f64x2.mul(v128.shuffle<f64>(c, d, 1, 3), iv), scd);
  const ratio = largestRatio(inverse);
  if (!i64x2.all_true(v128.and(accuratePair(sab, vab, ratio), accuratePair(scd, vcd, ratio)))) return false;
  const one = f64x2.splat(1);
  const ev = f64x2.splat(eps);
  const rab = f64x2.div(one, f64x2.sqrt(f64x2.add(vab, ev)));
  const rcd = f64x2.div(one, f64x2.sqrt(f64x2.add(vcd, ev)));

  // four rows to a vector
  let m = v128.shuffle<f64>(f32x4.demote_f64x2_zero(mab), f32x4.demote_f64x2_zero(mcd), 0, 2);
  let r = v128.shuffle<f64>(f32x4.demote_f64x2_zero(rab), f32x4.demote_f64x2_zero(rcd), 0, 2);
  if (!isVoid<Mean>() && mean) v128.store(mean, m);
  if (rstd) v128.store(rstd, r);

  // 1 per step, whose numbers have been turned to the first lane
  if (weight && (isVoid<Mean>() || bias)) {
    for (let i: usize = 0; i < end; i += stride) {
      const delta = f32x4.extract_lane(m, 0);
      inline.always(normalizeAffine<Mean>(y + i, x + i, weight, bias, cols, delta, f32x4.extract_lane(r, 0)));
      m = v128.shuffle<f32>(m, m, 1, 2, 3, 0);
      r = v128.shuffle<f32>(r, r, 1, 2, 3, 0);
    }
  } else {
    for (let i: usize = 0; i < end; i += stride) {
      normalize(y + i, x + i, weight, bias, cols, 0, f32x4.extract_lane(m, 0), f32x4.extract_lane(r, 0));
      m = v128.shuffle<f32>(m, m, 1, 2, 3, 0);
      r = v128.shuffle<f32>(r, r, 1, 2, 3, 0);
    }
  }
  return true;
}
