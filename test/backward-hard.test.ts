// Backward on inputs that are hard for float32, with statistics rounded from float64, and what both norms' kernels promise of
// `add`, of rows that come some at a time, and of rows in any batch.

import { describe, expect, test } from "vitest";
import { BUILDS } from "./builds.js";
import { Arena, normal, uniform } from "./helpers.js";
import { dxUnits, gradientUnits, referenceBackward, referenceForward } from "./reference.js";

interface Given {
  rows: number;
  cols: number;
  x: ArrayLike<number>;
  dy: ArrayLike<number>;
  weight?: ArrayLike<number> | null;
  add?: ArrayLike<number> | null;
  /** dx is `add` itself. */
  inPlace?: boolean;
  eps?: number;
  /** What the kernel is told: NaN where the caller doesn't know eps. */
  told?: number;
  /** The rows of each call of `layerNormBackwardRows`, instead of one call of `layerNormBackward`. */
  split?: number[];
  rms?: boolean;
}

/** 1 / sqrt(mean of squares + eps) of each row. */
function rmsOf({ rows, cols, x, eps = 1e-5 }: Given): Float64Array {
  return Float64Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < cols; i++) sum += x[row * cols + i]! ** 2;
    return 1 / Math.sqrt(sum / cols + eps);
  });
}

function run(build: string, given: Given) {
  const { rows, cols, x, dy, weight = null, add = null, inPlace = false, eps = 1e-5, split, rms = false } = given;
  const { told = eps } = given;
  const size = rows * cols;
  const input = { x, dy, weight, rows, cols, eps };
  const stats = rms ? { mean: null, rstd: rmsOf(given) } : referenceForward(input);
  const arena = new Arena(build, 4 * size + 2 * rows + 5 * cols + 4 * 1024 + 12 * cols * 40);
  const { kernels } = arena;
  const dyAt = arena.input(dy);
  const xAt = arena.input(x);
  const meanAt = arena.input(stats.mean);
  const rstdAt = arena.input(stats.rstd);
  const weightAt = arena.input(weight);
  const addAt = arena.input(add);
  const dxAt = inPlace ? addAt : arena.output(size);
  if (inPlace) arena.allow(addAt, size);
  const dweightAt = arena.output(cols, true, new Float32Array(cols));
  const dbiasAt = rms ? 0 : arena.output(cols, true, new Float32Array(cols));
  const one = rms ? kernels.rmsNormBackwardWorkspace : kernels.layerNormBackwardWorkspace;
  const workspaceAt = arena.output((split ? kernels.sumsWorkspace(rows, cols) : one(rows, cols)) / 4);
  arena.seal();
  const call = (start: number, count: number) => {
    const at = start * cols * 4;
    const head = [dxAt + at, dweightAt, ...(rms ? [] : [dbiasAt]), dyAt + at, xAt + at] as const;
    const rest = [...(rms ? [] : [meanAt + start * 4]), rstdAt + start * 4, weightAt, addAt && addAt + at] as const;
    return [...head, ...rest, count, cols, workspaceAt, told];
  };
  type Kernel = (...numbers: number[]) => void;
  if (split) {
    let start = 0;
    for (const count of split) {
      const kernel = (rms ? kernels.rmsNormBackwardRows : kernels.layerNormBackwardRows) as Kernel;
      kernel(...call(start, count), start, rows);
      start += count;
    }
    kernels.addSums(dweightAt, dbiasAt, rows, cols, workspaceAt);
  } else {
    const kernel = (rms ? kernels.rmsNormBackward : kernels.layerNormBackward) as Kernel;
    kernel(...call(0, rows));
  }
  expect(arena.strayWrite()).toBe(-1);
  const result = {
    input,
    dx: arena.floats(dxAt, size),
    dweight: arena.floats(dweightAt, cols),
    dbias: dbiasAt ? arena.floats(dbiasAt, cols) : null,
  };
  arena.dispose();
  return result;
}

/**
 * How far dweight and dbias are off, in units of 2^-23 times the sums of |dy| * max|xhat of the row| and of |dy| of each
 * column. A dy counts as a normal float at least: below, floats have fewer digits.
 */
function sumsUnits({ input, dweight, dbias }: ReturnType<typeof run>): { dweight: number; dbias: number } {
  const { rows, cols, dy } = input;
  const { xhat } = referenceForward(input);
  const expected = referenceBackward(input);
  let worst = { dweight: 0, dbias: 0 };
  for (let i = 0; i < cols; i++) {
    const scale = { dweight: 0, dbias: 0 };
    for (let row = 0; row < rows; row++) {
      const largest = xhat.subarray(row * cols, (row + 1) * cols).reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      const size = Math.max(Math.abs(dy[row * cols + i]!), 2 ** -126);
      scale.dweight += size * largest;
      scale.dbias += size;
    }
    worst = {
      dweight: Math.max(worst.dweight, Math.abs(dweight[i]! - expected.dweight[i]!) / (2 ** -23 * scale.dweight || 1)),
      dbias: Math.max(worst.dbias, Math.abs(dbias![i]! - expected.dbias[i]!) / (2 ** -23 * scale.dbias || 1)),
    };
  }
  return worst;
}

/** Runs of values, over and over. */
function runs(size: number, values: number[], length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: size }, (_, i) => values[Math.floor(i / length) % values.length]!);
}

const HARD: Record<string, Omit<Given, "told">> = {
  "a deviation far below the root of eps, x of two neighbouring floats": {
    rows: 3,
    cols: 8,
    x: runs(24, [0.006, 0.006 + 4.66e-10], 1),
    dy: runs(24, [1], 1),
  },
  "mean 0.006, noise 1e-5": { rows: 5, cols: 96, x: normal(480, 1, 0.006, 1e-5), dy: normal(480, 2) },
  "mean 0.006, noise 1e-7": { rows: 5, cols: 96, x: normal(480, 1, 0.006, 1e-7), dy: normal(480, 2) },
  "mean 0.06, noise 1e-6, the eps of Keras": {
    rows: 5,
    cols: 96,
    x: normal(480, 1, 0.06, 1e-6),
    dy: normal(480, 2),
    eps: 1e-3,
  },
  "halves, dy in quarters, a weight": {
    rows: 1,
    cols: 255,
    x: runs(255, [1.4111673831939697, 5.880352020263672], 128),
    dy: runs(255, [1.3, -0.7, 0.9, -1.1], 64),
    weight: normal(255, 3),
  },
  "64 rows of a constant dy": { rows: 64, cols: 5, x: normal(320, 1), dy: runs(320, [1.9402961730957031], 1) },
  "64 equal rows": {
    rows: 64,
    cols: 6,
    x: runs(384, [1.37, -0.61, 0.22, 2.9, -1.83, 0.77], 1),
    dy: runs(384, [1.9402961730957031, -1.13, 0.71, 1.61, -0.87, 1.21], 1),
  },
  "a large dy, then small ones that round the same way": {
    rows: 33,
    cols: 20,
    x: normal(660, 4),
    dy: Float32Array.from({ length: 660 }, (_, i) => (i < 20 ? 1066.241943359375 : -1.2910025119781494)),
  },
  "constant dy of 6e36": { rows: 2, cols: 768, x: normal(1536, 1), dy: runs(1536, [6e36], 1) },
  "dy * weight beyond float32": {
    rows: 2,
    cols: 40,
    x: normal(80, 1, 0, 1e9),
    dy: normal(80, 2, 0, 1e25),
    weight: normal(40, 3, 0, 1e18),
  },
  "eps 0 and x near 3e-39": { rows: 2, cols: 24, x: normal(48, 1, 0, 3e-39), dy: normal(48, 2, 0, 1e-9), eps: 0 },
  "dy near 1e-40": { rows: 2, cols: 24, x: normal(48, 1, 0, 1e-7), dy: normal(48, 2, 0, 1e-40), eps: 0 },
  "an outlier beside a constant dy": {
    rows: 1,
    cols: 2560,
    x: runs(2560, [0.729, 1.339, 0.717], 5).map((v, i) => (i === 1000 ? 23.46 : v)),
    dy: runs(2560, [1.3], 1),
  },
  "an outlier beside dy of two values that are close": {
    rows: 1,
    cols: 4096,
    x: runs(4096, [52.85, 18.757], 1500).map((v, i) => (i === 3000 ? 1406.27 : v)),
    dy: runs(4096, [3.1326, 3.1222], 7),
  },
  "a mean just within the spread of the row": {
    rows: 1,
    cols: 20,
    x: runs(20, [-18.33472442626953, -28.265926361083984], 3),
    dy: runs(20, [1337.98291015625, 1311.5765380859375], 4),
    weight: runs(20, [-4.545928955078125], 1),
  },
};

describe.each(BUILDS)("hard inputs to backward, %s build", (build) => {
  for (const [name, given] of Object.entries(HARD)) {
    for (const told of [given.eps ?? 1e-5, NaN]) {
      test(`${name}, eps told: ${told}`, () => {
        const got = run(build, { ...given, told });
        expect(got.dx.every(Number.isFinite)).toBe(true);
        // Where floats have no more digits for it, half of the least of them is no error.
        const { dx: exact } = referenceBackward(got.input);
        const dx = got.dx.map((v, i) => (Math.abs(v - exact[i]!) <= 2 ** -150 ? Math.fround(exact[i]!) : v));
        const units = Float64Array.from(dx, (v, i) => (v === Math.fround(exact[i]!) ? exact[i]! : v));
        expect(dxUnits(units, got.input)).toBeLessThanOrEqual(4);
        const sums = sumsUnits(got);
        expect(sums.dweight).toBeLessThanOrEqual(8);
        expect(sums.dbias).toBeLessThanOrEqual(8);
      });
    }
  }

  test.each([1.94029617, 1.60623755e37, -2068817130000000000])(
    "gives 0 for dweight where x is the constant %f",
    (x) => {
      for (const cols of [191, 644, 784, 2559]) {
        for (const told of [1e-5, NaN]) {
          const given = { rows: 2, cols, x: runs(2 * cols, [x], 1), dy: normal(2 * cols, 2), told };
          const { dx, dweight, input } = run(build, given);
          expect([...dweight]).toEqual(new Array(cols).fill(0));
          expect(dxUnits(dx, input)).toBeLessThanOrEqual(4);
        }
      }
    },
  );

  test("keeps dweight and dbias finite where dy is huge and cancels over the rows", () => {
    const dy = runs(4 * 29, [3e38], 1).map((v, i) => (i < 58 ? v : -v));
    const { dbias, dweight } = run(build, { rows: 4, cols: 29, x: normal(4 * 29, 1), dy });
    expect([...dbias!]).toEqual(new Array(29).fill(0));
    expect(dweight.every((v) => !Number.isNaN(v))).toBe(true);
  });
});

describe.each(BUILDS)("RMSNorm's backward, %s build", (build) => {
  for (const cols of [1, 2, 3, 5, 16, 33, 65, 130, 259, 2560]) {
    for (const [offset, scale] of [
      [0, 1],
      [50, 1],
      [0, 1e25],
      [0, 1e-30],
    ] as const) {
      for (const weight of [normal(cols, 3), null]) {
        test(`matches float64, cols=${cols} offset=${offset} scale=${scale} weight=${weight !== null}`, () => {
          const rows = 7;
          const x = normal(rows * cols, 1, offset * scale, scale);
          const dy = normal(rows * cols, 2, 0, scale > 1 ? scale : 1);
          const given = { rows, cols, x, dy, weight, eps: 1e-6, rms: true };
          const { dx, dweight } = run(build, given);
          const rstd = rmsOf(given);
          const expected = new Float64Array(cols);
          const terms = new Float64Array(rows * cols);
          for (let row = 0; row < rows; row++) {
            const at = row * cols;
            const r = rstd[row]!;
            let c = 0;
            let largest = 0;
            const g = Float64Array.from({ length: cols }, (_, i) => dy[at + i]! * (weight ? weight[i]! : 1));
            for (let i = 0; i < cols; i++) {
              c += (g[i]! * x[at + i]! * r) / cols;
              largest = Math.max(largest, Math.abs(g[i]!));
              terms[at + i] = dy[at + i]! * x[at + i]! * r;
              expected[i]! += terms[at + i]!;
            }
            for (let i = 0; i < cols; i++) {
              const error = Math.abs(dx[at + i]! - r * (g[i]! - x[at + i]! * r * c));
              expect(error).toBeLessThanOrEqual(4 * 2 ** -23 * r * largest + 2 ** -150);
            }
          }
          expect(gradientUnits(dweight, expected, terms)).toBeLessThanOrEqual(4);
        });
      }
    }
  }

  test("is that of numbers without a mean, which LayerNorm's is too", () => {
    const rows = 3;
    const cols = 64;
    const half = normal(rows * cols, 1);
    const x = half.map((v, i) => (i % 2 ? -half[i - 1]! : v));
    const dy = normal(rows * cols, 2).map((v, i, all) => (i % 2 ? -all[i - 1]! : v));
    const rms = run(build, { rows, cols, x, dy, rms: true });
    const layer = run(build, { rows, cols, x, dy });
    expect(dxUnits(rms.dx, layer.input)).toBeLessThanOrEqual(4);
    expect(dxUnits(layer.dx, layer.input)).toBeLessThanOrEqual(4);
  });
});

for (const rms of [false, true]) {
  describe.each(BUILDS)(`backward of ${rms ? "RMSNorm" : "LayerNorm"}, %s build`, (build) => {
    // Rows as they are, far from zero, huge, constant, with an outlier.
    const mixed = (rows: number, cols: number) =>
      normal(rows * cols, 5).map((v, i) => {
        const kind = Math.floor(i / cols) % 7;
        return kind === 2 ? v + 100 : kind === 3 ? v * 1e37 : kind === 4 ? 3 : kind === 5 && i % cols === 1 ? 30 : v;
      });

    test.each([1, 7, 33, 64, 128, 300, 2576])("adds `add` as an addition afterwards does, cols=%i", (cols) => {
      const rows = 9;
      const given = { rows, cols, x: mixed(rows, cols), dy: normal(rows * cols, 6), weight: normal(cols, 7), rms };
      const add = normal(rows * cols, 8);
      const plain = run(build, given);
      const sum = plain.dx.map((v, i) => v + add[i]!);
      const added = run(build, { ...given, add });
      expect(added.dx).toEqual(sum);
      expect(added.dweight).toEqual(plain.dweight);
      expect(run(build, { ...given, add, inPlace: true }).dx).toEqual(sum);
    });

    test("gives the same bits for rows that come some groups at a time", () => {
      const group = 12; // as sumsGroup says
      const next = uniform(9);
      for (const [rows, cols] of [
        [3, 17],
        [64, 16],
        [65, 33],
        [130, 64],
        [2113, 4],
        [3500, 12],
        [9, 2576],
        [61, 256],
        [49, 260],
        [100, 264],
      ] as const) {
        const given = { rows, cols, x: mixed(rows, cols), dy: normal(rows * cols, 6), weight: normal(cols, 7), rms };
        const all = run(build, given);
        for (let trial = 0; trial < 4; trial++) {
          const most = [1, 2, 5, 60][trial]!;
          const split: number[] = [];
          for (let left = rows; left > 0; left -= split.at(-1)!)
            split.push(Math.min(left, group * Math.ceil(next() * most)));
          const parts = run(build, { ...given, split });
          expect(parts.dx).toEqual(all.dx);
          expect(parts.dweight).toEqual(all.dweight);
          expect(parts.dbias).toEqual(all.dbias);
        }
      }
    });

    test("gives a row of dx the same bits alone and in a batch", () => {
      for (const cols of [3, 16, 64, 127, 128, 256, 260, 2560]) {
        const rows = 11;
        const x = mixed(rows, cols);
        const dy = normal(rows * cols, 6);
        const weight = normal(cols, 7);
        const all = run(build, { rows, cols, x, dy, weight, rms });
        for (let row = 0; row < rows; row++) {
          const own = (values: Float32Array) => values.slice(row * cols, (row + 1) * cols);
          expect(run(build, { rows: 1, cols, x: own(x), dy: own(dy), weight, rms }).dx).toEqual(own(all.dx));
        }
      }
    });
  });
}
