/**
 * Layer normalization and RMS normalization, forward and backward, as WebAssembly SIMD kernels.
 * @module layernorm-wasm
 */

export type { LaterModuleSource, ModuleSource } from "./compile.js";
export * from "./functional.js";
export type { Kernels } from "./kernels.js";
export { type BiasOf, LayerNorm, type LayerNormOptions } from "./layer-norm.js";
export type { Allocator, LinearMemory } from "./memory.js";
export type { Norm, NormOptions, WeightOf } from "./norm.js";
export { RMSNorm, type RMSNormOptions } from "./rms-norm.js";
export { Runtime, type RuntimeOptions } from "./runtime.js";
export type { Checkpoint, CheckpointEntry, LoadOptions, LoadResult, RawFloats, StateDict } from "./state-dict.js";
export { Parameter, Tensor, type TensorHandle, type TensorOptions } from "./tensor.js";
export type * from "./types.js";
