import { describe, expect, test } from "vitest";
import { BUILDS } from "./builds.js";
import { Arena, COLS, normal, ROWS, uniform } from "./helpers.js";
import { UNIT, unitsOff } from "./reference.js";
import { expectWithin } from "./within.js";

type Norm = "layerNorm" | "rmsNorm";

interface Given {
  rows: number;
  cols: number;
  x?: ArrayLike<number>;
  residual?: ArrayLike<number> | null;
  weight?: ArrayLike<number> | null;
  bias?: ArrayLike<number> | null;
  eps?: number;
  stats?: boolean;
  misalignment?: number;
  /** Where y goes. */
  y?: "own" | "x" | "residual";
  /** Where the sum goes; it is not wanted when absent. */
  sum?: "own" | "x" | "residual";
}

/** Calls the kernel in an arena of its own. */
function run(build: string, norm: Norm, given: Given) {
  const { rows, cols, residual = null, stats = true, misalignment = 0 } = given;
  const size = rows * cols;
  const x = given.x ?? normal(size, 1);
  const weight = given.weight === undefined ? normal(cols, 2) : given.weight;
  const bias = norm === "rmsNorm" ? null : given.bias === undefined ? normal(cols, 3) : given.bias;
  const eps = given.eps ?? 1e-5;
  const arena = new Arena(build, 4 * size + 2 * rows + 2 * cols, misalignment);
  const inputs = { x: arena.input(x), residual: arena.input(residual) };
  const place = (name: "own" | "x" | "residual") => {
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
  const result = {
    input: { norm, x, weight, bias, rows, cols, eps },
    y: arena.floats(yAt, size),
    sum: given.sum ? arena.floats(sumAt, size) : null,
    mean: meanAt ? arena.floats(meanAt, rows) : new Float32Array(rows),
    rstd: stats ? arena.floats(rstdAt, rows) : null,
    strayWrite: arena.strayWrite(),
  };
  arena.dispose();
  return result;
}

const NORMS: Norm[] = ["layerNorm", "rmsNorm"];
const SUITES = BUILDS.flatMap((build) => NORMS.map((norm) => [norm, build] as const));

describe.each(SUITES)("forward of %s, %s build", (norm, build) => {
  describe("matches the float64 reference", () => {
    for (const cols of COLS) {
      for (const rows of ROWS) {
        test(`rows=${rows} cols=${cols}`, () => {
          const { input, y, mean, rstd, strayWrite } = run(build, norm, { rows, cols });
          expectWithin({ y, mean, rstd: rstd! }, input);
          expect(strayWrite).toBe(-1);
        });
      }
    }
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
            expect(all.strayWrite).toBe(-1);
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
    // x near zero and far from it: the two ways through the kernel that are compiled for each combination.
    for (const offset of [0, 1000]) {
      for (const cols of [17, 70]) {
        for (const weight of [true, false]) {
          for (const bias of [true, false]) {
            for (const stats of [true, false]) {
              test(`cols=${cols} offset=${offset} weight=${weight} bias=${bias} stats=${stats}`, () => {
                const rows = 5;
                const x = normal(rows * cols, 4, offset);
                const absent = { ...(weight ? {} : { weight: null }), ...(bias ? {} : { bias: null }) };
                const { input, y, strayWrite } = run(build, norm, { rows, cols, x, stats, ...absent });
                expectWithin({ y }, input);
                expect(strayWrite).toBe(-1);
              });
            }
          }
        }
      }
    }
  });

  test.each([4, 8, 12])("takes pointers that are %i bytes off a multiple of 16", (misalignment) => {
    const given = { rows: 3, cols: 65 };
    const { y, strayWrite } = run(build, norm, { ...given, misalignment });
    expect(y).toEqual(run(build, norm, given).y);
    expect(strayWrite).toBe(-1);
  });

  describe("is exact where float32 sums are not", () => {
    const rows = 5;
    const hard: Record<string, (size: number, cols: number) => Float32Array> = {
      "offset 1e3": (size) => normal(size, 5, 1e3),
      "offset -1e4": (size) => normal(size, 5, -1e4),
      "offset 1e7": (size) => normal(size, 5, 1e7),
      "scale 1e-6": (size) => normal(size, 5, 0, 1e-6),
      "scale 1e20, beyond float32 when squared": (size) => normal(size, 5, 0, 1e20),
      "scale 3e37": (size) => normal(size, 5, 0, 3e37),
      "offset 1e6": (size) => normal(size, 5, 1e6),
      "offset of one deviation, the border of far": (size) => normal(size, 5, 1),
      "scale 1e18": (size) => normal(size, 5, 0, 1e18),
      "an outlier of 1e4 in the middle": (size, cols) =>
        normal(size, 5).map((v, i) => (i % cols === cols >> 1 ? 1e4 : v)),
      "an outlier of 1e5 in the last place": (size, cols) =>
        normal(size, 5).map((v, i) => ((i + 1) % cols === 0 ? 1e5 : v)),
      "a third of the row at 5e3": (size, cols) => normal(size, 5).map((v, i) => (i % cols < cols / 3 ? v + 5e3 : v)),
      "an outlier of 1e6 in the first place": (size, cols) => normal(size, 5).map((v, i) => (i % cols === 0 ? 1e6 : v)),
      "far, and the first numbers mislead": (size, cols) =>
        normal(size, 5, 1e4).map((v, i) => (i % cols < 16 && i % cols < cols / 2 ? v - 9e3 : v)),
    };
    for (const [name, make] of Object.entries(hard)) {
      test.each([2, 17, 65, 768])(`${name}, cols=%i`, (cols) => {
        const { input, y, mean, rstd } = run(build, norm, {
          rows,
          cols,
          x: make(rows * cols, cols),
          weight: null,
          bias: null,
        });
        expectWithin({ y, mean, rstd: rstd! }, input);
      });
    }

    // The square of the mean beside the variance decides whether a row takes a shift, and whether it takes another.
    test.each([16, 256, 257, 768])("means to either side of each border, cols=%i", (cols) => {
      const next = uniform(4);
      for (const ratio of [0.25, 0.54, 1, 2]) {
        for (const change of [-0.01, -(2 ** -20), 0, 2 ** -20, 0.01]) {
          const [m, scale] = [Math.sqrt(ratio * (1 + change)), 1 + next()];
          const turns = Float32Array.from({ length: cols }, (_, i) => scale * (m + (i % 2 ? -1 : 1)));
          // The first numbers suggest a shift that is as far from the mean.
          const misled = turns.map((v, i) => v + scale * (i < 16 ? 40 - m : 40));
          for (const x of [turns, misled]) {
            const { input, y, mean, rstd } = run(build, norm, { rows: 1, cols, x, eps: 0 });
            expectWithin({ y, mean, rstd: rstd! }, input);
          }
        }
      }
    });

    // Runs of equal addends round the same way every time: the worst for a sum in float32.
    const values = uniform(11);
    const few: Record<string, (i: number, cols: number) => number> = {
      "0 and a by turns": (i) => i % 2,
      "a, then 0": (i, cols) => (i < cols / 2 ? 1 : 0),
      "seven of ten a, the rest 0": (i) => (i % 10 < 7 ? 1 : 0),
      "a and -a by turns": (i) => (i % 2 ? 1 : -1),
    };
    for (const [name, pattern] of Object.entries(few)) {
      test.each([100, 768, 4096, 8192])(`${name}, cols=%i`, (cols) => {
        const count = 30;
        const scales = Array.from({ length: count }, () => 1 + values());
        const x = Float32Array.from({ length: count * cols }, (_, i) => {
          return scales[Math.floor(i / cols)]! * pattern(i % cols, cols);
        });
        const { input, y, mean, rstd } = run(build, norm, { rows: count, cols, x, weight: null, bias: null });
        expectWithin({ y, mean, rstd: rstd! }, input);
      });
    }

    test.each([64, 768])("N(0, 1), well within the limits, cols=%i", (cols) => {
      const { input, y, mean, rstd } = run(build, norm, { rows: 300, cols });
      expectWithin({ y, mean, rstd: rstd! }, input, { share: norm === "rmsNorm" ? 0.7 : 0.35 });
    });

    test("numbers near 3e-39 with an eps of 0, whose rstd is beyond float32", () => {
      const { input, y } = run(build, norm, {
        rows,
        cols: 33,
        x: normal(rows * 33, 6, 0, 1e-39),
        weight: null,
        bias: null,
        eps: 0,
      });
      expectWithin({ y }, input);
    });

    describe("squares that underflow, and subnormal numbers", () => {
      for (const [scale, eps] of [
        [1e-19, 0],
        [1e-21, 0],
        [1e-22, 0],
        [1e-25, 0],
        [1e-38, 0],
        [1e-23, 1e-30],
        [1e-40, 1e-5],
        [1e-42, 1e-5],
      ] as const) {
        test.each([3, 33, 65])(`scale ${scale}, eps ${eps}, cols=%i`, (cols) => {
          const x = normal(rows * cols, 6, 0, scale);
          const { input, y } = run(build, norm, { rows, cols, x, weight: null, bias: null, eps });
          expectWithin({ y }, input);
        });
      }
    });

    test("thousands of columns, and a tail", () => {
      const cols = 2 * 4096 + 19;
      const { input, y } = run(build, norm, { rows: 2, cols });
      expectWithin({ y }, input);
    });
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

  test.each([0, 1e5, 1e22])("writes in place over x, offset or scale %f", (hard) => {
    const given = { rows: 3, cols: 45, x: normal(3 * 45, 7, hard, Math.max(1, hard / 100)) };
    const { y, strayWrite } = run(build, norm, { ...given, y: "x" });
    expect(y).toEqual(run(build, norm, given).y);
    expect(strayWrite).toBe(-1);
  });

  describe("gives x + residual the bits of an addition followed by the norm", () => {
    // Short rows, by fours and one by one, and longer ones; the second row takes a shift, the third is beyond float32 when squared.
    for (const [rows, cols] of [
      [9, 3],
      [9, 64],
      [6, 127],
      [7, 256],
      [3, 257],
      [4, 770],
    ] as const) {
      const size = rows * cols;
      const at = (i: number) => Math.floor(i / cols);
      const x = normal(size, 9).map((value, i) => (at(i) % 4 === 1 ? value + 50 : at(i) === 2 ? value * 1e22 : value));
      const residual = normal(size, 10);
      const added = x.map((value, i) => value + residual[i]!);
      test.each([
        [undefined, "own"],
        [undefined, "x"],
        [undefined, "residual"],
        ["own", "own"],
        ["own", "x"],
        ["own", "residual"],
        ["x", "own"],
        ["x", "residual"],
        ["residual", "own"],
        ["residual", "x"],
      ] as const)(`rows=${rows} cols=${cols} sum=%s y=%s`, (sum, y) => {
        const apart = run(build, norm, { rows, cols, x: added });
        const fused = run(build, norm, { rows, cols, x, residual, y, ...(sum && { sum }), misalignment: 4 });
        expect(fused.y).toEqual(apart.y);
        expect([fused.mean, fused.rstd]).toEqual([apart.mean, apart.rstd]);
        if (sum) expect(fused.sum).toEqual(added);
        expect(fused.strayWrite).toBe(-1);
      });
    }
  });

  test("gives a row the same bits alone and in a batch", () => {
    const cols = 77;
    const batch = run(build, norm, { rows: 5, cols, x: normal(5 * cols, 8, 3) });
    for (let row = 0; row < 5; row++) {
      const x = (batch.input.x as Float32Array).slice(row * cols, (row + 1) * cols);
      expect(run(build, norm, { rows: 1, cols, x }).y).toEqual(batch.y.subarray(row * cols, (row + 1) * cols));
    }
  });
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

test("the measure of errors sees every kind of them", () => {
  expect(unitsOff([1, 2, 3], [1, 2, 3], [3, 3, 3])).toBe(0);
  expect(unitsOff([1, 2 + 6 * UNIT, 3], [1, 2, 3], [3, 3, 3])).toBe(2);
  expect(unitsOff([1 + UNIT, 5, 5 + 10 * UNIT], [1, 5, 5], [1, 5, 5])).toBe(2);
  expect(unitsOff([NaN, 1 + UNIT], [1, 1], [1, 1])).toBe(Infinity);
  expect(unitsOff([Infinity, 1], [1, 1], [1, 1])).toBe(Infinity);
  expect(unitsOff([0, 1], [0, 0], [0, 0])).toBe(Infinity);
  expect(() => unitsOff([1], [1, 2], [1, 1])).toThrow();
});

test("a unit is that of float32", () => {
  expect(Math.fround(1 + UNIT)).toBe(1 + UNIT);
  expect(Math.fround(1 + UNIT / 2)).toBe(1);
});
