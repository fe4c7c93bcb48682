// The rows of backward, for both norms: `Mean` is Absent for RMSNorm, whose loops are compiled without one.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// An ordinary row is computed in float32. Any other row is computed in double, which takes about three times as long.

import { exactRow } from "./exact";
import { Absent, Far, Present } from "./lanes";
import { FAR, LONG, NEAR, ordinary, ordinaryRow } from "./ordinary";
import { twoRows } from "./pairs";
import { addPart, addTo, addTotals, GROUP, GROUPS, SLOT, sumsChunk } from "./sums";

/** One row: dx, and what it adds to a group, or to the totals where it is computed in double. */
function oneRow<Mean>(
  dx: usize, // [cols] or 0
  totals: usize, // [2, cols], double; not written to without `group`
  group: usize, // [cols] or 0: of dweight
  biases: usize, // [cols]: of dbias; not written to without `group`, nor without a mean
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  m: f32,
  r: f32,
  inverse: f64, // 1 / cols
  eps: f64,
): void {
  let done: bool;
  if (ordinary<Mean>(dy, x, cols, m, r, NEAR)) {
    done =
      weight && group
        ? ordinaryRow<Mean, Present>(dx, group, biases, dy, x, weight, add, cols, m, r, inverse)
        : ordinaryRow<Mean, Absent>(dx, group, biases, dy, x, weight, add, cols, m, r, inverse);
  } else if (!isVoid<Mean>() && ordinary<Mean>(dy, x, cols, m, r, FAR)) {
    done = ordinaryRow<Far, Absent>(dx, group, biases, dy, x, weight, add, cols, m, r, inverse);
  } else {
    exactRow<Mean>(dx, group && totals, dy, x, weight, add, cols, r, eps);
    return;
  }
  if (!done) exactRow<Mean>(dx, 0, dy, x, weight, add, cols, r, eps);
}

/**
 * Some rows of a call: dx, and the sums, which stay in the workspace. Each chunk of rows has a slot there. With
 * `whole`, these are all rows: all chunks but the first use one slot in turn, and in the end the sums are added to
 * dweight and dbias.
 */
export function backwardRows<Mean>(
  dx: usize, // [rows, cols] or 0
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]; not read without a mean
  rstd: usize, // [rows]
  weight: usize, // [cols] or 0
  add: usize, // [rows, cols] or 0
  rows: usize,
  cols: usize,
  workspace: usize,
  eps: f64,
  start: usize, // the first of these rows
  total: usize, // the rows of the call
  whole: bool,
): void {
  assert(((dx | dweight | dbias | dy | x | mean | rstd | weight | add) & 3) === 0, "a pointer is not a multiple of 4");
  assert(cols > 0, "cols is 0");
  assert(start % GROUP === 0 && (rows % GROUP === 0 || start + rows === total), "these rows divide a group");
  assert(!rows || !(dweight | dbias) || workspace !== 0, "dweight or dbias is wanted, but workspace is 0");
  const stride = cols << 2;
  const chunk = sumsChunk(total);
  const inverse = 1 / f64(cols);
  // Bytes of the sums: dbias only where there is a mean.
  const width = isVoid<Mean>() ? stride : stride << 1;
  // One row that is ordinary is added to dweight and dbias directly, which gives the same bits.
  const one = whole && rows === 1 && dweight && (isVoid<Mean>() || dbias);
  const direct = one && ordinary<Mean>(dy, x, cols, isVoid<Mean>() ? <f32>0 : load<f32>(mean), load<f32>(rstd), FAR);
  const sums = (dweight | dbias) !== 0 && !direct;
  // Two rows at a time are faster than one after the other. Short ones lie side by side. Long ones lie half a group
  // apart: side by side, hardware that fetches ahead may not see two streams.
  const pairs = !(cols & 7) && weight && sums;
  const most = pairs ? GROUP : GROUP / 2;
  const step: usize = pairs && cols < LONG ? 2 : 1;
  const begin = start;

  // a group per step, the last of which may have fewer rows
  for (const end = start + rows; start < end; ) {
    const index = start / chunk;
    const totals = workspace + (whole ? min(index, 1) : index) * cols * SLOT;
    const part = totals + (cols << 4);
    const slot = (start / most) % GROUPS;
    const group = sums ? part + slot * (cols << 3) : direct ? dweight : 0;
    const biases = direct ? dbias : group + stride;
    const count = min(end - start, most);
    const steps = pairs ? (count + 1) >> 1 : count;
    const gap: usize = step > 1 ? 1 : steps;
    const apart = gap * stride;
    // The second rows of pairs that are computed one after the other. This keeps both sums short.
    const others = part + GROUPS * (cols << 3);
    let alone = false;
    if (sums && start % chunk === 0) memory.fill(totals, 0, width << 1);

    // 1 or 2 per step
    for (let i: usize = 0; i < steps; i++) {
      const row = start - begin + i * step;
      const at = row * stride;
      const dxa = dx && dx + at;
      const dya = dy + at;
      const xa = x + at;
      const adda = add && add + at;
      const m = isVoid<Mean>() ? <f32>0 : load<f32>(mean + (row << 2));
      const r = load<f32>(rstd + (row << 2));
      const two = i * step + gap < count;
      const n = two && !isVoid<Mean>() ? load<f32>(mean + ((row + gap) << 2)) : <f32>0;
      const s = two ? load<f32>(rstd + ((row + gap) << 2)) : <f32>0;
      const dxb = dx && dxa + apart;
      const dyb = dya + apart;
      const xb = xa + apart;
      const addb = add && adda + apart;
      if (two && ordinary<Mean>(dya, xa, cols, m, r, NEAR) && ordinary<Mean>(dyb, xb, cols, n, s, NEAR)) {
        const failed = i
          ? twoRows<Mean, Present>(dxa, group, dya, xa, weight, adda, cols, apart, m, n, r, s, inverse)
          : twoRows<Mean, Absent>(dxa, group, dya, xa, weight, adda, cols, apart, m, n, r, s, inverse);
        if (failed & 1) exactRow<Mean>(dxa, 0, dya, xa, weight, adda, cols, r, eps);
        if (failed & 2) exactRow<Mean>(dxb, 0, dyb, xb, weight, addb, cols, s, eps);
      } else {
        if (sums && i === 0) memory.fill(group, 0, width);
        oneRow<Mean>(dxa, totals, group, biases, dya, xa, weight, adda, cols, m, r, inverse, eps);
        if (two) {
          if (!alone) memory.fill(others, 0, width);
          alone = true;
          oneRow<Mean>(dxb, totals, others, others + stride, dyb, xb, weight, addb, cols, n, s, inverse, eps);
        }
      }
    }
    start += count;
    if (alone) addPart(totals, others, 1, width, cols);
    if (!sums || (slot + 1 < GROUPS && start < total)) continue;
    addPart(totals, part, slot + 1, width, cols);
    if (whole && index && (start % chunk === 0 || start === total)) addTotals(workspace, totals, cols);
  }
  if (whole && sums && rows) addTo(dweight, dbias, workspace, cols);
}
