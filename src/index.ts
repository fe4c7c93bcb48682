/**
 * Layer normalization, forward and backward, as WebAssembly SIMD kernels.
 * @module
 */

export {
  type Gradients,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  type Operand,
  type WithStats,
} from "./functional.js";
export { LayerNorm, type LayerNormOptions, type LoadResult, type StateDict } from "./layer-norm.js";
export { type Allocator, type Kernels, Runtime, type RuntimeOptions } from "./runtime.js";
export { Parameter, Tensor, type TensorOptions } from "./tensor.js";
