// The export list of the kernels for several threads, which have a memory that is shared: the whole ABI and, of backward, a chunk and
// the end as functions of their own. Forward needs none: its rows know nothing of each other.

import { layerNormBackwardChunk, sumChunk } from "./backward";
import { addTotal, addTotals } from "./gradients";

export { layerNormBackward, layerNormBackwardChunk, layerNormBackwardWorkspace } from "./backward";
export { layerNormForward } from "./forward";

// A chunk's slot in the workspace: its totals in double, then the sums of a part in float32, each for dweight and for dbias.
const SLOT: usize = 24;

/** The bytes of workspace that all chunks together need. */
export function layerNormBackwardSlots(rows: usize, cols: usize): usize {
  const chunk = layerNormBackwardChunk(rows);
  return ((rows + chunk - 1) / chunk) * cols * SLOT;
}

/** One chunk of backward: dx of its rows, and its sums in its slot. Pointers are those of the whole. */
export function layerNormBackwardPart(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // not written to here; 0: not wanted
  dbias: usize, // the same
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  rows: usize,
  cols: usize,
  workspace: usize, // as layerNormBackwardSlots says
  index: usize,
): void {
  const totals = workspace + index * cols * SLOT;
  const part = totals + (cols << 4);
  memory.fill(totals, 0, cols << 4);
  const start = index * layerNormBackwardChunk(rows);
  sumChunk(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, start, totals, part);
}

/** The end of backward, once all its chunks are done: dweight += and dbias += their sums. */
export function layerNormBackwardEnd(
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  rows: usize,
  cols: usize,
  workspace: usize,
): void {
  const end = workspace + layerNormBackwardSlots(rows, cols);
  const slot = cols * SLOT;

  // a chunk per step
  for (let other = workspace + slot; other < end; other += slot) addTotals(workspace, other, cols << 1);
  if (dweight) addTotal(dweight, workspace, cols);
  if (dbias) addTotal(dbias, workspace + (cols << 3), cols);
}
