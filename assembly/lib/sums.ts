// The sums over rows, dweight and dbias: where they are kept, and in which order they are added.
//
// A sum runs in float32 over half a group of rows, and in double from there on. Groups make at most CHUNKS chunks, each
// with totals of its own. The totals of the chunks are added in their order. All of this depends on the number of rows
// alone. So every sum has the same bits for one thread or many, and for rows that come some groups at a time.
//
// A chunk's slot in the workspace: its totals in double, then the sums of its current group in float32, first half and
// second half. Each is for dweight and dbias.

import { promoteHigh } from "./lanes";

/** Rows of half a group. With more, dweight might err by over 9 units: see the proof in docs/guides/numerics.md. */
export const HALF: usize = 8;
/** Rows of a group. Both halves are added to the totals at once, so these are read and written half as often. */
export const GROUP: usize = 2 * HALF;
// For speed alone. Enough for sixteen threads to share, and few enough to add up: at 768 columns in 20 microseconds.
const CHUNKS: usize = 32;
/** Bytes of a slot for each column. */
export const SLOT: usize = 32;

/** A call for some rows begins at a multiple of this and has a multiple of it. Only the last rows may be fewer. */
export function sumsGroup(): usize {
  return GROUP;
}

/** The rows of a chunk, a multiple of GROUP; the last chunk may have fewer. */
export function sumsChunk(rows: usize): usize {
  const groups = (rows + GROUP - 1) / GROUP;
  // At least 96 rows, for speed alone: a chunk costs an addition of its totals.
  return max((groups + CHUNKS - 1) / CHUNKS, 6) * GROUP;
}

/** The chunks of a call. */
function chunksOf(rows: usize): usize {
  const chunk = sumsChunk(rows);
  return (rows + chunk - 1) / chunk;
}

/** The bytes of so many slots; the largest number where 32 bits don't hold them. */
function slots(count: usize, cols: usize): usize {
  return usize(min(u64(count) * u64(cols) * SLOT, u64(usize.MAX_VALUE)));
}

/** The bytes of workspace for all chunks together. */
export function sumsWorkspace(rows: usize, cols: usize): usize {
  return slots(chunksOf(rows), cols);
}

/** The bytes of workspace for one chunk after the other: the first has a slot of its own, the others share one. */
export function workspaceOf(rows: usize, cols: usize): usize {
  return slots(min(chunksOf(rows), 2), cols);
}

/** dweight += and dbias += the sums of all chunks. */
export function addSums(
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  rows: usize,
  cols: usize,
  workspace: usize, // as sumsWorkspace says
): void {
  const chunks = chunksOf(rows);
  const slot = cols * SLOT;

  // a chunk per step
  for (let index: usize = 1; index < chunks; index++) addTotals(workspace, workspace + index * slot, cols);
  addTo(rows && dweight, workspace, cols);
  addTo(rows && dbias, workspace + (cols << 3), cols);
}

/** sum += totals, from double to float32. */
export function addTo(
  sum: usize, // [cols] or 0
  totals: usize, // [cols], double
  cols: usize,
): void {
  const end = sum && cols << 2;
  let i: usize = 0;

  // 2 per step
  for (; end - i >= 8; i += 8) {
    const v = f64x2.add(f64x2.promote_low_f32x4(v128.load64_zero(sum + i)), v128.load(totals + (i << 1)));
    v128.store64_lane(sum + i, f32x4.demote_f64x2_zero(v), 0);
  }

  // tail: the last number, where cols is odd
  if (i < end) store<f32>(sum + i, f32(f64(load<f32>(sum + i)) + load<f64>(totals + (i << 1))));
}

/** totals += the sums of both halves of a group, from float32 to double. The halves are then 0. */
export function addGroup(
  totals: usize, // [2, cols], double
  group: usize, // [2, 2, cols]
  cols: usize,
): void {
  const half = cols << 3;
  let i: usize = 0;

  // 4 per step
  for (; half - i >= 16; i += 16) {
    const first = group + i;
    const second = first + half;
    const v = v128.load(first);
    const w = v128.load(second);
    const t = totals + (i << 1);
    v128.store(t, f64x2.add(f64x2.add(v128.load(t), f64x2.promote_low_f32x4(v)), f64x2.promote_low_f32x4(w)));
    v128.store(t, f64x2.add(f64x2.add(v128.load(t, 16), promoteHigh(v)), promoteHigh(w)), 16);
    v128.store(first, f32x4.splat(0));
    v128.store(second, f32x4.splat(0));
  }

  // tail: the last two numbers, where cols is odd
  if (i < half) {
    const t = totals + (i << 1);
    const v = f64x2.promote_low_f32x4(v128.load64_zero(group + i));
    const w = f64x2.promote_low_f32x4(v128.load64_zero(group + half + i));
    v128.store(t, f64x2.add(f64x2.add(v128.load(t), v), w));
    store<u64>(group + i, 0);
    store<u64>(group + half + i, 0);
  }
}

/** totals += more, both double. */
export function addTotals(
  totals: usize, // [2, cols], double
  more: usize, // [2, cols], double
  cols: usize,
): void {
  const end = cols << 4;

  // 2 per step
  for (let i: usize = 0; i < end; i += 16)
    v128.store(totals + i, f64x2.add(v128.load(totals + i), v128.load(more + i)));
}
