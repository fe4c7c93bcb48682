// Layer normalization as other libraries have it, each called as its users would. They live in bench/package.json:
//
//   npm ci --prefix bench --ignore-scripts

import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { layerNormModel } from "./onnx-model.js";

/** Normalizes x, [rows, cols], with weight 1 and bias 0. */
export type Normalize = (x: Float32Array, rows: number, cols: number, eps: number) => Promise<Float32Array>;

export interface Rival {
  name: string;
  version: string;
  normalize: Normalize;
}

// The rivals' own types are there only where they are installed: what is used of them.
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

function onnxruntime(ort: Ort, options: object): Normalize {
  return async (x, rows, cols, eps) => {
    const session = await ort.InferenceSession.create(layerNormModel(rows, cols, eps), options);
    const feeds = {
      X: new ort.Tensor("float32", x, [rows, cols]),
      Scale: new ort.Tensor("float32", new Float32Array(cols).fill(1), [cols]),
      B: new ort.Tensor("float32", new Float32Array(cols), [cols]),
    };
    return (await session.run(feeds)).Y.data;
  };
}

async function onnxruntimeNode(): Promise<Rival> {
  const ort = await load<Ort>("onnxruntime-node");
  const options = { intraOpNumThreads: 1, interOpNumThreads: 1 };
  return { name: "onnxruntime-node", version: ort.env.versions.common, normalize: onnxruntime(ort, options) };
}

async function onnxruntimeWeb(): Promise<Rival> {
  const ort = await load<Ort>("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const options = { executionProviders: ["wasm"] };
  return { name: "onnxruntime-web", version: ort.env.versions.common, normalize: onnxruntime(ort, options) };
}

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

async function tfjs(): Promise<Rival> {
  const tf = await loadTf("wasm");
  return {
    name: "tfjs-wasm",
    version: tf.version_core,
    async normalize(x, rows, cols, epsilon) {
      const input = tf.tensor2d(x, [rows, cols]);
      const y = tf.layers.layerNormalization({ axis: -1, epsilon }).apply(input);
      const data = await y.data();
      input.dispose();
      y.dispose();
      return data;
    },
  };
}

const script = fileURLToPath(new URL("../scripts/pytorch.py", import.meta.url));
const run = (python: string, args: string[], input?: Uint8Array) =>
  spawnSync(python, [script, ...args], { input, maxBuffer: 2 ** 30 });

/** The command of scripts/pytorch.py, with a python3 that has torch. */
export function pytorchCommand(): [python: string, script: string] {
  const python = ["python3", "/usr/bin/python3"].find((command) => run(command, ["version"]).status === 0);
  if (!python) throw new Error("no python3 with torch");
  return [python, script];
}

/** PyTorch, by way of scripts/pytorch.py: where a python3 has it. */
async function pytorch(): Promise<Rival> {
  const [python] = pytorchCommand();
  return {
    name: "PyTorch CPU",
    version: run(python, ["version"]).stdout.toString().trim(),
    async normalize(x, rows, cols, eps) {
      const { stdout } = run(python, [String(rows), String(cols), String(eps)], new Uint8Array(x.buffer));
      return new Float32Array(new Uint8Array(stdout).buffer);
    },
  };
}

/** All that are installed; says which are not. */
export async function rivals(): Promise<Rival[]> {
  const found: Rival[] = [];
  for (const start of [pytorch, onnxruntimeNode, onnxruntimeWeb, tfjs]) {
    try {
      found.push(await start());
    } catch (error) {
      console.log(`without ${start.name}: ${(error as Error).message.split("\n")[0]}`);
      if (start !== pytorch) console.log("  (npm ci --prefix bench --ignore-scripts)");
    }
  }
  return found;
}
