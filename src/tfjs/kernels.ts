/**
 * The forward and backward passes as kernels of tfjs, for its wasm and cpu backends.
 * @module
 */

import { type KernelBackend, type KernelFunc, registerKernel, type TensorInfo, util } from "@tensorflow/tfjs-core";
import { layerNormBackward, layerNormWithStats, rmsNormBackward, rmsNormWithStats } from "../index.js";
import { memoryOf, type WasmMemory } from "./wasm-memory.js";

/** Takes x, and residual, gamma and beta where they are. Returns y, x + residual where there is one, `Stats`. */
export const FORWARD = "LayernormWasmForward";
/** Takes dy, x (or x + residual), gamma if there is one, `Stats`. Returns dx, then the gradients of gamma and beta. */
export const BACKWARD = "LayernormWasmBackward";

/** The attributes of a pass. */
export interface Attributes {
  norm: "layerNorm" | "rmsNorm";
  epsilon: number;
  rows: number;
  /** The shape of gamma and beta. */
  shape: number[];
  /** Whether there is a beta. */
  center: boolean;
}

/** What the forward pass finds about each row, in its order: the mean for layer normalization only. */
interface Stats {
  mean?: TensorInfo;
  rstd: TensorInfo;
}

interface ForwardInputs {
  x: TensorInfo;
  residual?: TensorInfo;
  gamma?: TensorInfo;
  beta?: TensorInfo;
}

interface BackwardInputs extends Stats {
  dy: TensorInfo;
  x: TensorInfo;
  gamma?: TensorInfo;
}

function forwardInPlace(memory: WasmMemory, { x, residual, gamma, beta }: ForwardInputs, attributes: Attributes) {
  const { norm, epsilon, rows, shape } = attributes;
  const cols = util.sizeFromShape(shape);
  const { kernels } = memory.runtime;
  const at = (tensor?: TensorInfo) => memory.pointer(tensor);
  return memory.outputs((make) => {
    const y = make(x.shape);
    const sum = residual ? make(x.shape) : 0;
    if (norm === "layerNorm") {
      const [mean, rstd] = [make([rows]), make([rows])];
      kernels.layerNormForward(y, sum, mean, rstd, at(x), at(residual), at(gamma), at(beta), rows, cols, epsilon);
    } else {
      kernels.rmsNormForward(y, sum, make([rows]), at(x), at(residual), at(gamma), rows, cols, epsilon);
    }
  });
}

function backwardInPlace(memory: WasmMemory, inputs: BackwardInputs, attributes: Attributes) {
  const { norm, rows, shape, center } = attributes;
  const { dy, x, gamma, mean, rstd } = inputs;
  const cols = util.sizeFromShape(shape);
  const { runtime } = memory;
  const { kernels } = runtime;
  const at = (tensor?: TensorInfo) => memory.pointer(tensor);
  return memory.outputs((make) => {
    const dx = make(x.shape);
    const dgamma = gamma ? make(shape, true) : 0;
    const dbeta = center ? make(shape, true) : 0;
    const bytes = gamma || center ? kernels[`${norm}BackwardWorkspace`](rows, cols) >>> 0 : 0;
    const scratch = runtime.borrow(bytes);
    const workspace = bytes > 0 ? scratch.pointer : 0;
    const add = 0;
    if (norm === "layerNorm") {
      // biome-ignore format: the arguments as the table of kernels has them
      kernels.layerNormBackward(dx, dgamma, dbeta, at(dy), at(x), at(mean), at(rstd), at(gamma), add, rows, cols, workspace);
    } else {
      kernels.rmsNormBackward(dx, dgamma, at(dy), at(x), at(rstd), at(gamma), add, rows, cols, workspace);
    }
    runtime.giveBack(scratch);
  });
}

/** The floats of a tensor. */
function read(backend: KernelBackend, tensor: TensorInfo): Float32Array;
function read(backend: KernelBackend, tensor: TensorInfo | undefined): Float32Array | undefined;
function read(backend: KernelBackend, tensor: TensorInfo | undefined): Float32Array | undefined {
  if (tensor === undefined) return undefined;
  const values = backend.readSync(tensor.dataId) as Float32Array;
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

function write(backend: KernelBackend, values: Float32Array, shape: number[]): TensorInfo {
  return { dataId: backend.write(values, shape, "float32"), shape, dtype: "float32" };
}

function forwardByCopy(backend: KernelBackend, inputs: ForwardInputs, { norm, epsilon, rows, shape }: Attributes) {
  const { x } = inputs;
  const [values, residual, gamma, beta] = [
    read(backend, x),
    read(backend, inputs.residual),
    read(backend, inputs.gamma),
    read(backend, inputs.beta),
  ];
  const sum = residual && new Float32Array(values.length);
  const options = { residual, sum };
  const cols = util.sizeFromShape(shape);
  const { y, rstd, ...more }: { y: Float32Array; rstd: Float32Array; mean?: Float32Array } =
    norm === "layerNorm"
      ? layerNormWithStats(values, cols, gamma, beta, epsilon, options)
      : rmsNormWithStats(values, cols, gamma, epsilon, options);
  const results = [write(backend, y, x.shape)];
  if (sum) results.push(write(backend, sum, x.shape));
  if (more.mean) results.push(write(backend, more.mean, [rows]));
  results.push(write(backend, rstd, [rows]));
  return results;
}

function backwardByCopy(backend: KernelBackend, inputs: BackwardInputs, attributes: Attributes) {
  const { norm, epsilon, rows, shape, center } = attributes;
  const [dy, x, rstd] = [read(backend, inputs.dy), read(backend, inputs.x), read(backend, inputs.rstd)];
  const [mean, gamma] = [read(backend, inputs.mean), read(backend, inputs.gamma)];
  const { dx, dweight, ...more }: { dx: Float32Array; dweight: Float32Array; dbias?: Float32Array } =
    norm === "layerNorm"
      ? layerNormBackward(dy, x, mean as Float32Array, rstd, gamma, { eps: epsilon })
      : rmsNormBackward(dy, x, rstd, gamma, { eps: epsilon });
  const results = [write(backend, dx, inputs.x.shape)];
  if (gamma) results.push(write(backend, dweight, shape));
  if (center && more.dbias) {
    // Without rows and gamma nothing tells layerNormBackward the columns.
    results.push(write(backend, rows > 0 ? more.dbias : new Float32Array(util.sizeFromShape(shape)), shape));
  }
  return results;
}

type Pass<Inputs, Where> = (where: Where, inputs: Inputs, attributes: Attributes) => TensorInfo[];

/** A pass as a kernel of tfjs. */
function kernelOf<Inputs>(
  inPlace: Pass<Inputs, WasmMemory>,
  byCopy: Pass<Inputs, KernelBackend>,
  backendName: string,
): KernelFunc {
  return ({ inputs, attrs, backend }) => {
    const attributes = attrs as unknown as Attributes;
    const memory = backendName === "wasm" ? memoryOf(backend as KernelBackend) : null;
    if (memory) return inPlace(memory, inputs as Inputs, attributes);
    return byCopy(backend as KernelBackend, inputs as Inputs, attributes);
  };
}

for (const backendName of ["wasm", "cpu"]) {
  registerKernel({
    kernelName: FORWARD,
    backendName,
    kernelFunc: kernelOf(forwardInPlace, forwardByCopy, backendName),
  });
  registerKernel({
    kernelName: BACKWARD,
    backendName,
    kernelFunc: kernelOf(backwardInPlace, backwardByCopy, backendName),
  });
}
