/**
 * The module RMSNorm, and its kernels.
 * @module
 */

import { KERNELS } from "./kernels.js";
import { familyOf, Norm, type NormOptions, type WithWeight } from "./norm.js";

export interface RMSNormOptions extends NormOptions {}

/**
 * RMS normalization, to the calls that modules and functions share. Its eps is that of PyTorch: the distance from 1 to
 * the next float32.
 */
export const RMS_NORM = familyOf("RMSNorm", KERNELS[2], KERNELS[3], 2 ** -23);

/**
 * RMS normalization over the trailing dimensions `normalizedShape`:
 *
 *     y = x / sqrt(mean(x²) + eps) * weight
 *
 * (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019). It starts in training mode with weight 1, as
 * PyTorch's does.
 *
 * In TypeScript, `RMSNorm` alone is the type of a module that has a weight. A field or variable for any module is an
 * `RMSNorm<RMSNormOptions>`, where it may be null.
 *
 * @example
 * ```js standalone
 * import { RMSNorm } from "layernorm-wasm";
 *
 * const norm = new RMSNorm(4, { eps: 1e-6 });
 * console.log(norm.forward(Float32Array.of(1, 2, 3, 4))); // 0.37, 0.73, 1.10, 1.46
 * const dx = norm.backward(Float32Array.of(1, 0, 0, 0)); // adds to norm.weight.grad
 * ```
 */
export class RMSNorm<const O extends RMSNormOptions = WithWeight> extends Norm<O> {
  /**
   * @param normalizedShape a positive integer or a non-empty list of them
   * @param options eps is 2⁻²³ by default
   * @throws TypeError, RangeError for an argument that doesn't fit, or when the memory is full
   */
  constructor(normalizedShape: number | readonly number[], options?: O) {
    super(RMS_NORM, normalizedShape, options);
  }
}
