// Forward, four short rows at a time, with the same bits as one by one. A short row takes much of its time for the root
// and the division at the end of its moments. Four rows wait for these once.

import { Absent } from "./lanes";
import { accuratePair, rowSums } from "./moments";
import { normalize, normalizeAffine, normalizeFour } from "./normalize";
import { finishRow } from "./row";

/** The most columns of a short row, for speed: four of them have 4 KiB, a page of memory. */
export const SHORT: usize = 256;
// Up to so many columns, the second pass goes over four rows side by side. This is for speed alone. Out of the caches,
// wider rows would take twice as long this way.
const SIDE_BY_SIDE: usize = 64;

/** y, mean and rstd of four rows. */
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
): void {
  const stride = cols << 2;
  const end = stride << 2;
  let a = f64x2.splat(0);
  let b = a;
  let c = a;
  let d = a;

  // 1 per step, so that a to d are the sums of the four rows
  for (let i: usize = 0; i < end; i += stride) {
    a = b;
    b = c;
    c = d;
    d = inline.always(rowSums<Mean, Absent>(x + i, 0, 0, cols, 0, false));
  }

  // two rows to a vector: means, their squares, variances, rstd
  const iv = f64x2.splat(inverse);
  const ev = f64x2.splat(eps);
  const mab = f64x2.mul(v128.shuffle<f64>(a, b, 0, 2), iv);
  const mcd = f64x2.mul(v128.shuffle<f64>(c, d, 0, 2), iv);
  const sab = f64x2.mul(mab, mab);
  const scd = f64x2.mul(mcd, mcd);
  const vab = f64x2.sub(f64x2.mul(v128.shuffle<f64>(a, b, 1, 3), iv), sab);
  const vcd = f64x2.sub(f64x2.mul(v128.shuffle<f64>(c, d, 1, 3), iv), scd);
  if (!i64x2.all_true(v128.and(accuratePair(sab, vab, ev), accuratePair(scd, vcd, ev)))) {
    for (let i: usize = 0; i < end; i += stride) {
      finishRow(y + i, mean, rstd, x + i, weight, bias, cols, inverse, eps, 0, a, false, !isVoid<Mean>());
      mean += mean && 4;
      rstd += rstd && 4;
      a = b;
      b = c;
      c = d;
    }
    return;
  }
  const one = f64x2.splat(1);
  const rab = f64x2.div(one, f64x2.sqrt(f64x2.add(vab, ev)));
  const rcd = f64x2.div(one, f64x2.sqrt(f64x2.add(vcd, ev)));

  // four rows to a vector
  let m = v128.shuffle<f64>(f32x4.demote_f64x2_zero(mab), f32x4.demote_f64x2_zero(mcd), 0, 2);
  let r = v128.shuffle<f64>(f32x4.demote_f64x2_zero(rab), f32x4.demote_f64x2_zero(rcd), 0, 2);
  if (!isVoid<Mean>() && mean) v128.store(mean, m);
  if (rstd) v128.store(rstd, r);

  if (!isVoid<Mean>() && weight && bias && cols <= SIDE_BY_SIDE && !(cols & 7)) {
    normalizeFour(y, x, weight, bias, cols, m, r);
    return;
  }

  // 1 per step, whose numbers have been turned to the first lane
  for (let i: usize = 0; i < end; i += stride) {
    const delta = f32x4.extract_lane(m, 0);
    const scale = f32x4.extract_lane(r, 0);
    if (weight && (isVoid<Mean>() || bias)) {
      normalizeAffine<Mean>(y + i, x + i, weight, bias, cols, delta, scale);
    } else normalize(y + i, x + i, weight, bias, cols, 0, delta, scale);
    m = v128.shuffle<f32>(m, m, 1, 2, 3, 0);
    r = v128.shuffle<f32>(r, r, 1, 2, 3, 0);
  }
}
