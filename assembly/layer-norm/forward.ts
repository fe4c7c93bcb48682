// Layer normalization, forward.
//
//   mean = sum(x) / cols     var = sum((x - mean)^2) / cols     rstd = 1 / sqrt(var + eps)
//
//   y = (x - mean) * rstd * weight + bias
//
// With a residual, x + residual takes the place of x. It is rounded to float32, as a separate addition would round it.
//
// y, sum, mean and rstd are assigned (=). y and sum may each be x or residual. No other overlap is allowed.

import { forward } from "../lib/forward";
import { Present } from "../lib/lanes";

export function layerNormForward(
  y: usize, // [rows, cols]
  sum: usize, // [rows, cols]: x + residual; 0: not wanted. Not written without a residual
  mean: usize, // [rows], or 0: not wanted
  rstd: usize, // [rows], or 0: not wanted
  x: usize, // [rows, cols]
  residual: usize, // [rows, cols], or 0: all zeros
  weight: usize, // [cols], or 0: all ones
  bias: usize, // [cols], or 0: all zeros
  rows: usize,
  cols: usize,
  eps: f64,
): void {
  forward<Present>(y, sum, mean, rstd, x, residual, weight, bias, rows, cols, eps);
}
