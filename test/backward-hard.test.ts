// Backward at the ends of what float32 holds, and to either side of each border at which the kernels change their way:
// docs/guides/numerics.md derives them.

import { describe, expect, test } from "vitest";
import { BUILDS } from "./builds.js";
import { normal } from "./helpers.js";
import { referenceBackward } from "./reference.js";
import { expectMatch, type Given, run } from "./run-backward.js";

type Input = Omit<Given, "norm">;
type Values = Float32Array<ArrayBuffer>;

const COLS = 40;
const ROWS = 3;
const SIZE = ROWS * COLS;
const bell = (seed: number, scale = 1, offset = 0) => normal(SIZE, seed, offset, scale);
/** Values over and over, in runs. */
const runs = (values: number[], length = 1, size = SIZE): Values =>
  Float32Array.from({ length: size }, (_, i) => values[Math.floor(i / length) % values.length]!);
/** a and -a by turns: the deviation is a, to the bit. */
const turns = (a: number): Values => runs([a, -a]);

/** Just below a border, at it, and just above. */
const around = (border: number) => [border * (1 - 2 ** -22), border, border * (1 + 2 ** -22)];

const CASES: Record<string, Input | Input[]> = {
  // Beside eps, xhat has few digits of its own.
  "a deviation far below the root of eps": [
    { rows: 3, cols: 8, x: runs([0.006, 0.006 + 4.66e-10], 1, 24), dy: runs([1], 1, 24) },
    { rows: 3, cols: 40, x: bell(1, 1e-5, 0.006) },
    { rows: 3, cols: 40, x: bell(1, 1e-7, 0.006) },
    { rows: 3, cols: 40, x: bell(1, 1e-6, 0.06), eps: 1e-3 },
  ],
  "an outlier, and dy of one or two values": [
    { rows: 1, cols: 2560, x: runs([0.729, 1.339, 0.717], 5, 2560).map((v, i) => (i === 1000 ? 23.46 : v)) },
    { rows: 1, cols: 2560, x: normal(2560, 1).map((v, i) => (i === 9 ? 1e6 : v)), dy: runs([1.3], 1, 2560) },
    {
      rows: 1,
      cols: 4096,
      x: runs([52.85, 18.757], 1500, 4096).map((v, i) => (i === 3000 ? 1406.27 : v)),
      dy: runs([3.1326, 3.1222], 7, 4096),
    },
  ],
  "a mean of 4 deviations": around(4).map((m) => ({ rows: 3, cols: 40, x: turns(1).map((v) => v + m), eps: 0 })),
  "a mean of 2^14 deviations": around(2 ** 14).map((m) => ({
    rows: 3,
    cols: 40,
    x: turns(1).map((v) => v + m),
    eps: 0,
  })),
  "a mean of any number of deviations, which one float does not hold": [1.7, 3, 5, 100, 1e4, 1e5, 1e7].flatMap((m) =>
    [0.3, 1].flatMap((scale) =>
      [39, 40, 96].map((cols) => ({
        rows: 3,
        cols,
        x: normal(3 * cols, 1, m * scale, scale),
        dy: normal(3 * cols, 2, 1),
      })),
    ),
  ),
  "rstd of 2^-24": around(2 ** 24).map((a) => ({ rows: 3, cols: 40, x: turns(a), eps: 0 })),
  "rstd of 2^24": around(2 ** -24).map((a) => ({ rows: 3, cols: 40, x: turns(a), eps: 0 })),
  "rstd of any size": [-126, -100, -60, -40, -30, -20, 20, 30, 40, 60, 64, 100, 120].flatMap((k) =>
    [-60, -20, 0, 20, 60].map((l) => ({ rows: 3, cols: 40, x: bell(1, 2 ** k), dy: bell(2, 2 ** l), eps: 0 })),
  ),
  "x near 3e-39, whose rstd no float holds": { rows: 3, cols: 40, x: bell(1, 3e-39), dy: bell(2, 1e-9), eps: 0 },
  // The sums are compared with 2^-67 and 2^64: those of a constant dy are that dy.
  "sums of 2^-67": around(2 ** -67).flatMap((g) =>
    [2 ** -24, 1, 2 ** 24].map((a) => ({ rows: 3, cols: 40, x: bell(1, a), dy: runs([g]), eps: 0 })),
  ),
  "sums of 2^64": around(2 ** 64).flatMap((g) =>
    [2 ** -24, 1, 2 ** 24].map((a) => ({ rows: 3, cols: 40, x: bell(1, a), dy: runs([g]), eps: 0 })),
  ),
  // Orthogonal to 1 and to xhat: the sums say nothing of the size of dy.
  "sums that cancel": [1e-37, 1e-30, 2 ** -67, 2 ** -64.3, 1e-10, 1, 1e10, 1e19, 1e30].flatMap((g) =>
    [2 ** -20, 1, 2 ** 20].map((a) => ({ rows: 3, cols: 40, x: turns(a), dy: runs([g, g, -g, -g]), eps: 0 })),
  ),
  "products with x - mean that underflow": { rows: 3, cols: 40, x: turns(2 ** -100), dy: bell(2), eps: 0 },
  "a large row, whose factor of x is too small for a float": { rows: 3, cols: 40, x: turns(2 ** 100), dy: bell(2) },
  "a small row and a large dy, whose factor of x is too large": {
    rows: 3,
    cols: 40,
    x: turns(2 ** -40),
    dy: bell(2, 2 ** 60),
    eps: 0,
  },
  "x - mean beyond float32": {
    rows: 1,
    cols: 64,
    x: Float32Array.from({ length: 64 }, (_, i) => (i ? -1e38 : 3.4e38)),
    dy: normal(64, 2),
  },
  "the largest floats": [
    { rows: 3, cols: 40, x: runs([3.3e38, -3.3e38, 3.3e38]), dy: bell(2) },
    { rows: 3, cols: 40, x: runs([3.3e38, -3.3e38], 36), dy: bell(2) },
    { rows: 3, cols: 40, x: bell(1, 3e37), dy: bell(2, 1e35) },
  ],
  "a weight of 1e30 and a dy of 1e-30": { rows: 3, cols: 40, dy: bell(2, 1e-30), weight: normal(40, 3, 0, 1e30) },
  "dy * weight beyond float32, dx within": {
    rows: 3,
    cols: 40,
    x: bell(1, 1e10),
    dy: bell(2, 1e30),
    weight: normal(40, 3, 0, 1e10),
  },
  "dy * weight too small for a float": [1, 1e-5, 1e-7].map((a) => ({
    rows: 3,
    cols: 40,
    x: bell(1, a),
    dy: bell(2, 1e-30),
    weight: normal(40, 3, 0, 1e-20),
    eps: 0,
  })),
  "a huge dy that cancels over the rows": {
    rows: 4,
    cols: 29,
    x: normal(116, 1),
    dy: runs([3e37, -3e37], 58, 116),
  },
  "a constant dy of 6e36": { rows: 3, cols: 40, dy: runs([6e36]) },
  "dy near 1e-40": [1, 1e-7].map((a) => ({ rows: 3, cols: 40, x: bell(1, a), dy: bell(2, 1e-40), eps: 0 })),
  "dy of 1e-36, whose products with x are no normal floats": {
    rows: 3,
    cols: 40,
    x: bell(1, 1e-5),
    dy: bell(2, 1e-36),
  },
  "one dy of 1e-20 in a row of zeros": { rows: 3, cols: 40, dy: new Float32Array(SIZE).fill(1e-20, 50, 51) },
  "dy of 2^-125 behind zeros": {
    rows: 3,
    cols: 40,
    x: turns(2 ** -12),
    dy: bell(2, 2 ** -125).map((v, i) => (i % 40 < 20 ? 0 : v)),
    eps: 0,
  },
  "a weight of 0": { rows: 3, cols: 40, weight: new Float32Array(40) },
  "equal rows, whose sums round the same way": [
    {
      rows: 64,
      cols: 6,
      x: runs([1.37, -0.61, 0.22, 2.9, -1.83, 0.77], 1, 384),
      dy: runs([1.9402961, -1.13, 0.71, 1.61, -0.87, 1.21], 1, 384),
    },
    { rows: 64, cols: 5, x: normal(320, 1), dy: runs([1.9402961], 1, 320) },
  ],
  "a large dy, then small ones that round the same way": {
    rows: 33,
    cols: 20,
    x: normal(660, 4),
    dy: Float32Array.from({ length: 660 }, (_, i) => (i < 20 ? 1066.241943359375 : -1.2910025119781494)),
  },
};

for (const norm of ["layerNorm", "rmsNorm"] as const) {
  describe.each(BUILDS)(`backward of ${norm} on hard inputs, %s build`, (build) => {
    test.each(Object.entries(CASES))("%s", (_, inputs) => {
      for (const input of Array.isArray(inputs) ? inputs : [inputs]) {
        for (const weight of [input.weight ?? null, ...(input.weight ? [] : [normal(input.cols, 3)])]) {
          const result = run(build, { norm, dy: normal(input.rows * input.cols, 2), ...input, weight, fresh: true });
          expectMatch(result);
          const { dx } = referenceBackward(result.input);
          expect(result.got.dx!.every((v, i) => Number.isFinite(v) || Math.abs(dx[i]!) > 2 ** 124)).toBe(true);
        }
      }
    });

    test("a dy of zeros gives zeros, whatever the row", () => {
      for (const x of [bell(1), bell(1, 1e-30), bell(1, 1e30), bell(1, 1, 50), bell(1, 1, 1e7)]) {
        const { dx, dweight } = run(build, { norm, rows: 3, cols: 40, x, dy: new Float32Array(SIZE), fresh: true }).got;
        for (const value of [...dx!, ...dweight!]) expect(value + 0).toBe(0);
      }
    });
  });
}

describe.each(BUILDS)("backward of layerNorm on a constant x, %s build", (build) => {
  test.each([1.94029617, 1.60623755e37, -2068817130000000000])("of %f gives 0 for dweight", (x) => {
    for (const cols of [191, 644, 784, 2559]) {
      const result = run(build, { rows: 2, cols, x: runs([x], 1, 2 * cols), dy: normal(2 * cols, 2), fresh: true });
      expect([...result.got.dweight!]).toEqual(new Array(cols).fill(0));
      expectMatch(result);
    }
  });
});
