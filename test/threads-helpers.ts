// What the tests of threads share: numbers, results as their bits, and the classes of workers.

import { LayerNorm, type Runtime, Tensor } from "layernorm-wasm";
import type { AnyWorker } from "layernorm-wasm/threads";
import { normal } from "./helpers.js";

export const numbers = normal(300_000, 1);

/** A copy of rows of the numbers, from the one at `at` on. */
export const rowsOf = (rows: number, cols: number, at = 0) => numbers.slice(at, at + rows * cols);

/** The same in a runtime; zeros where `at` is not given. */
export const tensorOf = (runtime: Runtime, rows: number, cols: number, at?: number) =>
  new Tensor([rows, cols], at === undefined ? undefined : rowsOf(rows, cols, at), { runtime });

/** The bits of an array, as few words as tell it from another. */
export function bits(values: Float32Array | Tensor): string {
  const { buffer } = (values instanceof Tensor ? values.data : values).slice();
  const words = new Uint32Array(buffer);
  let a = 1;
  let b = 0;
  for (const word of words) {
    a = (Math.imul(a, 31) + word) | 0;
    b = (b + a) | 0;
  }
  return `${words.length} ${a} ${b}`;
}

/**
 * The bits of all that a module's two passes give. They are called again at once: threads that sleep are woken for middling work only
 * where one call follows another.
 */
export function passes(runtime: Runtime, rows: number, cols: number, at = 0, times = 3): string[] {
  using ln = new LayerNorm(cols, { runtime });
  ln.weight!.data.set(rowsOf(1, cols, at + 1));
  ln.bias!.data.set(rowsOf(1, cols, at + 2));
  using x = tensorOf(runtime, rows, cols, at + 4);
  using dy = tensorOf(runtime, rows, cols, at + 5);
  using y = tensorOf(runtime, rows, cols);
  using dx = tensorOf(runtime, rows, cols);
  for (let i = 0; i < times; i++) ln.forward(x, { out: y });
  for (let i = 0; i < times; i++) {
    ln.weight!.grad.set(rowsOf(1, cols, at + 3));
    ln.bias!.grad.fill(0);
    ln.backward(dy, { out: dx });
  }
  return [y.data, dx.data, ln.weight!.grad, ln.bias!.grad].map(bits);
}

export type WorkerClass = { new (url: URL, options?: { type: "module" }): AnyWorker; prototype: AnyWorker };

/** Those there are: `Worker`, Node's, or both. */
export function workerClasses(): WorkerClass[] {
  const { Worker, process } = globalThis as { Worker?: WorkerClass; process?: NodeJS.Process };
  const own = process?.getBuiltinModule?.("node:worker_threads").Worker as unknown as WorkerClass | undefined;
  return [Worker, own].filter((found) => found !== undefined);
}
