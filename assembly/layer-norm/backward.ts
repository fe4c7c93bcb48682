// Layer normalization, backward, from the statistics of the forward pass.
//
//   xhat = (x - mean) * rstd     g = dy * weight
//
//   dx       = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add
//
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// dx is assigned (=), dweight and dbias are added to (+=). dx may be dy or add. No other overlap is allowed. The loops
// are in ../lib/backward.ts and ../lib/gradient.ts.

import { backwardRows } from "../lib/backward";
import { workspaceOf } from "../lib/sums";

/** The bytes of workspace that `layerNormBackward` needs. */
export function layerNormBackwardWorkspace(rows: usize, cols: usize): usize {
  return workspaceOf(rows, cols);
}

export function layerNormBackward(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  add: usize, // [rows, cols], or 0: all zeros
  rows: usize,
  cols: usize,
  workspace: usize, // as layerNormBackwardWorkspace says; 0 where neither dweight nor dbias is wanted
): void {
  backwardRows(dx, dweight, dbias, dy, x, mean, rstd, weight, add, rows, cols, workspace, 0, rows, true);
}

/**
 * Some rows of a call. The sums stay in the workspace until `addSums` adds them. Chunks may come in any order. The rows
 * of a chunk come in ascending order, a multiple of `sumsGroup` at a time.
 */
export function layerNormBackwardRows(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // not written to here; 0: not wanted
  dbias: usize, // the same
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  add: usize, // [rows, cols], or 0: all zeros
  rows: usize,
  cols: usize,
  workspace: usize, // as sumsWorkspace says
  start: usize, // the first of these rows
  total: usize, // the rows of the call
): void {
  backwardRows(dx, dweight, dbias, dy, x, mean, rstd, weight, add, rows, cols, workspace, start, total, false);
}
