// Forward on ordinary inputs, with every set of operands, and what it promises of bits. Hard inputs are in accuracy.test.ts.

import { describe, expect, test } from "vitest";
import { BUILDS } from "./builds.js";
import { Arena, COLS, normal, ROWS, shapesOf } from "./helpers.js";
import type { Case } from "./reference.js";
import { expectWithin } from "./within.js";

type Place = "own" | "x" | "residual";
/** A case, what is added to x, and where y and the sum go; the sum is not wanted when absent. */
type Given = Partial<Case> &
  Pick<Case, "rows" | "cols"> & { residual?: ArrayLike<number>; y?: Place; sum?: Place } & {
    stats?: boolean;
    misalignment?: number;
  };

/** Calls the kernel in an arena of its own. */
function run(build: string, norm: "layerNorm" | "rmsNorm", given: Given) {
  const { rows, cols, residual = null, stats = true, misalignment = 0, eps = 1e-5 } = given;
  const size = rows * cols;
  const { x = normal(size, 1), weight = normal(cols, 2) } = given;
  const bias = norm === "rmsNorm" ? null : given.bias === undefined ? normal(cols, 3) : given.bias;
  const arena = new Arena(build, 4 * size + 2 * rows + 2 * cols, misalignment);
  const inputs = { x: arena.input(x), residual: arena.input(residual) };
  const place = (name: Place) => {
    if (name === "own") return arena.output(size);
    arena.allow(inputs[name], size);
    return inputs[name];
  };
  const yAt = place(given.y ?? "own");
  const sumAt = given.sum ? place(given.sum) : 0;
  const meanAt = arena.output(rows, stats && norm === "layerNorm");
  const rstdAt = arena.output(rows, stats);
  const weightAt = arena.input(weight);
  const biasAt = arena.input(bias);
  arena.seal();
  const { layerNormForward, rmsNormForward } = arena.kernels;
  if (norm === "rmsNorm") {
    rmsNormForward(yAt, sumAt, rstdAt, inputs.x, inputs.residual, weightAt, rows, cols, eps);
  } else {
    layerNormForward(yAt, sumAt, meanAt, rstdAt, inputs.x, inputs.residual, weightAt, biasAt, rows, cols, eps);
  }
  expect(arena.strayWrite()).toBe(-1);
  const result = {
    input: { norm, x, weight, bias, rows, cols, eps },
    y: arena.floats(yAt, size),
    sum: given.sum ? arena.floats(sumAt, size) : null,
    mean: meanAt ? arena.floats(meanAt, rows) : new Float32Array(rows),
    rstd: stats ? arena.floats(rstdAt, rows) : null,
  };
  arena.dispose();
  return result;
}

const NORMS = ["layerNorm", "rmsNorm"] as const;
const SUITES = BUILDS.flatMap((build) => NORMS.map((norm) => [norm, build] as const));

describe.each(SUITES)("forward of %s, %s build", (norm, build) => {
  describe("matches the float64 reference", () => {
    for (const cols of COLS) {
      for (const rows of ROWS) {
        test(`rows=${rows} cols=${cols}`, () => {
          const { input, y, mean, rstd } = run(build, norm, { rows, cols });
          expectWithin({ y, mean, rstd: rstd! }, input);
        });
      }
    }

    test.each([64, 768])("N(0, 1), well within the limits, cols=%i", (cols) => {
      const { input, y, mean, rstd } = run(build, norm, { rows: 300, cols });
      expectWithin({ y, mean, rstd: rstd! }, input, { share: norm === "rmsNorm" ? 0.7 : 0.35 });
    });

    test("thousands of columns, and a tail", () => {
      const { input, y } = run(build, norm, { rows: 2, cols: 2 * 4096 + 19 });
      expectWithin({ y }, input);
    });
  });

  describe("takes short rows four at a time, to the bits of one at a time", () => {
    // Each row as it is, far from zero, tiny, huge or constant; columns to either side of the steps, of those up to which four
    // rows are normalized side by side, and of the longest that are short.
    for (const kinds of ["nnnn", "nnnnn", "nnnfnnnn", "nnnntnnn", "hnnnnnn", "nnnnnnnncn"]) {
      for (const cols of [3, 4, 8, 17, 24, 60, 64, 68, 72, 255, 256, 257]) {
        test(`rows=${kinds} cols=${cols}`, () => {
          const rows = kinds.length;
          const x = normal(rows * cols, 1);
          for (const [row, kind] of [...kinds].entries()) {
            const values = x.subarray(row * cols, (row + 1) * cols);
            const change = { n: [1, 0], f: [1, 100], t: [1e-25, 0], h: [1e25, 0], c: [0, 3] }[kind]!;
            values.set(values.map((value) => value * change[0]! + change[1]!));
          }
          for (const [eps, stats] of [
            [1e-5, true],
            [0, false],
          ] as const) {
            const all = run(build, norm, { rows, cols, x, eps, stats, misalignment: 4 });
            if (eps > 0) expectWithin({ y: all.y }, all.input);
            for (let row = 0; row < rows; row++) {
              const own = x.slice(row * cols, (row + 1) * cols);
              const alone = run(build, norm, { rows: 1, cols, x: own, eps });
              expect(all.y.slice(row * cols, (row + 1) * cols)).toEqual(alone.y);
              if (stats) expect([all.mean[row], all.rstd![row]]).toEqual([alone.mean[0], alone.rstd![0]]);
            }
            expect(run(build, norm, { rows, cols, x, eps, y: "x" }).y).toEqual(all.y);
          }
        });
      }
    }
  });

  describe("takes every combination of absent operands", () => {
    const BOTH = [true, false];
    const sets = BOTH.flatMap((weight) => BOTH.flatMap((bias) => BOTH.map((stats) => ({ weight, bias, stats }))));
    test.each(sets)("weight=$weight bias=$bias stats=$stats", ({ weight, bias, stats }) => {
      const absent = { ...(weight ? {} : { weight: null }), ...(bias ? {} : { bias: null }) };
      // x near zero and far from it: the two ways through the kernel that are compiled for each combination.
      for (const offset of [0, 1000]) {
        for (const cols of [17, 70]) {
          const { input, y } = run(build, norm, { rows: 5, cols, x: normal(5 * cols, 4, offset), stats, ...absent });
          expectWithin({ y }, input);
        }
      }
    });
  });

  test.each([4, 8, 12])("takes pointers that are %i bytes off a multiple of 16", (misalignment) => {
    const given = { rows: 3, cols: 65 };
    const { y } = run(build, norm, { ...given, misalignment });
    expect(y).toEqual(run(build, norm, given).y);
  });

  test("gives NaN for zeros when eps is 0", () => {
    const { y } = run(build, norm, { rows: 1, cols: 4, x: new Float32Array(4), eps: 0 });
    expect([...y]).toEqual([NaN, NaN, NaN, NaN]);
  });

  test.each([NaN, Infinity, -Infinity])("keeps a %f in its row", (bad) => {
    const given = { rows: 3, cols: 37 };
    const clean = run(build, norm, given);
    const x = Float32Array.from(clean.input.x);
    x[37 + 20] = bad;
    const { y, rstd } = run(build, norm, { ...given, x });
    // Without a mean, an infinity makes rstd 0, and y is NaN where it stood alone.
    const infinite = norm === "rmsNorm" && !Number.isNaN(bad);
    for (let i = 0; i < 37; i++) expect(y[37 + i]! - y[37 + i]!).toBe(infinite && i !== 20 ? 0 : NaN);
    expect(rstd![1]).toBe(infinite ? 0 : NaN);
    expect(y.subarray(0, 37)).toEqual(clean.y.subarray(0, 37));
    expect(y.subarray(74)).toEqual(clean.y.subarray(74));
  });

  // Short rows, by fours and one by one, and longer ones; the second row takes a shift, the third is beyond float32 when squared.
  test.each(shapesOf("9x3 9x64 6x127 7x256 3x257 4x770"))(
    "gives x + residual the bits of an addition followed by the norm, rows=%i cols=%i",
    (rows, cols) => {
      const size = rows * cols;
      const at = (i: number) => Math.floor(i / cols);
      const x = normal(size, 9).map((value, i) => (at(i) % 4 === 1 ? value + 50 : at(i) === 2 ? value * 1e22 : value));
      const residual = normal(size, 10);
      const added = x.map((value, i) => value + residual[i]!);
      const apart = run(build, norm, { rows, cols, x: added });
      for (const sum of [undefined, "own", "x", "residual"] as const) {
        for (const y of ["own", "x", "residual"] as const) {
          if (sum === y && sum !== "own") continue;
          const fused = run(build, norm, { rows, cols, x, residual, y, ...(sum && { sum }), misalignment: 4 });
          expect(fused).toEqual({ ...apart, input: fused.input, sum: sum ? added : null });
        }
      }
    },
  );
});

describe.each(BUILDS)("forward of layerNorm, %s build", (build) => {
  test.each([0, 1, -3.7, 1e-30, 12345.678, 3e38])("gives a row of the constant %f the bias, exactly", (constant) => {
    for (const cols of COLS) {
      const { input, y } = run(build, "layerNorm", { rows: 2, cols, x: new Float32Array(2 * cols).fill(constant) });
      const bias = Array.from(input.bias!);
      expect([...y]).toEqual([...bias, ...bias]);
    }
  });
});

test("forward gives the same bits in every build", () => {
  const given = { rows: 3, cols: 71 };
  for (const norm of NORMS) {
    const [first, ...others] = BUILDS.map((build) => run(build, norm, given).y);
    for (const y of others) expect(y).toEqual(first);
  }
});
