// Calls the backward kernels in an arena, with statistics rounded from float64.

import { expect } from "vitest";
import { Arena, normal } from "./helpers.js";
import { type Case, type Results, referenceForward } from "./reference.js";
import { expectWithin } from "./within.js";

export interface Given {
  norm?: "layerNorm" | "rmsNorm";
  rows: number;
  cols: number;
  x?: ArrayLike<number>;
  dy?: ArrayLike<number>;
  weight?: ArrayLike<number> | null;
  add?: ArrayLike<number> | null;
  eps?: number;
  /** Those that are not wanted are false. */
  wanted?: { dx?: boolean; dweight?: boolean; dbias?: boolean };
  /** What dx is written over. */
  over?: "dy" | "add";
  /** What dweight and dbias hold before: of N(0, 1), or 0. */
  fresh?: boolean;
  misalignment?: number;
  workspace?: boolean;
  /** The rows of each call of the kernel for some rows, instead of one call for all. */
  split?: readonly number[];
}

interface Run {
  input: Case & { x: ArrayLike<number>; dy: ArrayLike<number> };
  before: { dweight: Float32Array; dbias: Float32Array };
  got: Partial<Record<keyof Results, Float32Array>>;
}

export function run(build: string, given: Given): Run {
  const { norm = "layerNorm", rows, cols, add = null, eps = 1e-5, wanted = {}, over, fresh = false, split } = given;
  const { misalignment = 0, workspace = true } = given;
  const size = rows * cols;
  const { x = normal(size, 1), dy = normal(size, 2), weight = normal(cols, 3) } = given;
  const input = { norm, x, dy, weight, rows, cols, eps };
  const { mean, rstd } = referenceForward(input);
  const start = (seed: number) => (fresh ? new Float32Array(cols) : normal(cols, seed));
  const before = { dweight: start(4), dbias: start(5) };
  const centered = norm === "layerNorm";

  const arena = new Arena(build, 4 * size + 2 * rows + 64 * cols + 6 * cols * Math.ceil(rows / 96), misalignment);
  const { kernels } = arena;
  const inputs = { dy: arena.input(dy), add: arena.input(add) };
  if (over) arena.allow(inputs[over], size);
  const dxAt = over ? inputs[over] : arena.output(size, wanted.dx);
  const dweightAt = arena.output(cols, wanted.dweight, before.dweight);
  const dbiasAt = arena.output(cols, centered && (wanted.dbias ?? true), before.dbias);
  const xAt = arena.input(x);
  const meanAt = centered ? arena.input(mean) : 0;
  const rstdAt = arena.input(rstd);
  const weightAt = arena.input(weight);
  const bytes = split ? kernels.sumsWorkspace(rows, cols) : kernels[`${norm}BackwardWorkspace`](rows, cols);
  const room = arena.output(bytes / 4, workspace);
  arena.seal();
  const call = (name: string, first: number, count: number, ...rest: number[]) => {
    const [row, at] = [first * 4, first * cols * 4];
    const head = [dxAt && dxAt + at, dweightAt, ...(centered ? [dbiasAt] : []), inputs.dy + at, xAt + at];
    const stats = [...(centered ? [meanAt + row] : []), rstdAt + row, weightAt, inputs.add && inputs.add + at];
    const kernel = kernels[name as "layerNormBackward"] as (...args: number[]) => void;
    kernel(...head, ...stats, count, cols, room, ...rest);
  };
  if (split) {
    let first = 0;
    for (const count of split) {
      call(`${norm}BackwardRows`, first, count, first, rows);
      first += count;
    }
    kernels.addSums(dweightAt, dbiasAt, rows, cols, room);
  } else call(`${norm}Backward`, 0, rows);
  expect(arena.strayWrite()).toBe(-1);
  const got = {
    ...(dxAt && { dx: arena.floats(dxAt, size) }),
    ...(dweightAt && { dweight: arena.floats(dweightAt, cols) }),
    ...(dbiasAt && { dbias: arena.floats(dbiasAt, cols) }),
  };
  arena.dispose();
  return { input, before, got };
}

/** Expects all that was wanted to be within the limits, gradients added to what was there. */
export function expectMatch({ input, before, got }: Run, share = 1): void {
  expectWithin(got, input, { before, share });
}
