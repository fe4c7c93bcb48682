// The export list of the kernels' module: the whole ABI. Kernels of several threads are the same, over a shared memory.

export { layerNormBackward, layerNormBackwardRows, layerNormBackwardWorkspace } from "./layer-norm/backward";
export { layerNormForward } from "./layer-norm/forward";
export { addSums, sumsChunk, sumsGroup, sumsWorkspace } from "./lib/sums";
export { rmsNormBackward, rmsNormBackwardRows, rmsNormBackwardWorkspace } from "./rms-norm/backward";
export { rmsNormForward } from "./rms-norm/forward";
