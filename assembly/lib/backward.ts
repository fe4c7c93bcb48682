// The rows of backward, for both norms: RMSNorm has no mean, and loops that are compiled without one.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add
//
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// A row in the range of float32 is computed by the loops in gradient.ts and dx.ts. Any other row is computed in double,
// by exact.ts. dx is assigned (=), dweight and dbias are added to (+=). Rows that are larger than a cache are read
// ahead, some at a time. This changes no result.

import { exactRow } from "./exact";
import { gradientRow } from "./gradient";
import { Absent, Far, Present } from "./lanes";
import { rowSums } from "./moments";
import { addGroup, addSums, addTotals, GROUP, HALF, SLOT, sumsChunk } from "./sums";

// The bits of 2^-24 and 2^24: positive floats are ordered like their bits. Between these, products that underflow don't
// count. See "The range of backward" in docs/guides/numerics.md.
const LEAST_RSTD: u32 = 0x33800000;
const LARGEST_RSTD: u32 = 0x4b800000;
// The largest |mean| * rstd of a row that takes its mean as one float, and of a row that takes the rest of it along.
// Up to 4 the limit of dx holds with one float. Up to 2^14, the rest is below 2^-10 / rstd, so its own error doesn't
// count. See "Backward: the roundings of dx" in docs/guides/numerics.md.
const NEAR: f32 = 4;
const FAR: f32 = 16384;
// For speed alone: the bytes of most first-level caches, or less.
const CACHE: usize = 32768;

/** The mean of a row; RMSNorm takes it as 0. */
function meanOf(mean: usize): f32 {
  return mean ? load<f32>(mean) : 0;
}

/** Whether floats hold x - mean and xhat of a row. */
function inRange(mean: f32, rstd: usize): bool {
  return load<u32>(rstd) - LEAST_RSTD <= LARGEST_RSTD - LEAST_RSTD && abs(mean) * load<f32>(rstd) <= FAR;
}

/** Reads rows of dy and x side by side, so that the processor fetches all of them from memory at once. */
function prefetch(dy: usize, x: usize, rows: usize, stride: usize): void {
  const end = rows * stride;
  // a line of the cache per step
  for (let i: usize = 0; i < stride; i += 64) {
    for (let j = i; j < end; j += stride) {
      load<u8>(dy + j);
      load<u8>(x + j);
    }
  }
}

/**
 * Some rows of a call: dx, and the sums, which stay in the workspace. Each chunk of rows has a slot there. With
 * `whole`, these are all rows: all chunks but the first use one slot in turn, and in the end the sums are added to
 * dweight and dbias.
 */
export function backwardRows(
  dx: usize, // [rows, cols] or 0
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows], or 0: RMSNorm
  rstd: usize, // [rows]
  weight: usize, // [cols] or 0
  add: usize, // [rows, cols] or 0
  rows: usize,
  cols: usize,
  workspace: usize,
  start: usize, // the first of these rows
  total: usize, // the rows of the call
  whole: bool,
): void {
  assert(((dx | dweight | dbias | dy | x | mean | rstd | weight | add) & 3) === 0, "a pointer is not a multiple of 4");
  assert(cols > 0, "cols is 0");
  assert(start % GROUP === 0 && (rows % GROUP === 0 || start + rows === total), "these rows divide a group");
  assert(!rows || !(dweight | dbias) || workspace !== 0, "dweight or dbias is wanted, but workspace is 0");
  const stride = cols << 2;
  const inverse = 1 / f64(cols);
  const chunk = sumsChunk(total);
  // One row is added to dweight and dbias directly. Additions to 0 are exact, so only the sign of a 0 may differ.
  const direct = whole && rows === 1 && dweight && (!mean || dbias) && inRange(meanOf(mean), rstd);
  const sums = (dweight | dbias) !== 0 && !direct;
  const slot = cols * SLOT;
  const next = start + rows;
  // Whether a row of x, dy, dx, weight and the two sums is larger than the cache.
  const wide = stride * 6 > CACHE;

  // a chunk per step
  while (start < next) {
    const index = start / chunk;
    const stop = min((index + 1) * chunk, next);
    const totals = sums ? workspace + (whole ? min(index, 1) : index) * slot : 0;
    const group = sums ? totals + (cols << 4) : direct ? dweight : 0;
    if (sums && start === index * chunk) memory.fill(totals, 0, slot);

    // a group per step
    while (start < stop) {
      const end = min(start + GROUP, stop);

      // 1 per step
      for (; start < end; start++) {
        if (wide && start % HALF === 0) prefetch(dy, x, min(end - start, HALF), stride);
        const m = meanOf(mean);
        const r = load<f32>(rstd);
        const known = inRange(m, rstd);
        // the sums of this row's half of the group
        const dw = group && group + (start & HALF) * cols;
        const db = direct ? dbias : dw + stride;
        let done: bool = false;
        if (known && abs(m) * r <= NEAR) {
          if (!mean)
            done = inline.always(gradientRow<Absent, Absent>(dx, dw, db, dy, x, weight, add, cols, m, 0, r, inverse));
          else if (weight && dw) {
            done = inline.always(gradientRow<Present, Present>(dx, dw, db, dy, x, weight, add, cols, m, 0, r, inverse));
          } else done = gradientRow<Present, Absent>(dx, dw, db, dy, x, weight, add, cols, m, 0, r, inverse);
        } else if (known) {
          const rest = f32(f64x2.extract_lane(rowSums<Present, Present>(x, 0, 0, cols, m, true), 0) * inverse);
          done = gradientRow<Far, Absent>(dx, dw, db, dy, x, weight, add, cols, m, rest, r, inverse);
        }
        if (!done) exactRow(dx, known ? 0 : totals, dy, x, weight, add, cols, r, mean !== 0);
        mean += mean && 4;
        rstd += 4;
        dy += stride;
        x += stride;
        dx += dx && stride;
        add += add && stride;
      }
      if (sums) addGroup(totals, group, cols);
    }
    if (whole && sums && index) addTotals(workspace, totals, cols);
  }
  // The first slot has the sums of all chunks: it is added as that of a call of one chunk.
  if (whole && sums && rows) addSums(dweight, dbias, 1, cols, workspace);
}
