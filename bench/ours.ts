// How our kernels and module are measured, and the limits of the memory.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { LayerNorm, Runtime, Tensor } from "../dist/index.js";
import { createThreadedRuntime } from "../dist/threads.js";
import { set, until } from "./copier.mjs";
import { type Entry, kernelCalls, type Pass, type Prepare, type Problem, place } from "./problem.js";
import { repeat } from "./race.js";
import { earlierKernels, limits, moduleOf } from "./wasm.js";

type Placed = ReturnType<typeof place>;

/** Of two calls on Tensors, the one of a pass. Forward goes first, for the statistics. */
function entryOf(pass: Pass, placed: Placed, forward: () => unknown, backward: () => unknown, keep?: object): Entry {
  forward();
  const { y, dx } = placed.tensors;
  const [call, out] = pass === "forward" ? [forward, y] : [backward, dx];
  return { call: repeat(call), result: () => out.data, keep: [placed, keep] };
}

export const kernel: Prepare = (problem, pass, work) => {
  const { placed, forward, backward } = kernelCalls(problem, work);
  return entryOf(pass, placed, forward, backward);
};

/** A residual is added by a loop in SIMD in the same memory, before the kernel. */
export const additionThenKernel: Prepare = (problem, pass, { rms }) => {
  const { placed, forward, backward } = kernelCalls(problem, rms ? { rms } : {}, "dx");
  const { add } = limits(placed.runtime.memory);
  const { dx: sum, x, dy } = placed.at;
  const addThenNorm = () => {
    add(sum, x, dy, problem.rows * problem.cols);
    forward();
  };
  return entryOf(pass, placed, addThenNorm, backward);
};

/** The calls of the kernel of 2026-11-21. */
export function earlierCalls({ rows, cols, eps }: Problem, { runtime, at }: Placed) {
  const kernels = earlierKernels(runtime.memory);
  const workspace = new Tensor([kernels.layerNormBackwardWorkspace(rows, cols) / 4], undefined, { runtime });
  const { y, mean, rstd, x, weight, bias, dx, dweight, dbias, dy } = at;
  const sums = workspace.size > 0 ? workspace.pointer : 0;
  const forward = () => kernels.layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps);
  const backward = () => kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, sums);
  return { workspace, forward, backward };
}

export const earlier: Prepare = (problem, pass) => {
  const placed = place(problem);
  const { workspace, forward, backward } = earlierCalls(problem, placed);
  return entryOf(pass, placed, forward, backward, workspace);
};

/** Two passes, float32 sums over the whole row: what exactness costs ours. */
export const straight: Prepare = (problem, pass) => {
  const { rows, cols, eps } = problem;
  if (cols % 16 !== 0) throw new Error("it takes multiples of 16 columns");
  const placed = place(problem);
  const { straight } = limits(placed.runtime.memory);
  const { y, x, weight, bias } = placed.at;
  const forward = () => straight(y, x, weight, bias, rows, cols, eps);
  return entryOf(pass, placed, forward, forward);
};

/** What the memory gives at most: x copied to y, or read. */
export const limit =
  (name: "copy" | "read"): Prepare =>
  (problem) => {
    const placed = place(problem);
    const { copy, read } = limits(placed.runtime.memory);
    const { x, y } = placed.at;
    const bytes = problem.x.length * 4;
    const call = name === "copy" ? () => copy(y, x, bytes) : () => read(x, bytes & ~63);
    return { call: repeat(call), result: () => null, keep: placed };
  };

/** x copied to y by two threads, each its half: what a second one adds to the memory's speed. */
export const copyOnThreads: Prepare = async ({ x }) => {
  const half = Math.ceil(x.length / 32) * 64;
  const [from, to] = [1024, 1024 + 2 * half];
  const initial = Math.ceil((to + 2 * half) / 65536);
  const memory = new WebAssembly.Memory({ initial, maximum: 65536, shared: true });
  new Float32Array(memory.buffer, from, x.length).set(x);
  const workerData = { module: moduleOf("sharedLimits"), memory, job: [to + half, from + half, half] };
  const worker = new Worker(new URL("copier.mjs", import.meta.url), { workerData, execArgv: [] });
  await once(worker, "message");
  const { copy } = limits(memory, "sharedLimits");
  const words = new Int32Array(memory.buffer, 0, 2);
  let turn = 0;
  const call = () => {
    turn = 1 - turn;
    set(words, 0, turn);
    copy(to, from, half);
    until(words, 1, turn);
  };
  return { call: repeat(call), result: () => null, end: () => worker.terminate() };
};

function moduleFor({ cols, weight, bias, eps }: Problem, pass: Pass, runtime: Runtime): LayerNorm {
  const ln = new LayerNorm(cols, { eps, runtime });
  ln.loadStateDict({ weight, bias });
  return pass === "forward" ? ln.eval() : ln;
}

/** The calls of the module on Tensors, with `out`. Forward goes first. */
export function moduleCalls(problem: Problem, pass: Pass, runtime = Runtime.create()) {
  const placed = place(problem, runtime);
  const { x, dy, y, dx } = placed.tensors;
  const ln = moduleFor(problem, pass, runtime);
  ln.forward(x, { out: y });
  return { placed, forward: () => ln.forward(x, { out: y }), backward: () => ln.backward(dy, { out: dx }) };
}

/** @param threads 0: an ordinary runtime */
export const onTensors =
  (threads = 0): Prepare =>
  async (problem, pass) => {
    const threaded = threads > 0 ? await createThreadedRuntime({ threads }) : undefined;
    const { placed, forward, backward } = moduleCalls(problem, pass, threaded);
    return { ...entryOf(pass, placed, forward, backward), end: () => threaded?.close() };
  };

/** The module on Tensors, without `out`. */
export const onNewTensors: Prepare = (problem, pass) => {
  const { runtime, tensors } = place(problem);
  const { x, dy } = tensors;
  const ln = moduleFor(problem, pass, runtime);
  if (pass === "backward") ln.forward(x).dispose();
  const compute = pass === "forward" ? () => ln.forward(x) : () => ln.backward(dy);
  return { call: repeat(() => compute().dispose()), result: () => compute().data.slice() };
};

export const onArrays =
  (withOut: boolean): Prepare =>
  (problem, pass) => {
    const { x, dy } = problem;
    const ln = moduleFor(problem, pass, Runtime.create());
    const out = new Float32Array(x.length);
    const forward = withOut ? () => ln.forward(x, { out }) : () => ln.forward(x);
    const backward = withOut ? () => ln.backward(dy, { out }) : () => ln.backward(dy);
    let last = forward();
    const compute = pass === "forward" ? forward : backward;
    const call = repeat(() => {
      last = compute();
    });
    return { call, result: () => last };
  };
