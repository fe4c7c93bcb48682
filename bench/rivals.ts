// How other libraries are measured, each called as its users would, on one thread. Those of npm live in bench/package.json, those
// of Python in bench/requirements.txt. They are found by the python3 that is first in the PATH:
//
//   npm ci --prefix bench --ignore-scripts
//   python3 -m venv build/venv && . build/venv/bin/activate && pip install -r bench/requirements.txt

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Tensor } from "@tensorflow/tfjs-core";
import { normModel } from "./onnx-model.js";
import type { Pass, Prepare, Problem } from "./problem.js";
import { repeatAsync } from "./race.js";

const pathOf = (file: string) => fileURLToPath(new URL(file, import.meta.url));
const BUILD = pathOf("../build/bench");
/** Where numbers pass to a process and back. */
const DATA = join(BUILD, "data");

/** A library whose own types are there only where it is installed. */
async function load(name: string) {
  const module = await import(name);
  return module.default ?? module;
}

type Untyped = Awaited<ReturnType<typeof load>>;

const NODES = 11;
const ONE_THREAD = {
  "onnxruntime-web": { executionProviders: ["wasm"] },
  "onnxruntime-node": { intraOpNumThreads: 1, interOpNumThreads: 1 },
};

/** onnxruntime: a whole call, or its kernel alone, from a chain of eleven nodes and one of one. */
export const onnxruntime =
  (from: keyof typeof ONE_THREAD, alone = false): Prepare =>
  async (problem, _, work) => {
    const { rows, cols, x, dy, weight, bias } = problem;
    const ort = await load(from);
    if (from === "onnxruntime-web") ort.env.wasm.numThreads = 1;
    const session = (nodes: number) => ort.InferenceSession.create(normModel(problem, work, nodes), ONE_THREAD[from]);
    const [one, many] = [await session(1), alone ? await session(NODES) : null];
    const tensor = (data: Float32Array, ...shape: number[]) => new ort.Tensor("float32", data, shape);
    const feeds = {
      X: tensor(x, rows, cols),
      ...(work.residual && { Skip: tensor(dy, rows, cols) }),
      Scale: tensor(weight, cols),
      ...(!work.rms && { B: tensor(bias, cols) }),
    };
    const singles: number[] = [];
    const chains: number[] = [];
    const timed = async (session: Untyped, calls: number, times: number[]) => {
      const start = performance.now();
      for (let i = 0; i < calls; i++) await session.run(feeds);
      times.push((performance.now() - start) / calls);
    };
    // The fastest chain less the fastest single call, and so on up to the median: a difference within a round is mostly noise.
    const differences = () => {
      for (const times of [singles, chains]) times.sort((a, b) => a - b);
      const fast = chains.slice(0, Math.ceil(chains.length / 2));
      return fast.map((time, i) => (time - singles[i]!) / (NODES - 1)).sort((a, b) => a - b);
    };
    return {
      async call(calls) {
        await timed(one, calls, singles);
        if (many) await timed(many, calls, chains);
        return undefined;
      },
      ...(many ? { times: differences } : { version: ort.env.versions.common }),
      result: async () => (await one.run(feeds)).Y.data,
      end: () => Promise.all([one.release(), many?.release()]),
    };
  };

/** TensorFlow.js with one of its backends, from the repository's own packages. */
export async function loadTf(backend: "wasm" | "cpu") {
  const [tf, tfl] = await Promise.all([import("@tensorflow/tfjs-core"), import("@tensorflow/tfjs-layers")]);
  await (backend === "wasm" ? import("@tensorflow/tfjs-backend-wasm") : import("@tensorflow/tfjs-backend-cpu"));
  if (!(await tf.setBackend(backend))) throw new Error(`it has no backend ${backend}`);
  return { tf, tfl };
}

/** The data of a result, which is then freed. */
export async function read(result: Tensor): Promise<Float32Array> {
  const data = await result.data();
  result.dispose();
  return data as Float32Array;
}

export const tfjs =
  (backend: "wasm" | "cpu"): Prepare =>
  async ({ rows, cols, x, weight, bias, eps }) => {
    const { tf, tfl } = await loadTf(backend);
    const layer = tfl.layers.layerNormalization({ axis: -1, epsilon: eps });
    layer.build([rows, cols]);
    layer.setWeights([tf.tensor1d(weight), tf.tensor1d(bias)]);
    const input = tf.tensor2d(x, [rows, cols]);
    const result = () => read(layer.apply(input) as Tensor);
    const prepare = () => tf.setBackend(backend);
    return { prepare, call: repeatAsync(result), result, version: tf.version_core, end: () => input.dispose() };
  };

export const jax: Prepare = async ({ rows, cols, x, weight, bias, eps }) => {
  Reflect.deleteProperty(globalThis, "Worker"); // Node's, from onnxruntime-web: jax-js takes it for a page's, and fails
  const { init, defaultDevice, jit, nn, numpy } = await load("@jax-js/jax");
  await init("wasm");
  defaultDevice("wasm");
  const norm = jit((x: Untyped, weight: Untyped, bias: Untyped) =>
    nn.standardize(x, -1, { epsilon: eps }).mul(weight).add(bias),
  );
  const array = (data: Float32Array, ...shape: number[]) => numpy.array(data, { shape });
  const inputs = [array(x, rows, cols), array(weight, cols), array(bias, cols)] as const;
  const [a, b, c] = inputs;
  return {
    call: repeatAsync(async () => (await norm(a.ref, b.ref, c.ref).blockUntilReady()).dispose()),
    result: () => norm(a.ref, b.ref, c.ref).data(),
    end() {
      for (const input of inputs) input.dispose();
    },
  };
};

type Command = [command: string, ...args: string[]];

/**
 * Memory that a process frees stays with it, as it would in a program that has run for a while. By default glibc may give
 * a result's memory back after each call, and a call of 0.2 ms then takes 0.7.
 */
const MALLOC = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

/** A process that answers each line with a line. */
function start([command, ...args]: Command): (line: string) => Promise<string> {
  const child = spawn(command, args, { stdio: "pipe", env: { ...process.env, ...MALLOC } });
  let last = "";
  // TensorFlow logs there what it is built for. Only an error is of interest, which comes last.
  child.stderr.on("data", (text) => {
    last = String(text).trim();
  });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return async (line) => {
    child.stdin.write(`${line}\n`);
    const { value, done } = await answers.next();
    if (done) throw new Error(`no answer to ${line}: ${last.split("\n").pop()}`);
    return value;
  };
}

/** A process for both passes and all shapes, made at its first use. It times itself: bench/native.c, scripts/rivals.py. */
function native(commandOf: () => Command, versionOf?: () => string): Prepare {
  let ask: ReturnType<typeof start> | undefined;
  let version: string | undefined;
  let loaded: Problem | undefined;
  return async (problem, pass) => {
    const { x, dy, weight, bias, rows, cols } = problem;
    version ??= versionOf?.();
    mkdirSync(BUILD, { recursive: true });
    ask ??= start(commandOf());
    const tell = ask;
    if (loaded !== problem) {
      writeFileSync(DATA, Buffer.concat([x, dy, weight, bias].map((part) => new Uint8Array(part.buffer))));
      await tell(`load ${DATA} ${rows} ${cols}`);
      loaded = problem;
    }
    const time = async (pass: Pass, calls: number) => Number(await tell(`${pass} ${calls}`));
    const results = async () => {
      await tell(`save ${DATA}`);
      const { buffer } = new Uint8Array(readFileSync(DATA));
      const part = (start: number, length: number) => new Float32Array(buffer, start * 4, length);
      const [size, dweight] = [rows * cols, part(2 * rows * cols, cols)];
      return { y: part(0, size), dx: part(size, size), dweight, dbias: part(2 * size + cols, cols) };
    };
    await time("forward", 1); // for the statistics that backward reads
    return {
      call: (calls) => time(pass, calls),
      async result() {
        await time(pass, 1);
        return (await results())[pass === "forward" ? "y" : "dx"];
      },
      gradients: results,
      ...(version && { version }),
    };
  };
}

/** A library of Python. */
export function python(library: "pytorch" | "flax" | "keras"): Prepare {
  const script = pathOf("../scripts/rivals.py");
  const versionOf = () => {
    const { status, stdout, stderr, error } = spawnSync("python3", [script, library, "version"], { encoding: "utf8" });
    if (status !== 0) throw error ?? new Error(`python3: ${stderr.trim().split("\n").pop()}`);
    return stdout.trim();
  };
  return native(() => ["python3", script, library, "serve"], versionOf);
}

/** bench/native.c compiled with these flags. */
export const c = (name: string, ...flags: string[]): Prepare =>
  native(() => {
    const binary = join(BUILD, name);
    execFileSync("cc", ["-O3", ...flags, "-o", binary, pathOf("native.c"), "-lm"]);
    return [binary];
  });
