// Who is measured: our kernels and module, the limits of the memory, and layer normalization as others have it, each called as
// its users would, on one thread.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { LayerNorm, Runtime, Tensor } from "../dist/index.js";
import { createThreadedRuntime } from "../dist/threads.js";
import { set, until } from "./copier.mjs";
import { earlierKernels } from "./earlier.js";
import { compileC, Native } from "./native.js";
import { normModel, OPERATORS, type Operator } from "./onnx-model.js";
import { load, loadTf, type Ort, pythonRival, type Tf } from "./rivals.js";

/** One shape with its data. */
export interface Problem {
  rows: number;
  cols: number;
  x: Float32Array<ArrayBuffer>;
  dy: Float32Array<ArrayBuffer>;
  weight: Float32Array<ArrayBuffer>;
  bias: Float32Array<ArrayBuffer>;
  eps: number;
}

export type Pass = "forward" | "backward";

/** Which norm, and of what: with a residual, which dy stands for, of x + dy; the sum is then a result as well. */
export interface Work {
  rms?: boolean;
  residual?: boolean;
}

/** A contender on one shape. */
export interface Entry {
  /** One call: nothing, or the milliseconds that it took by its own clock. */
  call(calls: number): undefined | number | Promise<undefined | number>;
  /** y or dx, to be verified; null for a limit, which computes nothing. */
  result(): Promise<Float32Array | null> | Float32Array | null;
  /** dweight and dbias, where backward tells them: of one call from Python, of all calls from C. */
  gradients?(): Promise<Record<"dweight" | "dbias", Float32Array>>;
  /** The times of all rounds, where they are not those of the calls. */
  times?(): number[];
  /** Tensors whose addresses are used: dropped, they would be freed. */
  keep?: object;
  end?(): unknown;
}

export interface Contender {
  name: string;
  pass: Pass;
  /** Of the library, once it is loaded. */
  version?(): Promise<string> | string;
  /** Larger than this many elements it would take minutes, or more memory than it has. */
  most?: number;
  /** What it computes, where that isn't layer normalization of x. */
  work?: Work;
  prepare(problem: Problem): Promise<Entry> | Entry;
}

/** Residuals, and RMSNorm in JavaScript, are measured up to this many elements: only 65536 x 768 of the goals has more. */
const MOST = 2 ** 24;

/** What our kernels compute on: all of a problem in one memory. */
function place({ rows, cols, x, dy, weight, bias }: Problem, runtime = Runtime.create()) {
  const { kernels, memory } = runtime;
  const tensor = (shape: number[], data?: Float32Array) => new Tensor(shape, data, { runtime });
  const shape = [rows, cols];
  const workspace = tensor([kernels.layerNormBackwardWorkspace(rows, cols) / 4]);
  const inputs = {
    x: tensor(shape, x),
    dy: tensor(shape, dy),
    weight: tensor([cols], weight),
    bias: tensor([cols], bias),
  };
  const outputs = { y: tensor(shape), dx: tensor(shape), dweight: tensor([cols]), dbias: tensor([cols]) };
  return { runtime, kernels, memory, ...inputs, ...outputs, mean: tensor([rows]), rstd: tensor([rows]), workspace };
}

function repeat(call: () => unknown): Entry["call"] {
  return (calls) => {
    for (let i = 0; i < calls; i++) call();
    return undefined;
  };
}

/** The end of the name of who does this work. */
export const variant = ({ rms, residual }: Work = {}) => `${rms ? ", RMSNorm" : ""}${residual ? ", residual" : ""}`;

/** @param apart a residual is added by a loop in SIMD in the same memory, before the kernel */
function kernel(pass: Pass, work: Work = {}, apart = false): Contender {
  const { rms, residual } = work;
  return {
    name: apart ? `addition, then kernel${variant({ ...work, residual: false })}` : `kernel${variant(work)}`,
    pass,
    work,
    ...(residual && { most: MOST }),
    prepare(problem) {
      const { rows, cols, eps } = problem;
      const t = place(problem);
      const { y, mean, rstd, x, weight, bias, dx, dweight, dbias, dy, workspace, kernels } = t;
      const [yp, mp, rp, xp, wp, bp] = [y, mean, rstd, x, weight, bias].map((tensor) => tensor.pointer) as Six;
      const [dxp, dwp, dbp, dyp, sp] = [dx, dweight, dbias, dy, workspace].map((tensor) => tensor.pointer) as Six;
      // The sum takes the place of dx.
      const [from, sum, other] = apart ? [dxp, 0, 0] : residual ? [xp, dxp, dyp] : [xp, 0, 0];
      const norm = rms
        ? () => kernels.rmsNormForward(yp, sum, rp, from, other, wp, rows, cols, eps)
        : () => kernels.layerNormForward(yp, sum, mp, rp, from, other, wp, bp, rows, cols, eps);
      let forward = norm;
      if (apart) {
        const { add } = limits(t.memory);
        forward = () => {
          add(dxp, xp, dyp, rows * cols);
          norm();
        };
      }
      const backward = rms
        ? () => kernels.rmsNormBackward(dxp, dwp, dyp, xp, rp, wp, 0, rows, cols, sp)
        : () => kernels.layerNormBackward(dxp, dwp, dbp, dyp, xp, mp, rp, wp, 0, rows, cols, sp);
      forward();
      const call = repeat(pass === "forward" ? forward : backward);
      return { call, result: () => (pass === "forward" ? y.data : dx.data), keep: t };
    },
  };
}

/** bench/earlier.ts */
function earlier(pass: Pass): Contender {
  return {
    name: "kernel of 2026-11-21",
    pass,
    prepare(problem) {
      const { rows, cols, eps } = problem;
      const t = place(problem);
      const kernels = earlierKernels(t.memory);
      const workspace = new Tensor([kernels.layerNormBackwardWorkspace(rows, cols) / 4], undefined, {
        runtime: t.runtime,
      });
      const [y, mean, rstd, x, weight, bias] = [t.y, t.mean, t.rstd, t.x, t.weight, t.bias].map(
        (v) => v.pointer,
      ) as Six;
      const [dx, dweight, dbias, dy] = [t.dx, t.dweight, t.dbias, t.dy].map((v) => v.pointer) as Six;
      const forward = () => kernels.layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps);
      const sums = workspace.size > 0 ? workspace.pointer : 0;
      const backward = () => kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, sums);
      forward();
      const call = repeat(pass === "forward" ? forward : backward);
      return { call, result: () => (pass === "forward" ? t.y.data : t.dx.data), keep: [t, workspace] };
    },
  };
}

type Six = [number, number, number, number, number, number];

const modules: WebAssembly.Module[] = [];

/** bench/limits, for an unshared memory or a shared one, compiled at its first use. */
function limitsModule(shared: boolean): WebAssembly.Module {
  const compile = () => {
    const root = fileURLToPath(new URL("..", import.meta.url));
    const asc = join(root, "node_modules/assemblyscript/bin/asc.js");
    const [source, binary] = ["bench/limits/index.ts", "build/bench/limits.wasm"];
    const memory = ["--importMemory", "--noExportMemory", "--initialMemory", "0"];
    const threads = ["--sharedMemory", "--maximumMemory", "65536", "--enable", "threads"];
    const args = [
      source,
      "-o",
      binary,
      "-t",
      "build/bench/limits.wat",
      "-O3",
      "--runtime",
      "stub",
      "--enable",
      "simd",
      ...memory,
    ];
    execFileSync(process.execPath, [asc, ...args, ...(shared ? threads : [])], { cwd: root });
    return new WebAssembly.Module(readFileSync(join(root, binary)));
  };
  modules[Number(shared)] ??= compile();
  return modules[Number(shared)] as WebAssembly.Module;
}

/** The functions of bench/limits over an unshared memory. */
function limits(memory: Runtime["memory"]) {
  const { exports } = new WebAssembly.Instance(limitsModule(false), { env: { memory: memory as WebAssembly.Memory } });
  return exports as Record<"copy" | "read" | "add" | "straight", (...args: number[]) => void>;
}

/** What the memory gives at most: x copied to y, or read. */
function limit(name: "copy" | "read", pass: Pass): Contender {
  return {
    name,
    pass,
    prepare(problem) {
      const t = place(problem);
      const { memory, x, y } = t;
      const { copy, read } = limits(memory);
      const [from, to, bytes] = [x.pointer, y.pointer, x.size * 4];
      return {
        call: repeat(name === "copy" ? () => copy(to, from, bytes) : () => read(from, bytes & ~63)),
        result: () => null,
        keep: t,
      };
    },
  };
}

/** Two passes, float32 sums over the whole row: what exactness costs ours. */
const straight: Contender = {
  name: "straight two-pass kernel",
  pass: "forward",
  prepare(problem) {
    const { rows, cols, eps } = problem;
    if (cols % 16 !== 0) throw new Error("it takes multiples of 16 columns");
    const t = place(problem);
    const { straight: kernel } = limits(t.memory);
    const [y, x, weight, bias] = [t.y, t.x, t.weight, t.bias].map((tensor) => tensor.pointer) as Six;
    return { call: repeat(() => kernel(y, x, weight, bias, rows, cols, eps)), result: () => t.y.data, keep: t };
  },
};

/** @param threads 0: an ordinary runtime */
function moduleOnTensors(pass: Pass, threads = 0): Contender {
  return {
    name: `module, Tensor with out${threads > 0 ? `, ${threads} threads` : ""}`,
    pass,
    async prepare(problem) {
      const threaded = threads > 0 ? await createThreadedRuntime({ threads }) : undefined;
      const { runtime, x, dy, y, dx } = place(problem, threaded);
      const ln = make(problem, runtime);
      const end = () => threaded?.close();
      if (pass === "forward") {
        ln.eval();
        return { call: repeat(() => ln.forward(x, { out: y })), result: () => y.data, end };
      }
      ln.forward(x, { out: y });
      return { call: repeat(() => ln.backward(dy, { out: dx })), result: () => dx.data, end };
    },
  };
}

/** x copied to y by two threads, each its half: what a second one adds to the memory's speed. */
function copyOnThreads(pass: Pass): Contender {
  return {
    name: "copy, 2 threads",
    pass,
    async prepare({ rows, cols, x }) {
      const bytes = Math.ceil((rows * cols) / 32) * 128; // each half a multiple of 64
      const [from, to] = [1024, 1024 + bytes];
      const pages = Math.ceil((to + bytes) / 65536);
      const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
      new Float32Array(memory.buffer, from, x.length).set(x);
      const module = limitsModule(true);
      const half = bytes / 2;
      const copyHalf = (start: number) => [to + start, from + start, half];
      const workerData = { module, memory, job: copyHalf(half) };
      const worker = new Worker(new URL("copier.mjs", import.meta.url), { workerData, execArgv: [] });
      await once(worker, "message");
      const { exports } = new WebAssembly.Instance(module, { env: { memory } });
      const copy = exports.copy as (...args: number[]) => void;
      const words = new Int32Array(memory.buffer, 0, 2);
      let turn = 0;
      const call = () => {
        turn = 1 - turn;
        set(words, 0, turn);
        copy(...copyHalf(0));
        until(words, 1, turn);
      };
      return { call: repeat(call), result: () => null, end: () => worker.terminate() };
    },
  };
}

/** The module on Float32Arrays, with `out` or without. */
function moduleOnArrays(pass: Pass, withOut: boolean): Contender {
  return {
    name: `module, Float32Array${withOut ? " with out" : ""}`,
    pass,
    prepare(problem) {
      const ln = make(problem, Runtime.create());
      const { x, dy } = problem;
      const out = new Float32Array(x.length);
      let last: Float32Array = x;
      if (pass === "forward") ln.eval();
      else ln.forward(x);
      const forward = withOut ? () => ln.forward(x, { out }) : () => ln.forward(x);
      const backward = withOut ? () => ln.backward(dy, { out }) : () => ln.backward(dy);
      const compute = pass === "forward" ? forward : backward;
      return {
        call: repeat(() => {
          last = compute();
        }),
        result: () => last,
      };
    },
  };
}

/** The module on Tensors, without `out`. */
function moduleOnNewTensors(pass: Pass): Contender {
  return {
    name: "module, Tensor",
    pass,
    prepare(problem) {
      const { runtime, x, dy } = place(problem);
      const ln = make(problem, runtime);
      if (pass === "forward") ln.eval();
      else ln.forward(x).dispose();
      const compute = pass === "forward" ? () => ln.forward(x) : () => ln.backward(dy);
      return {
        call: repeat(() => compute().dispose()),
        result() {
          const last = compute();
          const data = last.data.slice();
          last.dispose();
          return data;
        },
      };
    },
  };
}

function make({ cols, weight, bias, eps }: Problem, runtime: Runtime): LayerNorm {
  const ln = new LayerNorm(cols, { eps, runtime });
  ln.loadStateDict({ weight, bias });
  return ln;
}

/** The loops that a good programmer writes over Float32Arrays; a residual is added by one of its own. */
function javaScript(pass: Pass, work: Work = {}): Contender {
  const { rms, residual } = work;
  return {
    name: `plain JavaScript${variant(work)}`,
    pass,
    work,
    ...((rms || residual) && { most: MOST }),
    prepare({ rows, cols, x, dy, weight, bias, eps }) {
      const out = new Float32Array(rows * cols);
      const sum = residual ? new Float32Array(rows * cols) : x;
      const mean = new Float32Array(rows);
      const rstd = new Float32Array(rows);
      const dweight = new Float32Array(cols);
      const dbias = new Float32Array(cols);
      const norms = rms ? rmsNormLoops : layerNormLoops;
      const loops = norms({ rows, cols, x: sum, dy, weight, bias, eps }, { out, mean, rstd, dweight, dbias });
      const addThenNorm = () => {
        for (let i = 0; i < sum.length; i++) sum[i] = x[i]! + dy[i]!;
        loops.forward();
      };
      const forward = residual ? addThenNorm : loops.forward;
      forward();
      return { call: repeat(pass === "forward" ? forward : loops.backward), result: () => out };
    },
  };
}

type Outputs = Record<"out" | "mean" | "rstd" | "dweight" | "dbias", Float32Array>;

function layerNormLoops(
  { rows, cols, x, dy, weight, bias, eps }: Problem,
  { out, mean, rstd, dweight, dbias }: Outputs,
) {
  return {
    forward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        let sum = 0;
        for (let i = start; i < start + cols; i++) sum += x[i]!;
        const m = sum / cols;
        let squares = 0;
        for (let i = start; i < start + cols; i++) {
          const d = x[i]! - m;
          squares += d * d;
        }
        const r = 1 / Math.sqrt(squares / cols + eps);
        for (let i = 0; i < cols; i++) out[start + i] = (x[start + i]! - m) * r * weight[i]! + bias[i]!;
        mean[row] = m;
        rstd[row] = r;
      }
    },
    backward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        const m = mean[row]!;
        const r = rstd[row]!;
        let a = 0;
        let c = 0;
        for (let i = 0; i < cols; i++) {
          const d = dy[start + i]!;
          const h = (x[start + i]! - m) * r;
          const g = d * weight[i]!;
          a += g;
          c += g * h;
          dweight[i]! += d * h;
          dbias[i]! += d;
        }
        a /= cols;
        c = (c / cols) * r;
        for (let i = 0; i < cols; i++) {
          out[start + i] = r * (dy[start + i]! * weight[i]! - a - (x[start + i]! - m) * c);
        }
      }
    },
  };
}

function rmsNormLoops({ rows, cols, x, dy, weight, eps }: Problem, { out, rstd, dweight }: Outputs) {
  return {
    forward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        let squares = 0;
        for (let i = start; i < start + cols; i++) squares += x[i]! * x[i]!;
        const r = 1 / Math.sqrt(squares / cols + eps);
        for (let i = 0; i < cols; i++) out[start + i] = x[start + i]! * r * weight[i]!;
        rstd[row] = r;
      }
    },
    backward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        const r = rstd[row]!;
        let c = 0;
        for (let i = 0; i < cols; i++) {
          const d = dy[start + i]!;
          const h = x[start + i]! * r;
          c += d * weight[i]! * h;
          dweight[i]! += d * h;
        }
        c = (c / cols) * r;
        for (let i = 0; i < cols; i++) out[start + i] = r * (dy[start + i]! * weight[i]! - x[start + i]! * c);
      }
    },
  };
}

const NODES = 11;

/** onnxruntime: a whole call, or its kernel alone, from a chain of eleven nodes and one of one. */
function onnxruntime(
  from: string,
  options: object,
  alone: boolean,
  operator: Operator = "LayerNormalization",
): Contender {
  const work = OPERATORS[operator];
  const usual = operator === "LayerNormalization";
  return {
    name: `${from}${alone ? `, its ${usual ? "kernel" : operator}` : ""}`,
    pass: "forward",
    work,
    ...(!usual && { most: 2 ** 23 }),
    ...(!alone && { version: async () => (await load<Ort>(from)).env.versions.common }),
    async prepare({ rows, cols, x, dy, weight, bias, eps }) {
      const ort = await load<Ort>(from);
      if (from === "onnxruntime-web") ort.env.wasm.numThreads = 1;
      const session = (nodes: number) =>
        ort.InferenceSession.create(normModel(operator, rows, cols, eps, nodes), options);
      const [one, many] = [await session(1), alone ? await session(NODES) : null];
      const feeds = {
        X: new ort.Tensor("float32", x, [rows, cols]),
        ...(work.residual && { Skip: new ort.Tensor("float32", dy, [rows, cols]) }),
        Scale: new ort.Tensor("float32", weight, [cols]),
        ...(!work.rms && { B: new ort.Tensor("float32", bias, [cols]) }),
      };
      const singles: number[] = [];
      const chains: number[] = [];
      const timed = async (session: typeof one, calls: number, times: number[]) => {
        const start = performance.now();
        for (let i = 0; i < calls; i++) await session.run(feeds);
        times.push((performance.now() - start) / calls);
      };
      // The fastest chain less the fastest single call, and so on up to the median: a difference within a round is mostly noise.
      const differences = () => {
        for (const times of [singles, chains]) times.sort((a, b) => a - b);
        return chains.slice(0, Math.ceil(chains.length / 2)).map((time, i) => (time - singles[i]!) / (NODES - 1));
      };
      return {
        async call(calls) {
          await timed(one, calls, singles);
          if (many) await timed(many, calls, chains);
          return undefined;
        },
        ...(many && { times: differences }),
        result: async () => (await one.run(feeds)).Y.data,
        async end() {
          await one.release();
          await many?.release();
        },
      };
    },
  };
}

const onnxruntimes = (from: string, options: object): Contender[] => [
  onnxruntime(from, options, false),
  ...(Object.keys(OPERATORS) as Operator[]).map((operator) => onnxruntime(from, options, true, operator)),
];

function tfjs(backend: "wasm" | "cpu"): Contender {
  return {
    name: `tfjs, ${backend}`,
    pass: "forward",
    version: async () => (await load<Tf>("@tensorflow/tfjs")).version_core,
    most: 2 ** 20,
    async prepare({ rows, cols, x, weight, bias, eps }) {
      const tf = await loadTf(backend);
      const layer = tf.layers.layerNormalization({ axis: -1, epsilon: eps });
      const input = tf.tensor2d(x, [rows, cols]);
      layer.apply(input).dispose(); // which makes its weights
      layer.setWeights([tf.tensor1d(weight), tf.tensor1d(bias)]);
      const once = async () => {
        const y = layer.apply(input);
        const data = await y.data();
        y.dispose();
        return data;
      };
      return {
        async call(calls) {
          await tf.setBackend(backend);
          for (let i = 0; i < calls; i++) await once();
          return undefined;
        },
        result: once,
        end: () => input.dispose(),
      };
    },
  };
}

interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): string;
  jit<F>(f: F): F;
  nn: { standardize(x: JaxArray, axis: number, options: { epsilon: number }): JaxArray };
  numpy: { array(data: Float32Array, options: { shape: number[] }): JaxArray };
}

interface JaxArray {
  ref: JaxArray;
  mul(other: JaxArray): JaxArray;
  add(other: JaxArray): JaxArray;
  data(): Promise<Float32Array>;
  blockUntilReady(): Promise<JaxArray>;
  dispose(): void;
}

const jax: Contender = {
  name: "jax-js, wasm",
  pass: "forward",
  async prepare({ rows, cols, x, weight, bias, eps }) {
    const { init, defaultDevice, jit, nn, numpy } = await load<Jax>("@jax-js/jax");
    await init("wasm");
    defaultDevice("wasm");
    const f = jit((x: JaxArray, weight: JaxArray, bias: JaxArray) =>
      nn.standardize(x, -1, { epsilon: eps }).mul(weight).add(bias),
    );
    const inputs = [
      numpy.array(x, { shape: [rows, cols] }),
      ...[weight, bias].map((v) => numpy.array(v, { shape: [cols] })),
    ];
    const [a, b, c] = inputs as [JaxArray, JaxArray, JaxArray];
    return {
      async call(calls) {
        for (let i = 0; i < calls; i++) {
          const y = await f(a.ref, b.ref, c.ref).blockUntilReady();
          y.dispose();
        }
        return undefined;
      },
      result: () => f(a.ref, b.ref, c.ref).data(),
      end() {
        for (const input of inputs) input.dispose();
      },
    };
  },
};

/** A process for both passes, made at its first use. */
function native(name: string, start: () => Native, version?: () => string): Contender[] {
  let process: Native | undefined;
  let loaded: Problem | undefined;
  return (["forward", "backward"] as const).map((pass) => ({
    name,
    pass,
    ...(version && { version }),
    async prepare(problem) {
      process ??= start();
      const server = process;
      if (loaded !== problem) await server.load(problem);
      loaded = problem;
      await server.time("forward", 1); // for the statistics that backward reads
      return {
        call: (calls) => server.time(pass, calls),
        async result() {
          await server.time(pass, 1);
          const { y, dx } = await server.results(problem);
          return pass === "forward" ? y : dx;
        },
        gradients: () => server.results(problem),
      };
    },
  }));
}

/** A library of Python. */
function python(name: string, library: string): Contender[] {
  const start = () => {
    const [command, ...args] = pythonRival(library).command;
    return new Native(command, args);
  };
  return native(name, start, () => pythonRival(library).version);
}

/** One thread of a runtime of several, two, and all there are. */
const THREADS = [...new Set([1, 2, availableParallelism()])];

const RESIDUAL: Work[] = [{ residual: true }, { rms: true, residual: true }];

export const CONTENDERS: Contender[] = [
  ...(["forward", "backward"] as const).flatMap((pass) => [
    kernel(pass),
    earlier(pass),
    moduleOnTensors(pass),
    ...THREADS.map((threads) => moduleOnTensors(pass, threads)),
    moduleOnNewTensors(pass),
    moduleOnArrays(pass, true),
    moduleOnArrays(pass, false),
    kernel(pass, { rms: true }),
    ...(pass === "forward" ? RESIDUAL.flatMap((work) => [kernel(pass, work), kernel(pass, work, true)]) : []),
    limit("copy", pass),
    copyOnThreads(pass),
    limit("read", pass),
    javaScript(pass),
    javaScript(pass, { rms: true }),
    ...(pass === "forward" ? RESIDUAL.map((work) => javaScript(pass, work)) : []),
  ]),
  straight,
  ...onnxruntimes("onnxruntime-web", { executionProviders: ["wasm"] }),
  tfjs("wasm"),
  tfjs("cpu"),
  jax,
  ...onnxruntimes("onnxruntime-node", { intraOpNumThreads: 1, interOpNumThreads: 1 }),
  ...python("PyTorch CPU", "pytorch"),
  ...python("Flax CPU", "flax"),
  ...python("Keras CPU", "keras"),
  ...native("C, -O3", () => new Native(compileC("c", []))),
  ...native("C, -O3 -march=native -ffast-math", () => new Native(compileC("c-fast", ["-march=native", "-ffast-math"]))),
  ...native("C, AVX2 by hand", () => new Native(compileC("c-avx2", ["-DAVX2", "-mavx2", "-mfma"]))),
];
