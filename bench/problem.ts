// What contenders compute: one shape with its data, and how it lies in the memory of a runtime. Runs in every engine.

import { Runtime, Tensor } from "../dist/index.js";
import { normal } from "../test/random.js";
import type { Runner } from "./race.js";

export const PASSES = ["forward", "backward"] as const;
export type Pass = (typeof PASSES)[number];

/** Which norm, and of what: with a residual, which dy stands for, of x + dy; the sum is then a result as well. */
export interface Work {
  rms?: boolean;
  residual?: boolean;
}

/** A contender on one shape. */
export interface Entry extends Runner {
  /** y or dx, to be verified; null for a limit, which computes nothing. */
  result(): Promise<Float32Array | null> | Float32Array | null;
  /** dweight and dbias, where backward tells them: of one call from Python, of all calls from C. */
  gradients?(): Promise<Record<"dweight" | "dbias", Float32Array>>;
  /** The times of all rounds, sorted, where they are not those of the calls. */
  times?(): number[];
  /** The version of a library. */
  version?: string;
  /** Tensors whose addresses are used. */
  keep?: object;
  end?(): unknown;
}

/** How a contender is made on one shape. */
export type Prepare = (problem: Problem, pass: Pass, work: Work) => Promise<Entry> | Entry;

export type Problem = ReturnType<typeof problemOf>;

/** One shape with its data, N(0, 1), with a weight and a bias. */
export function problemOf(rows: number, cols: number) {
  const [x, dy] = [normal(rows * cols, 1), normal(rows * cols, 2)];
  return { rows, cols, x, dy, weight: normal(cols, 3, 1, 0.5), bias: normal(cols, 4), eps: 1e-5 };
}

/** A problem and room for its results as Tensors, and their pointers. A Tensor that is dropped is freed: keep them. */
export function place({ rows, cols, x, dy, weight, bias }: Problem, runtime = Runtime.create()) {
  const tensor = (shape: number[], data?: Float32Array) => new Tensor(shape, data, { runtime });
  const shape = [rows, cols];
  const tensors = {
    workspace: tensor([runtime.kernels.layerNormBackwardWorkspace(rows, cols) / 4]),
    ...{ x: tensor(shape, x), dy: tensor(shape, dy), weight: tensor([cols], weight), bias: tensor([cols], bias) },
    ...{ y: tensor(shape), dx: tensor(shape), dweight: tensor([cols]), dbias: tensor([cols]) },
    ...{ mean: tensor([rows]), rstd: tensor([rows]) },
  };
  const pointers = Object.entries(tensors).map(([name, { pointer }]) => [name, pointer]);
  return { runtime, tensors, at: Object.fromEntries(pointers) as Record<keyof typeof tensors, number> };
}

/** The calls of our kernels on a problem. The sum of a residual takes the place of dx, and may be there already. */
export function kernelCalls(problem: Problem, { rms, residual }: Work = {}, input: "x" | "dx" = "x") {
  const placed = place(problem);
  const { rows, cols, eps } = problem;
  const { kernels } = placed.runtime;
  const { y, mean, rstd, x, weight, bias, dx, dweight, dbias, dy, workspace } = placed.at;
  const from = placed.at[input];
  const [sum, other] = residual ? [dx, dy] : [0, 0];
  const forward = rms
    ? () => kernels.rmsNormForward(y, sum, rstd, from, other, weight, rows, cols, eps)
    : () => kernels.layerNormForward(y, sum, mean, rstd, from, other, weight, bias, rows, cols, eps);
  const backward = rms
    ? () => kernels.rmsNormBackward(dx, dweight, dy, x, rstd, weight, 0, rows, cols, workspace)
    : () => kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, 0, rows, cols, workspace);
  return { placed, forward, backward };
}
