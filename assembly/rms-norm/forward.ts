// RMS normalization, forward.
//
//   rstd = 1 / sqrt(sum(x^2) / cols + eps)     y = x * rstd * weight
//
// With a residual, x + residual takes the place of x. It is rounded to float32, as a separate addition would round it.
//
// y, sum and rstd are assigned (=). y and sum may each be x or residual. No other overlap is allowed.

import { forward } from "../lib/forward";
import { Absent } from "../lib/lanes";

export function rmsNormForward(
  y: usize, // [rows, cols]
  sum: usize, // [rows, cols]: x + residual; 0: not wanted. Not written without a residual
  rstd: usize, // [rows], or 0: not wanted
  x: usize, // [rows, cols]
  residual: usize, // [rows, cols], or 0: all zeros
  weight: usize, // [cols], or 0: all ones
  rows: usize,
  cols: usize,
  eps: f64,
): void {
  forward<Absent>(y, sum, 0, rstd, x, residual, weight, 0, rows, cols, eps);
}
