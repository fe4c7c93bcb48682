/**
 * The module RMSNorm, and how its kernels are called.
 * @module
 */

import { type Family, methodsOf, pointerOf } from "./call.js";
import { Norm, type NormOptions } from "./norm.js";

export interface RMSNormOptions extends NormOptions {}

/** RMS normalization, to the calls that modules and functions share. */
export const RMS_NORM: Family = {
  name: "RMSNorm",
  methods: methodsOf("RMSNorm"),
  hasMean: false,
  forward: (kernels, { y, sum, rstd, x, residual, weight, rows, cols, eps }) =>
    kernels.rmsNormForward(
      pointerOf(y),
      pointerOf(sum),
      pointerOf(rstd),
      pointerOf(x),
      pointerOf(residual),
      pointerOf(weight),
      rows,
      cols,
      eps,
    ),
  backward: (kernels, { dx, dweight, dy, x, rstd, weight, add, rows, cols, workspace }) =>
    kernels.rmsNormBackward(
      pointerOf(dx),
      pointerOf(dweight),
      pointerOf(dy),
      pointerOf(x),
      pointerOf(rstd),
      pointerOf(weight),
      pointerOf(add),
      rows,
      cols,
      workspace,
    ),
  workspace: (kernels, rows, cols) => kernels.rmsNormBackwardWorkspace(rows, cols),
};

/** The eps of PyTorch's RMSNorm: the distance from 1 to the next float32. */
export const RMS_EPS = 2 ** -23;

/**
 * RMS normalization over the trailing dimensions `normalizedShape`:
 *
 *     y = x / sqrt(mean(x²) + eps) * weight
 *
 * (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019). It starts in training mode with weight 1, as
 * PyTorch's does.
 */
export class RMSNorm<const O extends RMSNormOptions = object> extends Norm<O> {
  /**
   * @param normalizedShape a positive integer or a non-empty list of them
   * @param options eps is 2⁻²³ by default
   * @throws TypeError, RangeError for an argument that doesn't fit, or when the memory is full
   */
  constructor(normalizedShape: number | readonly number[], options?: O) {
    super(RMS_NORM, normalizedShape, options, { eps: RMS_EPS });
  }
}
