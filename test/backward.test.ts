// Backward on ordinary inputs, with every set of operands, and what it promises of bits: of rows in any batch, of rows that
// come some at a time, and of additions to what is there.

import { describe, expect, test } from "vitest";
import { BUILDS, moduleOf } from "./builds.js";
import { Arena, COLS, normal, ROWS, uniform } from "./helpers.js";
import { machineOf } from "./recipe.js";
import { type Case, type Results, referenceForward } from "./reference.js";
import { expectWithin } from "./within.js";

interface Given extends Omit<Partial<Case>, "rows" | "cols"> {
  rows: number;
  cols: number;
  add?: ArrayLike<number>;
  /** Those that are not wanted are false. */
  wanted?: Partial<Record<"dx" | "dweight" | "dbias", boolean>>;
  /** What dx is written over. */
  over?: "dy" | "add";
  /** Whether dweight and dbias are 0 before, not of N(0, 1). */
  fresh?: boolean;
  misalignment?: number;
  workspace?: boolean;
  /** The rows of each call of the kernel for some rows, instead of one call for all. */
  split?: readonly number[];
}

/** Calls the kernels in an arena, with statistics rounded from float64. */
function run(build: string, given: Given) {
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
  const got: Partial<Record<keyof Results, Float32Array>> = {
    ...(dxAt && { dx: arena.floats(dxAt, size) }),
    ...(dweightAt && { dweight: arena.floats(dweightAt, cols) }),
    ...(dbiasAt && { dbias: arena.floats(dbiasAt, cols) }),
  };
  arena.dispose();
  return { input, before, got };
}

/** Expects all that was wanted to be within the limits, gradients added to what was there. */
function expectMatch({ input, before, got }: ReturnType<typeof run>, share = 1): void {
  expectWithin(got, input, { before, share });
}

const NORMS = ["layerNorm", "rmsNorm"] as const;
const SUITES = BUILDS.flatMap((build) => NORMS.map((norm) => [norm, build] as const));

/** The scale and offset of rows of a kind, where they are not 1 and 0. */
const KINDS: Record<string, [number, number]> = { f: [1, 100], o: [1, 1e6], h: [1e37, 0], t: [1e-20, 0], c: [0, 3] };

/** Rows of a kind each: near zero, with a mean of two floats, out of range for that, huge, tiny, constant, with an outlier. */
function mixed(kinds: string, cols: number): Float32Array<ArrayBuffer> {
  const x = normal(kinds.length * cols, 1);
  for (const [row, kind] of [...kinds].entries()) {
    const [scale, offset] = KINDS[kind] ?? [1, 0];
    const values = x.subarray(row * cols, (row + 1) * cols);
    values.set(values.map((value, i) => (kind === "s" && i === 1 ? 30 : value * scale + offset)));
  }
  return x;
}

describe.each(SUITES)("backward of %s, %s build", (norm, build) => {
  const part = (values: ArrayLike<number>, row: number, cols: number) =>
    (values as Float32Array).slice(row * cols, (row + 1) * cols);

  describe("matches the float64 reference", () => {
    for (const cols of COLS) {
      for (const rows of ROWS) {
        test(`rows=${rows} cols=${cols}`, () => expectMatch(run(build, { norm, rows, cols }), 0.35));
      }
    }
  });

  describe("takes every combination of absent operands", () => {
    const BOTH = [true, false];
    const ofBias = norm === "layerNorm" ? BOTH : [false];
    const sets = BOTH.flatMap((weight) =>
      BOTH.flatMap((dx) => BOTH.flatMap((dweight) => ofBias.map((dbias) => ({ weight, dx, dweight, dbias })))),
    );
    test.each(sets)("weight=$weight dx=$dx dweight=$dweight dbias=$dbias", ({ weight, ...wanted }) => {
      const absent = weight ? {} : { weight: null };
      for (const offset of [0, 1000, 1e6]) {
        for (const cols of [15, 71, 300]) {
          const result = run(build, { norm, rows: 3, cols, x: normal(3 * cols, 6, offset), ...absent, wanted });
          expectMatch(result);
          expect(Object.keys(result.got)).toEqual(Object.keys(wanted).filter((name) => wanted[name as "dx"]));
        }
      }
    });
  });

  describe("takes rows of every kind in one call, with dx to the bits of each alone", () => {
    // Columns to either side of the steps and of a block of the sums.
    for (const kinds of ["n", "f", "nnfonhnntnc", "hnsfn", "ofcht"]) {
      for (const cols of [3, 7, 8, 12, 15, 16, 24, 31, 32, 33, 40, 64, 256, 260, 777]) {
        test(`rows=${kinds} cols=${cols}`, () => {
          const rows = kinds.length;
          const given = { norm, rows, cols, x: mixed(kinds, cols), misalignment: 4 };
          const all = run(build, given);
          expectMatch(all);
          for (let row = 0; row < rows; row++) {
            const [x, dy] = [part(all.input.x, row, cols), part(all.input.dy, row, cols)];
            const alone = run(build, { norm, rows: 1, cols, x, dy });
            expectMatch(alone);
            expect(alone.got.dx).toEqual(part(all.got.dx!, row, cols));
          }
          expect(run(build, { ...given, over: "dy" }).got).toEqual(all.got);
          const { dweight } = run(build, { ...given, wanted: { dx: false, dbias: false } }).got;
          expect(dweight).toEqual(all.got.dweight);
          const { dbias } = run(build, { ...given, wanted: { dx: false, dweight: false } }).got;
          expect(dbias).toEqual(all.got.dbias);
          const { dx } = run(build, { ...given, wanted: { dweight: false, dbias: false }, workspace: false }).got;
          expect(dx).toEqual(all.got.dx);
          expectMatch(run(build, { ...given, weight: null }));

          const add = normal(rows * cols, 8);
          const sum = all.got.dx!.map((value, i) => value + add[i]!);
          expect(run(build, { ...given, add }).got).toEqual({ ...all.got, dx: sum });
          expect(run(build, { ...given, add, over: "add" }).got.dx).toEqual(sum);
        });
      }
    }
  });

  describe("sums over rows of any number", () => {
    // To either side of a group, of the least chunk, and of 32 of these, beyond which a chunk is longer.
    for (const rows of [1, 7, 8, 9, 15, 16, 17, 95, 96, 97, 193, 3072, 3073, 3300]) {
      for (const cols of rows < 2000 ? [1, 3, 4, 21, 256] : [3]) {
        test(`rows=${rows} cols=${cols}, with the same bits for some groups at a time`, () => {
          const given = { norm, rows, cols, misalignment: 4 };
          const all = run(build, given);
          expectMatch(all);
          const group = machineOf(moduleOf(build)).kernels.sumsGroup();
          const next = uniform(9);
          for (const most of [1, 5, 60]) {
            const split: number[] = [];
            for (let left = rows; left > 0; left -= split.at(-1)!)
              split.push(Math.min(left, group * Math.ceil(next() * most)));
            expect(run(build, { ...given, split }).got).toEqual(all.got);
          }
        });
      }
    }

    test("of one row to the bits of a group of it, wherever it is", () => {
      for (const kind of "nfohtcs") {
        for (const cols of [5, 24, 37]) {
          for (const absent of [{}, { weight: null }]) {
            const given = { norm, rows: 1, cols, x: mixed(kind, cols), ...absent };
            expect(run(build, { ...given, split: [1] }).got).toEqual(run(build, given).got);
          }
        }
      }
    });

    test("says how much workspace that takes: a slot for one chunk, two for more", () => {
      const { kernels } = machineOf(moduleOf(build));
      expect(kernels[`${norm}BackwardWorkspace`](96, 1000)).toBe(32 * 1000);
      for (const rows of [97, 193]) expect(kernels[`${norm}BackwardWorkspace`](rows, 1000)).toBe(2 * 32 * 1000);
      expect([0, 96, 97, 3072, 3073].map((rows) => kernels.sumsChunk(rows))).toEqual([96, 96, 96, 96, 112]);
      expect([0, 96, 97, 3072, 3073].map((rows) => kernels.sumsWorkspace(rows, 10) / 320)).toEqual([0, 1, 2, 32, 28]);
    });

    test("65536 rows of N(0, 1), and of a constant", () => {
      const [rows, cols] = [65536, 16];
      for (const dy of [normal(rows * cols, 2), new Float32Array(rows * cols).fill(0.1)]) {
        expectMatch(run(build, { norm, rows, cols, dy, wanted: { dx: false }, fresh: true }), 0.5);
      }
    });
  });

  test.each([64, 100, 768, 4096])("holds for dy that make dx vanish, constant or xhat, cols=%i", (cols) => {
    const rows = 5;
    const x = normal(rows * cols, 14);
    const { xhat } = referenceForward({ norm, x, rows, cols, eps: 1e-5 });
    const constant = xhat.map((_, i) => 1 + Math.sin(Math.floor(i / cols)) / 2);
    for (const dy of [xhat, constant].map((values) => Float32Array.from(values))) {
      expectMatch(run(build, { norm, rows, cols, x, dy, weight: null }), 0.35);
    }
  });

  test.each([4, 8, 12])("takes pointers that are %i bytes off a multiple of 16", (misalignment) => {
    const given = { norm, rows: 3, cols: 65 };
    expect(run(build, { ...given, misalignment }).got).toEqual(run(build, given).got);
  });

  test("takes thousands of columns, and a tail", () => {
    expectMatch(run(build, { norm, rows: 2, cols: 2 * 4096 + 21 }), 0.35);
  });

  test("gives NaN in the row of a NaN, and leaves the other rows of dx alone", () => {
    const given = { norm, rows: 3, cols: 37 };
    const clean = run(build, given);
    const x = Float32Array.from(clean.input.x);
    x[37 + 20] = NaN;
    const { dx, dweight, dbias } = run(build, { ...given, x }).got;
    expect(part(dx!, 1, 37).every(Number.isNaN)).toBe(true);
    for (const row of [0, 2]) expect(part(dx!, row, 37)).toEqual(part(clean.got.dx!, row, 37));
    expect(dweight!.every(Number.isNaN)).toBe(true);
    // The row is computed in double, which rounds its part of dbias less.
    if (dbias) expectMatch({ ...clean, got: { dbias } });
  });
});

test.each(BUILDS)("zero is the gradient of the weight of a single column, %s build", (build) => {
  const { got, before } = run(build, { rows: 3, cols: 1, x: new Float32Array(3).fill(1e6) });
  expect(got.dweight).toEqual(before.dweight);
  expect([...got.dx!]).toEqual([0, 0, 0]);
});

test.each(NORMS)("backward of %s gives the same bits in every build", (norm) => {
  const given = { norm, rows: 11, cols: 71, x: mixed("nnfonhnntnc", 71) };
  const [first, ...others] = BUILDS.map((build) => run(build, given).got);
  for (const other of others) expect(other).toEqual(first);
});
