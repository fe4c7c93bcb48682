/**
 * The memory of tfjs' wasm backend. All that is private to tfjs is reached here and nowhere else.
 * @module
 */

import { type DataId, type KernelBackend, type TensorInfo, version_core } from "@tensorflow/tfjs-core";
import * as binaries from "../binaries.shared.js";
import { isShared } from "../check.js";
import { inlined, link } from "../compile.js";
import { type Allocator, type Kernels, type LinearMemory, Runtime } from "../index.js";

/** What is used of the wasm backend. None of it is documented. */
interface WasmBackend extends KernelBackend {
  wasm: {
    /** The memory, in the build with threads. */
    wasmMemory?: LinearMemory;
    /** The exports, in the builds without. */
    asm?: { memory?: LinearMemory };
    _malloc: Allocator["allocate"];
    _free: Allocator["free"];
  };
  dataIdMap: { get(dataId: DataId): { memoryOffset: number } };
  makeOutput(shape: number[], dtype: "float32"): TensorInfo;
}

/** A runtime over a shared memory whose allocator is another module's, on the thread that calls. */
class SharedRuntime extends Runtime {
  constructor(memory: LinearMemory, allocator: Allocator) {
    super(memory, link<Kernels>("layernorm-wasm/tfjs: module", inlined(binaries.kernels), memory), allocator);
  }
}

/** The kernels over the memory of the wasm backend, and the tensors in it. */
export class WasmMemory {
  readonly runtime: Runtime;
  readonly #backend: WasmBackend;

  constructor(backend: WasmBackend, memory: LinearMemory) {
    const { wasm } = backend;
    const allocator: Allocator = { allocate: (bytes) => wasm._malloc(bytes), free: (pointer) => wasm._free(pointer) };
    this.#backend = backend;
    this.runtime = isShared(memory.buffer)
      ? new SharedRuntime(memory, allocator)
      : Runtime.create({ memory, ...allocator });
  }

  /** The address of a tensor, which comes here first if it lies in another backend; 0 for one that is absent. */
  pointer(tensor: TensorInfo | undefined): number {
    return tensor === undefined ? 0 : this.#backend.dataIdMap.get(tensor.dataId).memoryOffset;
  }

  /** Computes new tensors. `compute` gets a function that makes one, of zeros if wanted, and returns its address. */
  outputs(compute: (make: (shape: number[], zeros?: boolean) => number) => void): TensorInfo[] {
    const made: TensorInfo[] = [];
    try {
      compute((shape, zeros = false) => {
        const size = shape.reduce((product, dimension) => product * dimension, 1);
        const tensor = this.#backend.makeOutput(shape, "float32");
        made.push(tensor);
        const pointer = this.pointer(tensor);
        if (pointer === 0 && size > 0)
          throw new Error(`The wasm backend has no memory left for a tensor of [${shape}].`);
        // Not by makeOutput, which writes before this check: to address 0, where there is no memory left.
        if (zeros) new Float32Array(this.runtime.memory.buffer, pointer, size).fill(0);
        return pointer;
      });
      return made;
    } catch (error) {
      for (const { dataId } of made) this.#backend.disposeData(dataId);
      throw error;
    }
  }
}

/** The memory of each backend that was used; null where it can't be reached. */
const memories = new WeakMap<KernelBackend, WasmMemory | null>();
let warned = false;

/** The memory of the wasm backend; null, after a warning that says why, where tensors have to be copied. */
export function memoryOf(backend: KernelBackend): WasmMemory | null {
  const known = memories.get(backend);
  if (known !== undefined) return known;
  let memory: WasmMemory | null = null;
  try {
    // Where the engine doesn't compile the kernels at once, those of Runtime.default are enough to copy.
    memory = new WasmMemory(backend as WasmBackend, reach(backend as WasmBackend));
  } catch (error) {
    if (!warned) {
      console.warn(
        `layernorm-wasm/tfjs can't reach the memory of the wasm backend of TensorFlow.js ${version_core}: tensors are copied. ${(error as Error).message}`,
      );
    }
    warned = true;
  }
  memories.set(backend, memory);
  return memory;
}

/** The memory, if everything is where it is expected: what the backend writes must be found there. */
function reach(backend: WasmBackend): LinearMemory {
  const values = Float32Array.of(0.1, -1e30, 3e-20, 7);
  const dataId = backend.write(values, [values.length], "float32");
  try {
    const { wasm, dataIdMap, makeOutput } = backend;
    const memory = (wasm.wasmMemory ?? wasm.asm?.memory) as LinearMemory;
    const found = new Float32Array(memory.buffer, dataIdMap.get(dataId).memoryOffset, values.length);
    const functions = [wasm._malloc, wasm._free, makeOutput].every((member) => typeof member === "function");
    if (functions && values.every((value, i) => found[i] === value)) return memory;
    throw new Error("What it writes is not found there.");
  } finally {
    backend.disposeData(dataId);
  }
}
