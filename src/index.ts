/**
 * Layer normalization, forward and backward, as WebAssembly SIMD kernels.
 * @module
 */

export type { LaterModuleSource, ModuleSource, ResponseLike } from "./compile.js";
export { type Gradients, layerNorm, layerNormBackward, layerNormWithStats, type WithStats } from "./functional.js";
export { LayerNorm, type LayerNormOptions } from "./layer-norm.js";
export type { Operand, OutOption } from "./operand.js";
export { type Allocator, type Kernels, type LinearMemory, Runtime, type RuntimeOptions } from "./runtime.js";
export type { Checkpoint, LoadResult, StateDict } from "./state-dict.js";
export { Parameter, Tensor, type TensorHandle, type TensorOptions } from "./tensor.js";
