/**
 * The module LayerNorm, and its kernels.
 * @module
 */

import { KERNELS } from "./kernels.js";
import type { NormOptions, ParameterUnless, WeightOf, WithWeight } from "./norm.js";
import { biasOf, familyOf, Norm } from "./norm.js";
import type { Parameter, Tensor } from "./tensor.js";

export interface LayerNormOptions extends NormOptions {
  /** false: a weight without a bias. Or a Tensor to use as the bias, as `weight` is. */
  bias?: boolean | Tensor | undefined;
}

/** The type of the bias of a module with options `O`. It includes null where they allow a module without one. */
export type BiasOf<O> =
  | Extract<WeightOf<O>, null>
  | (WeightOf<O> extends null ? never : O extends { bias?: infer Bias } ? ParameterUnless<Bias> : Parameter);

/** The options of a module that certainly has a weight and a bias. */
export type WithBoth = WithWeight & { bias?: true | Tensor | undefined };

/** Layer normalization, to the calls that modules and functions share. */
export const LAYER_NORM = familyOf("LayerNorm", KERNELS[0], KERNELS[1], 1e-5);

/**
 * Layer normalization over the trailing dimensions `normalizedShape`:
 *
 *     y = (x - mean) / sqrt(var + eps) * weight + bias
 *
 * with the mean and the population variance of each row (Ba, Kiros and Hinton, "Layer Normalization", 2016). It
 * starts in training mode with weight 1 and bias 0, as PyTorch's does.
 *
 * In TypeScript, `LayerNorm` alone is the type of a module that has a weight and a bias. A field or variable for any
 * module is a `LayerNorm<LayerNormOptions>`, where both may be null. `LayerNorm<{ bias: false }>` has no bias.
 *
 * @example
 * ```js standalone
 * import { LayerNorm } from "layernorm-wasm";
 *
 * const ln = new LayerNorm(4);
 * console.log(ln.forward(Float32Array.of(1, 2, 3, 4))); // -1.34, -0.45, 0.45, 1.34
 * const dx = ln.backward(Float32Array.of(1, 0, 0, 0)); // adds to ln.weight.grad and ln.bias.grad
 * ```
 */
export class LayerNorm<const O extends LayerNormOptions = WithBoth> extends Norm<O> {
  /**
   * @param normalizedShape a positive integer or a non-empty list of them
   * @param options eps is 1e-5 by default
   * @throws TypeError, RangeError for an argument that doesn't fit, or when the memory is full
   */
  constructor(normalizedShape: number | readonly number[], options?: O) {
    super(LAYER_NORM, normalizedShape, options);
  }

  /** What is added to the weighted rows. null without `elementwiseAffine` or `bias`. */
  get bias(): BiasOf<O> {
    return biasOf(this) as BiasOf<O>;
  }
}
