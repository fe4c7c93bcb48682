/**
 * The norms for TensorFlow.js: layers, ops with gradients, and a patch for `tf.layers.layerNormalization`. On the wasm
 * backend they compute in its own memory, without a copy.
 * @module layernorm-wasm/tfjs
 */

export {
  type LayerNormalizationArgs,
  layerNormalization,
  patchLayerNormalization,
  type RMSNormalizationArgs,
  rmsNormalization,
} from "./layers.js";
export { type FallbackOptions, layerNorm, type NormOptions, rmsNorm } from "./ops.js";
