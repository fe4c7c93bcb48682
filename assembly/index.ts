// The export list of the kernels' module: the whole ABI.

export { layerNormBackward, layerNormBackwardWorkspace } from "./backward";
export { layerNormForward } from "./forward";
