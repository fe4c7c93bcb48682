// The bench itself, in a worker, so that the page stays alive and can end it. Each contender is verified, then all take turns.

import { LayerNorm, Runtime, Tensor } from "layernorm-wasm";
import { createThreadedRuntime } from "layernorm-wasm/threads";
import { digest } from "../../test/digest.js";
import { normal } from "../../test/random.js";
import { referenceForward, unitsOff } from "../../test/reference.js";

declare const name: string;

export interface Task {
  rows: number;
  cols: number;
  tensorflow: boolean;
}

export interface Result {
  /** The fastest round of each, in milliseconds for a call. The first is ours on one thread. */
  times: { name: string; ms: number }[];
  digest: string;
}

/** What the worker posts. */
export type Message = { done: number; doing: string } | { result: Result } | { error: string };

/** One contender: a call, and what it computed. */
export interface Contender {
  name: string;
  call(): void;
  result(): Float32Array;
}

export interface Problem {
  rows: number;
  cols: number;
  x: Float32Array<ArrayBuffer>;
  weight: Float32Array<ArrayBuffer>;
  bias: Float32Array<ArrayBuffer>;
  eps: number;
}

const ROUNDS = 10;
const ROUND_MS = 12; // at least: the clocks of browsers are coarse
const SLOW_MS = 100; // a call from which a contender takes three rounds
const LIMIT = 2000; // what contenders are verified to, in units of 2^-23 of the largest |y|: some sum in float32

const post = (message: Message) => postMessage(message);

function ours(name: string, { cols, rows, x, weight, bias, eps }: Problem, runtime: Runtime): Contender {
  const ln = new LayerNorm(cols, { eps, runtime }).eval();
  ln.loadStateDict({ weight, bias });
  const from = new Tensor([rows, cols], x, { runtime });
  const out = new Tensor([rows, cols], undefined, { runtime });
  return { name, call: () => ln.forward(from, { out }), result: () => out.data };
}

function onArrays({ cols, x, weight, bias, eps }: Problem): Contender {
  const ln = new LayerNorm(cols, { eps }).eval();
  ln.loadStateDict({ weight, bias });
  const out = new Float32Array(x.length);
  return { name: "ours, Float32Arrays", call: () => ln.forward(x, { out }), result: () => out };
}

/** The loop that a good programmer writes. */
function javaScript({ rows, cols, x, weight, bias, eps }: Problem): Contender {
  const y = new Float32Array(x.length);
  const call = () => {
    for (let start = 0; start < rows * cols; start += cols) {
      let sum = 0;
      for (let i = 0; i < cols; i++) sum += x[start + i] as number;
      const mean = sum / cols;
      let squares = 0;
      for (let i = 0; i < cols; i++) {
        const difference = (x[start + i] as number) - mean;
        squares += difference * difference;
      }
      const rstd = 1 / Math.sqrt(squares / cols + eps);
      for (let i = 0; i < cols; i++) {
        y[start + i] = ((x[start + i] as number) - mean) * rstd * (weight[i] as number) + (bias[i] as number);
      }
    }
  };
  return { name: "plain JavaScript", call, result: () => y };
}

async function contenders(problem: Problem, tensorflow: boolean): Promise<Contender[]> {
  const all = [ours("ours, one thread", problem, Runtime.create())];
  if (crossOriginIsolated && navigator.hardwareConcurrency > 1) {
    const runtime = await createThreadedRuntime({ fallback: "single" });
    if (runtime.threads > 1) all.push(ours(`ours, ${runtime.threads} threads`, problem, runtime));
  }
  all.push(onArrays(problem), javaScript(problem));
  if (tensorflow) {
    post({ done: 0, doing: "Loading TensorFlow.js …" });
    const { tensorFlow } = await import("./bench-tensorflow.js");
    all.push(...(await tensorFlow(problem)));
  }
  return all;
}

function verify({ name, call, result }: Contender, expected: Float64Array, largest: number): void {
  call();
  const units = unitsOff(
    result(),
    expected,
    expected.map(() => largest),
  );
  if (!(units <= LIMIT)) throw new Error(`${name} is ${units.toFixed(0)} units off`);
}

/** The milliseconds of a call, over so many that they last a round; `entry.calls` is how many that were the last time. */
function time(entry: { call(): void; calls: number }): number {
  for (; ; entry.calls *= 2) {
    const start = performance.now();
    for (let i = 0; i < entry.calls; i++) entry.call();
    const ms = performance.now() - start;
    if (ms >= ROUND_MS) return ms / entry.calls;
  }
}

async function run({ rows, cols, tensorflow }: Task): Promise<Result> {
  const problem: Problem = {
    rows,
    cols,
    x: normal(rows * cols, 1),
    weight: normal(cols, 2, 1, 0.5),
    bias: normal(cols, 3),
    eps: 1e-5,
  };
  post({ done: 0, doing: "Starting …" });
  const all = await contenders(problem, tensorflow);
  const { y } = referenceForward(problem);
  const largest = y.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

  const entries = all.map((contender, i) => {
    post({ done: 0.05 + (0.15 * i) / all.length, doing: "Verifying …" });
    verify(contender, y, largest);
    const entry = { ...contender, calls: 1, rounds: ROUNDS, best: Infinity };
    if (time(entry) > SLOW_MS) entry.rounds = 3;
    return entry;
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, entry] of entries.entries()) {
      if (round >= entry.rounds) continue;
      post({ done: 0.2 + (0.6 * (round + i / entries.length)) / ROUNDS, doing: "Timing …" });
      entry.best = Math.min(entry.best, time(entry));
    }
  }
  post({ done: 0.8, doing: "Computing the golden digest …" });
  return { times: entries.map(({ name, best }) => ({ name, ms: best })), digest: await digest(Runtime.create()) };
}

// The task comes as the name of the worker: a message could arrive before this module has loaded.
run(JSON.parse(name)).then(
  (result) => post({ result }),
  (error: Error) => post({ error: error.message }),
);
