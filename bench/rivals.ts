// The libraries that we measure against: their names, and how each is loaded, with the types of what is used of them.
// Those of npm live in bench/package.json, those of Python in bench/requirements.txt. They are found by the python3 that is
// first in the PATH:
//
//   npm ci --prefix bench --ignore-scripts
//   python3 -m venv build/venv && . build/venv/bin/activate && pip install -r bench/requirements.txt

import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** Who is shown beside our module, in this order, by the name that the results have. */
export interface Shown {
  name: string;
  /** In the README's picture, where the version is added. */
  label: string;
  /** In the README's table, if it is called otherwise there. */
  code?: string;
  /** A library, whose results `npm run accuracy` compares as well. */
  library?: true;
  /** Why it has no time backward. */
  missing?: string;
}

export const OURS = "module, Tensor with out";
export const ON_ARRAYS = "module, Float32Array with out";

export const SHOWN: Shown[] = [
  { name: OURS, label: "layernorm-wasm", code: "**`LayerNorm` on a `Tensor` with `out`**" },
  { name: ON_ARRAYS, label: "the same, on arrays", code: "`LayerNorm` on arrays with `out`" },
  { name: "plain JavaScript", label: "plain JavaScript" },
  { name: "onnxruntime-web", label: "onnxruntime-web", library: true, missing: "no backward" },
  {
    name: "tfjs, wasm",
    label: "TensorFlow.js, wasm",
    code: "`tf.layers.layerNormalization`, wasm backend",
    library: true,
  },
  { name: "onnxruntime-node", label: "onnxruntime-node, native", library: true, missing: "no backward" },
  { name: "PyTorch CPU", label: "PyTorch, native", library: true },
  { name: "Flax CPU", label: "Flax with jit, native", library: true },
  { name: "Keras CPU", label: "Keras, native", library: true },
];

// Their own types are there only where they are installed.
export interface Ort {
  Tensor: new (type: "float32", data: Float32Array, shape: number[]) => object;
  InferenceSession: {
    create(
      model: Uint8Array,
      options: object,
    ): Promise<{
      run(feeds: Record<string, object>): Promise<Record<"Y", { data: Float32Array }>>;
      release(): Promise<void>;
    }>;
  };
  env: { wasm: { numThreads: number }; versions: { common: string } };
}

export interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor1d(data: Float32Array): object;
  tensor2d(data: Float32Array, shape: [number, number]): { dispose(): void };
  layers: {
    layerNormalization(options: object): {
      apply(x: object): { data(): Promise<Float32Array>; dispose(): void };
      setWeights(weights: object[]): void;
    };
  };
  version_core: string;
}

export const load = async <T>(name: string): Promise<T> => {
  const module = await import(name);
  return module.default ?? module;
};

/** TensorFlow.js with one of its backends. */
export async function loadTf(backend: "wasm" | "cpu"): Promise<Tf> {
  const tf = await load<Tf>("@tensorflow/tfjs");
  if (backend === "wasm") {
    const wasm = await load<{ setWasmPaths(folder: string): void }>("@tensorflow/tfjs-backend-wasm");
    wasm.setWasmPaths(`${dirname(fileURLToPath(import.meta.resolve("@tensorflow/tfjs-backend-wasm")))}/`);
  }
  await tf.setBackend(backend);
  await tf.ready();
  return tf;
}

/** The command of scripts/rivals.py for a library, and its version. Throws where python3 doesn't have it. */
export function pythonRival(library: string): { command: [python: string, ...args: string[]]; version: string } {
  const script = fileURLToPath(new URL("../scripts/rivals.py", import.meta.url));
  const { status, stdout, stderr, error } = spawnSync("python3", [script, library, "version"], { encoding: "utf8" });
  if (status !== 0) throw error ?? new Error(`python3: ${stderr.trim().split("\n").pop()}`);
  return { command: ["python3", script, library, "serve"], version: stdout.trim() };
}
