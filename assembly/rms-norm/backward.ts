// RMS normalization, backward, from the statistics of the forward pass.
//
//   xhat = x * rstd     g = dy * weight
//
//   dx       = rstd * (g - xhat * mean(g * xhat)) + add
//   dweight += sum over rows of dy * xhat
//
// dx is assigned (=), dweight is added to (+=). dx may be dy or add. No other overlap is allowed. The loops are those
// of LayerNorm, compiled without a mean: ../lib/backward.ts.

import { backwardRows } from "../lib/backward";
import { workspaceOf } from "../lib/sums";

/** The bytes of workspace that `rmsNormBackward` needs. */
export function rmsNormBackwardWorkspace(rows: usize, cols: usize): usize {
  return workspaceOf(rows, cols);
}

export function rmsNormBackward(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  add: usize, // [rows, cols], or 0: all zeros
  rows: usize,
  cols: usize,
  workspace: usize, // as rmsNormBackwardWorkspace says; 0 where dweight is not wanted
): void {
  backwardRows(dx, dweight, 0, dy, x, 0, rstd, weight, add, rows, cols, workspace, 0, rows, true);
}

/** Some rows of a call, as `layerNormBackwardRows`: the sums stay in the workspace until `addSums(dweight, 0, …)`. */
export function rmsNormBackwardRows(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // not written to here; 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  add: usize, // [rows, cols], or 0: all zeros
  rows: usize,
  cols: usize,
  workspace: usize, // as sumsWorkspace says
  start: usize, // the first of these rows
  total: usize, // the rows of the call
): void {
  backwardRows(dx, dweight, 0, dy, x, 0, rstd, weight, add, rows, cols, workspace, start, total, false);
}
