// The rows of backward, for both norms: `Mean` is Absent for RMSNorm, whose loops are compiled without one.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// An ordinary row is computed in float32. Any other row is computed in double, which takes about three times as long.

import { exactRow } from "./exact";
import { Far } from "./lanes";
import { FAR, NEAR, ordinary, ordinaryRow } from "./ordinary";
import { addPart, addTo, addTotals, GROUP, PART, SLOT, sumsChunk } from "./sums";
import { twoRows } from "./wide";

// Columns from which two rows at a time win: their weight, dweight and dbias alone fill a first-level cache. With
// fewer columns two rows lie so close that the hardware no longer sees one stream to follow, and it takes longer.
const WIDE: usize = 2560;

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
  const wide = cols >= WIDE && !(cols & 15) && weight && sums;

  // up to a group per step
  for (const end = start + rows; start < end; ) {
    const index = start / chunk;
    const totals = workspace + (whole ? min(index, 1) : index) * cols * SLOT;
    const part = totals + (cols << 4);
    const group = sums ? part + ((start % PART) / GROUP) * (cols << 3) : direct ? dweight : 0;
    const biases = direct ? dbias : group + stride;
    const last = min(end, (start / GROUP + 1) * GROUP);
    if (sums && start % chunk === 0) memory.fill(totals, 0, width << 1);
    if (sums && start % GROUP === 0) memory.fill(group, 0, width);

    // 1 or 2 per step
    while (start < last) {
      const m = isVoid<Mean>() ? <f32>0 : load<f32>(mean);
      const r = load<f32>(rstd);
      let count: usize = 1;
      if (!ordinary<Mean>(dy, x, cols, m, r, NEAR)) {
        if (isVoid<Mean>() || !ordinary<Mean>(dy, x, cols, m, r, FAR))
          exactRow<Mean>(dx, sums ? totals : 0, dy, x, weight, add, cols, r, eps);
        else if (!ordinaryRow<Far>(dx, group, biases, dy, x, weight, add, cols, m, r, inverse))
          exactRow<Mean>(dx, 0, dy, x, weight, add, cols, r, eps);
      } else {
        const two = wide && last - start > 1;
        const n = two && !isVoid<Mean>() ? load<f32>(mean, 4) : <f32>0;
        const s = two ? load<f32>(rstd, 4) : <f32>0;
        if (two && ordinary<Mean>(dy + stride, x + stride, cols, n, s, NEAR)) {
          const failed = twoRows<Mean>(dx, group, dy, x, weight, add, cols, m, n, r, s, inverse);
          if (failed & 1) exactRow<Mean>(dx, 0, dy, x, weight, add, cols, r, eps);
          if (failed & 2)
            exactRow<Mean>(dx + stride, 0, dy + stride, x + stride, weight, add && add + stride, cols, s, eps);
          count = 2;
        } else if (!ordinaryRow<Mean>(dx, group, biases, dy, x, weight, add, cols, m, r, inverse)) {
          exactRow<Mean>(dx, 0, dy, x, weight, add, cols, r, eps);
        }
      }
      const step = count * stride;
      if (dx) dx += step;
      if (add) add += step;
      dy += step;
      x += step;
      mean += count << 2;
      rstd += count << 2;
      start += count;
    }
    if (!sums || (start % PART && start < total)) continue;
    addPart(totals, part, ((start - 1) % PART) / GROUP + 1, width, cols);
    if (whole && index && (start % chunk === 0 || start === total)) addTotals(workspace, totals, cols);
  }
  if (whole && sums && rows) addTo(dweight, dbias, workspace, cols);
}
