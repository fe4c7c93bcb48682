// An input of the kernels in few numbers, and how far they are off on it: what accuracy.test.ts names and scripts/search.ts finds.

import type { Kernels } from "../src/index.js";
import { bell, uniform } from "./helpers.js";
import { errorsOf, type Results, referenceForward } from "./reference.js";

/** Each number of a matrix is v * scale + offset + noise * N(0, 1), with v as `kind` says. */
export interface Pattern {
  /** runs: `values` over and over; xhat, sign: of dy, xhat and its sign; binades: of any size, `values[0]` powers of two about 1. */
  kind: "runs" | "bell" | "ramp" | "binades" | "xhat" | "sign";
  values?: readonly number[];
  /** How long the runs are, over and over; 1 when absent. */
  lengths?: readonly number[];
  scale?: number;
  offset?: number;
  noise?: number;
  /** Other runs from a column on. */
  rest?: { from: number; values: readonly number[]; lengths?: readonly number[] };
  /** Numbers that are set in each row. */
  spikes?: readonly (readonly [column: number, count: number, value: number])[];
  /** Factors of the rows, over and over. */
  factors?: readonly number[];
  /** So many columns each row lies behind the one before it, in runs and ramps. */
  turn?: number;
  /** Whether all rows are of the same random numbers. */
  equal?: boolean;
  seed?: number;
}

export interface Recipe {
  norm: "layerNorm" | "rmsNorm";
  rows: number;
  cols: number;
  eps: number;
  x: Pattern;
  /** Without it backward is not called. */
  dy?: Pattern;
  weight?: Pattern;
  bias?: Pattern;
  /** The gradients that are wanted; all when absent. */
  wanted?: (keyof Results)[];
}

type Input = ReturnType<typeof inputOf>;

const LARGEST = (2 - 2 ** -23) * 2 ** 127;

/** What stands where in runs of values. */
function runOf(values: readonly number[], lengths: readonly number[] = [1]): (at: number) => number {
  const period = lengths.reduce((sum, length) => sum + length, 0);
  return (at) => {
    let index = Math.floor(at / period) * lengths.length;
    for (let left = at % period; left >= lengths[index % lengths.length]!; index++)
      left -= lengths[index % lengths.length]!;
    return values[index % values.length]!;
  };
}

function matrix(pattern: Pattern, rows: number, cols: number, xhatOf?: () => Float64Array): Float32Array<ArrayBuffer> {
  const { kind, values = [0], lengths = [1], scale = 1, offset = 0, noise = 0 } = pattern;
  const { spikes = [], factors = [1], turn = 0, equal = false, seed = 1 } = pattern;
  const made = new Float32Array(rows * cols);
  const xhat = kind === "xhat" || kind === "sign" ? xhatOf?.() : undefined;
  let next = uniform(seed);
  const run = runOf(values, lengths);
  const { from = Infinity } = pattern.rest ?? {};
  const restRun = pattern.rest && runOf(pattern.rest.values, pattern.rest.lengths);
  for (let row = 0; row < rows; row++) {
    if (equal) next = uniform(seed);
    for (let i = 0; i < cols; i++) {
      const at = row * cols + i;
      let v = 0;
      if (kind === "runs") v = restRun && i >= from ? restRun(i - from) : run(i + row * turn);
      else if (kind === "bell") v = bell(next);
      else if (kind === "ramp") v = ((i + row * turn) % cols) / cols;
      else if (kind === "binades") v = (next() < 0.5 ? -1 : 1) * 2 ** ((next() - 0.5) * 2 * values[0]!);
      else if (kind === "xhat") v = xhat?.[at] || 0;
      else v = Math.sign(xhat?.[at] || 0);
      v = v * scale + offset;
      if (noise) v += noise * bell(next);
      for (const [start, count, value] of spikes) if (i >= start && i < start + count) v = value;
      v *= factors[row % factors.length]!;
      made[at] = Math.max(-LARGEST, Math.min(LARGEST, v));
    }
  }
  return made;
}

export function inputOf({ norm, rows, cols, eps, ...recipe }: Recipe) {
  const x = matrix(recipe.x, rows, cols);
  const dy = recipe.dy && matrix(recipe.dy, rows, cols, () => referenceForward({ norm, x, rows, cols, eps }).xhat);
  const weight = recipe.weight ? matrix(recipe.weight, 1, cols) : null;
  const bias = recipe.bias && norm === "layerNorm" ? matrix(recipe.bias, 1, cols) : null;
  return { norm, x, dy, weight, bias, rows, cols, eps };
}

export interface Machine {
  kernels: Kernels;
  memory: WebAssembly.Memory;
}

export function machineOf(module: WebAssembly.Module): Machine {
  const memory = new WebAssembly.Memory({ initial: 64 });
  return { kernels: new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels, memory };
}

/** What the kernels make of an input: forward, and backward from forward's statistics. They lie in the machine's memory. */
export function resultsOf({ kernels, memory }: Machine, input: Input, names: Recipe["wanted"]): Partial<Results> {
  const { norm, x, dy, weight, bias, rows, cols, eps } = input;
  const wanted = dy ? (names ?? ["dx", "dweight", "dbias"]) : [];
  const ofRms = norm === "rmsNorm";
  const size = rows * cols;
  const workspace = dy
    ? (ofRms ? kernels.rmsNormBackwardWorkspace : kernels.layerNormBackwardWorkspace)(rows, cols)
    : 0;
  const missing = 4 * (4 * size + 4 * cols + 2 * rows) + workspace + 256 - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));

  let end = 16;
  const place = (length: number): number => {
    end += length * 4;
    return end - length * 4;
  };
  const put = (values: ArrayLike<number> | null | undefined): number => {
    if (!values) return 0;
    const pointer = place(values.length);
    new Float32Array(memory.buffer, pointer, values.length).set(values);
    return pointer;
  };
  const zeros = (name: keyof Results): number => (wanted.includes(name) ? put(new Float32Array(cols)) : 0);
  const y = place(size);
  const mean = place(rows);
  const rstd = place(rows);
  const dx = wanted.includes("dx") ? place(size) : 0;
  const dweight = zeros("dweight");
  const dbias = ofRms ? 0 : zeros("dbias");
  const [dyAt, xAt, weightAt, biasAt] = [dy, x, weight, bias].map(put) as [number, number, number, number];
  const room = Math.ceil(end / 16) * 16;
  if (ofRms) kernels.rmsNormForward(y, 0, rstd, xAt, 0, weightAt, rows, cols, eps);
  else kernels.layerNormForward(y, 0, mean, rstd, xAt, 0, weightAt, biasAt, rows, cols, eps);
  if (dy && ofRms) kernels.rmsNormBackward(dx, dweight, dyAt, xAt, rstd, weightAt, 0, rows, cols, room);
  else if (dy) kernels.layerNormBackward(dx, dweight, dbias, dyAt, xAt, mean, rstd, weightAt, 0, rows, cols, room);

  const floats = (pointer: number, length: number) => new Float32Array(memory.buffer, pointer, length);
  return {
    y: floats(y, size),
    ...(!ofRms && { mean: floats(mean, rows) }),
    rstd: floats(rstd, rows),
    ...(dx && { dx: floats(dx, size) }),
    ...(dweight && { dweight: floats(dweight, cols) }),
    ...(dbias && { dbias: floats(dbias, cols) }),
  };
}

/** How far each result is off. */
export function measure(machine: Machine, recipe: Recipe): ReturnType<typeof errorsOf> {
  const input = inputOf(recipe);
  return errorsOf(resultsOf(machine, input, recipe.wanted), input);
}
