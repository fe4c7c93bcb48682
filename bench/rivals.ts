// The libraries that we measure against, loaded, with the types of what is used of them. They live in bench/package.json:
//
//   npm ci --prefix bench --ignore-scripts

import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

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

/** The command of scripts/pytorch.py, with a python3 that has torch. */
export function pytorchCommand(): [python: string, script: string] {
  const script = fileURLToPath(new URL("../scripts/pytorch.py", import.meta.url));
  const python = ["python3", "/usr/bin/python3"].find(
    (command) => spawnSync(command, [script, "version"]).status === 0,
  );
  if (!python) throw new Error("no python3 with torch");
  return [python, script];
}
