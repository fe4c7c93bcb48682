/**
 * The module LayerNorm, and how the kernels of layer normalization are called.
 * @module
 */

import { type Family, methodsOf, pointerOf } from "./call.js";
import { biasOf, Norm, type NormOptions, type ParameterUnless, type WeightOf } from "./norm.js";
import type { Parameter, Tensor } from "./tensor.js";

export interface LayerNormOptions extends NormOptions {
  /** false: a weight without a bias. Or a Tensor to use as the bias, as `weight` is. */
  bias?: boolean | Tensor | undefined;
}

/** The type of the bias of a module with options `O`: null where they say that there is none. */
export type BiasOf<O> =
  WeightOf<O> extends null ? null : O extends { bias?: infer Bias } ? ParameterUnless<Bias> : Parameter;

/** Layer normalization, to the calls that modules and functions share. */
export const LAYER_NORM: Family = {
  name: "LayerNorm",
  methods: methodsOf("LayerNorm"),
  hasMean: true,
  forward: (kernels, { y, sum, mean, rstd, x, residual, weight, bias, rows, cols, eps }) =>
    kernels.layerNormForward(
      pointerOf(y),
      pointerOf(sum),
      pointerOf(mean),
      pointerOf(rstd),
      pointerOf(x),
      pointerOf(residual),
      pointerOf(weight),
      pointerOf(bias),
      rows,
      cols,
      eps,
    ),
  backward: (kernels, { dx, dweight, dbias, dy, x, mean, rstd, weight, add, rows, cols, workspace }) =>
    kernels.layerNormBackward(
      pointerOf(dx),
      pointerOf(dweight),
      pointerOf(dbias),
      pointerOf(dy),
      pointerOf(x),
      pointerOf(mean),
      pointerOf(rstd),
      pointerOf(weight),
      pointerOf(add),
      rows,
      cols,
      workspace,
    ),
  workspace: (kernels, rows, cols) => kernels.layerNormBackwardWorkspace(rows, cols),
};

/**
 * Layer normalization over the trailing dimensions `normalizedShape`:
 *
 *     y = (x - mean) / sqrt(var + eps) * weight + bias
 *
 * with the mean and the population variance of each row (Ba, Kiros and Hinton, "Layer Normalization", 2016). It
 * starts in training mode with weight 1 and bias 0, as PyTorch's does.
 */
export class LayerNorm<const O extends LayerNormOptions = object> extends Norm<O> {
  /**
   * @param normalizedShape a positive integer or a non-empty list of them
   * @param options eps is 1e-5 by default
   * @throws TypeError, RangeError for an argument that doesn't fit, or when the memory is full
   */
  constructor(normalizedShape: number | readonly number[], options?: O) {
    super(LAYER_NORM, normalizedShape, options, { eps: 1e-5, bias: true });
  }

  /** What is added to the weighted rows. null without `elementwiseAffine` or `bias`. */
  get bias(): BiasOf<O> {
    return biasOf(this) as BiasOf<O>;
  }
}
