import { describe, expect, test } from "vitest";
import { BUILDS } from "./builds.js";
import { Arena, COLS, normal, ROWS } from "./helpers.js";
import { dxUnits, gradientUnits, referenceBackward, referenceForward, unitsOff } from "./reference.js";

interface Given {
  rows: number;
  cols: number;
  x?: ArrayLike<number>;
  dy?: ArrayLike<number>;
  weight?: ArrayLike<number> | null;
  eps?: number;
  wanted?: { dx?: boolean; dweight?: boolean; dbias?: boolean };
  misalignment?: number;
  inPlace?: boolean;
  calls?: number;
  workspace?: boolean;
}

/** Calls the kernel in an arena of its own, with statistics rounded from float64. */
function run(build: string, given: Given) {
  const { rows, cols, misalignment = 0, inPlace = false, wanted = {}, calls = 1, workspace = true } = given;
  const size = rows * cols;
  const x = given.x ?? normal(size, 1);
  const dy = given.dy ?? normal(size, 2);
  const weight = given.weight === undefined ? normal(cols, 3) : given.weight;
  const eps = given.eps ?? 1e-5;
  const input = { x, dy, weight, rows, cols, eps };
  const { mean, rstd } = referenceForward(input);
  const before = { dweight: normal(cols, 4), dbias: normal(cols, 5) };

  const arena = new Arena(build, 3 * size + 2 * rows + 37 * cols, misalignment);
  const dyAt = arena.input(dy);
  const dxAt = inPlace ? dyAt : arena.output(size, wanted.dx);
  if (inPlace) arena.allow(dyAt, size);
  const dweightAt = arena.output(cols, wanted.dweight, before.dweight);
  const dbiasAt = arena.output(cols, wanted.dbias, before.dbias);
  const xAt = arena.input(x);
  const meanAt = arena.input(mean);
  const rstdAt = arena.input(rstd);
  const weightAt = arena.input(weight);
  const workspaceAt = arena.output(arena.kernels.layerNormBackwardWorkspace(rows, cols) / 4, workspace);
  arena.seal();
  for (let call = 0; call < calls; call++) {
    const pointers = [dxAt, dweightAt, dbiasAt, dyAt, xAt, meanAt, rstdAt, weightAt] as const;
    arena.kernels.layerNormBackward(...pointers, 0, rows, cols, workspaceAt);
  }
  const result = {
    input,
    before,
    dx: dxAt ? arena.floats(dxAt, size) : null,
    dweight: dweightAt ? arena.floats(dweightAt, cols) : null,
    dbias: dbiasAt ? arena.floats(dbiasAt, cols) : null,
    strayWrite: arena.strayWrite(),
  };
  arena.dispose();
  return result;
}

/** Expects all that was wanted to match the reference, gradients added to what was there, `calls` times. */
function expectMatch({ input, before, dx, dweight, dbias, strayWrite }: ReturnType<typeof run>, calls = 1) {
  const reference = referenceBackward(input);
  const { xhat } = referenceForward(input);
  if (dx) expect(dxUnits(dx, input)).toBeLessThanOrEqual(4);
  for (const [got, was, sum, terms] of [
    [dweight, before.dweight, reference.dweight, xhat.map((value, i) => value * input.dy[i]!)],
    [dbias, before.dbias, reference.dbias, input.dy],
  ] as const) {
    if (!got) continue;
    const expected = sum.map((value, i) => was[i]! + calls * value);
    const all = [...was, ...Array.from({ length: calls }, () => Array.from(terms)).flat()];
    expect(gradientUnits(got, expected, all)).toBeLessThanOrEqual(4);
  }
  expect(strayWrite).toBe(-1);
}

describe.each(BUILDS)("backward, %s build", (build) => {
  describe("matches the float64 reference", () => {
    for (const cols of COLS) {
      for (const rows of ROWS) {
        test(`rows=${rows} cols=${cols}`, () => expectMatch(run(build, { rows, cols })));
      }
    }
  });

  describe("takes every combination of absent operands", () => {
    for (const offset of [0, 1000]) {
      for (const cols of [15, 71, 300]) {
        for (const weight of [true, false]) {
          for (const dx of [true, false]) {
            for (const dweight of [true, false]) {
              for (const dbias of [true, false]) {
                test(`cols=${cols} offset=${offset} weight=${weight} dx=${dx} dweight=${dweight} dbias=${dbias}`, () => {
                  const rows = 3;
                  const x = normal(rows * cols, 6, offset);
                  const absent = weight ? {} : { weight: null };
                  const got = run(build, { rows, cols, x, ...absent, wanted: { dx, dweight, dbias } });
                  expectMatch(got);
                  expect([got.dx !== null, got.dweight !== null, got.dbias !== null]).toEqual([dx, dweight, dbias]);
                });
              }
            }
          }
        }
      }
    }
  });

  describe("takes two rows at a time, with dx to the bits of one at a time", () => {
    // Each row as it is, or far from zero, or huge; columns to either side of the fewest for it, of a multiple of 8, and of long rows.
    for (const kinds of ["n", "nn", "nnn", "nfnnn", "hnnfn", "nnhff"]) {
      for (const cols of [7, 8, 12, 64, 120, 248, 256, 260, 264, 777, 2560]) {
        test(`rows=${kinds} cols=${cols}`, () => {
          const rows = kinds.length;
          const x = normal(rows * cols, 1);
          for (const [row, kind] of [...kinds].entries()) {
            const values = x.subarray(row * cols, (row + 1) * cols);
            if (kind !== "n") values.set(values.map((value) => (kind === "f" ? value + 100 : value * 1e37)));
          }
          const all = run(build, { rows, cols, x, misalignment: 4 });
          expectMatch(all);
          const dy = all.input.dy as Float32Array;
          for (let row = 0; row < rows; row++) {
            const part = (values: Float32Array) => values.slice(row * cols, (row + 1) * cols);
            const alone = run(build, { rows: 1, cols, x: part(x), dy: part(dy), wanted: { dweight: false } });
            expect(alone.dx).toEqual(part(all.dx!));
          }
          expect(run(build, { rows, cols, x, wanted: { dx: false } }).dweight).toEqual(all.dweight);
          expect(run(build, { rows, cols, x, inPlace: true }).dx).toEqual(all.dx);
          expectMatch(run(build, { rows, cols, x, weight: null }));
        });
      }
    }
  });

  describe("sums many rows in parts", () => {
    // To either side of a group of 12 rows, of a part of 48, of a chunk of 96, and of 32 chunks, beyond which a chunk is longer.
    for (const rows of [11, 12, 13, 47, 48, 49, 63, 64, 65, 96, 97, 100, 2048, 3072, 3073, 3300]) {
      for (const cols of rows < 2000 ? [1, 3, 4, 21, 256] : [3]) {
        test(`rows=${rows} cols=${cols}`, () => {
          const given = { rows, cols, misalignment: 4 };
          const all = run(build, given);
          expectMatch(all);
          const alone = run(build, { ...given, wanted: { dx: false, dbias: false } });
          expect(alone.dweight).toEqual(all.dweight);
          expect(run(build, { ...given, wanted: { dx: false, dweight: false } }).dbias).toEqual(all.dbias);
          expect(run(build, { ...given, wanted: { dweight: false, dbias: false }, workspace: false }).dx).toEqual(
            all.dx,
          );
        });
      }
    }

    test("says how much workspace that takes: a slot for one chunk, two for more", () => {
      const { kernels } = new Arena(build, 0);
      expect(kernels.layerNormBackwardWorkspace(96, 1000)).toBe(56 * 1000);
      expect(kernels.layerNormBackwardWorkspace(97, 1000)).toBe(2 * 56 * 1000);
    });

    test("65536 rows of N(0, 1), and of a constant", () => {
      const rows = 65536;
      const cols = 16;
      for (const dy of [normal(rows * cols, 2), new Float32Array(rows * cols).fill(0.1)]) {
        const { input, before, dweight, dbias } = run(build, { rows, cols, dy, wanted: { dx: false } });
        const reference = referenceBackward(input);
        for (const [got, was, sum] of [
          [dweight!, before.dweight, reference.dweight],
          [dbias!, before.dbias, reference.dbias],
        ] as const) {
          const expected = sum.map((value, i) => was[i]! + value);
          expect(unitsOff(got, expected, [Math.max(...expected.map(Math.abs))], cols)).toBeLessThanOrEqual(8);
        }
      }
    });
  });

  describe("holds for dy that make dx vanish", () => {
    test.each([64, 100, 768, 4096])("constant dy, cols=%i", (cols) => {
      const rows = 20;
      const dy = new Float32Array(rows * cols).map((_, i) => 1 + Math.sin(Math.floor(i / cols)) / 2);
      const { input, dx } = run(build, { rows, cols, dy, weight: null });
      expect(dxUnits(dx!, input)).toBeLessThanOrEqual(4);
    });

    test.each([64, 100, 768, 4096])("dy that is xhat, cols=%i", (cols) => {
      const rows = 5;
      const x = normal(rows * cols, 14);
      const { xhat } = referenceForward({ x, rows, cols, eps: 1e-5 });
      const { input, dx } = run(build, { rows, cols, x, dy: Float32Array.from(xhat), weight: null });
      expect(dxUnits(dx!, input)).toBeLessThanOrEqual(4);
    });
  });

  describe("takes rows of any scale", () => {
    for (const [name, values] of Object.entries({
      "1e18": normal(3 * 64, 15, 0, 1e18),
      "1e-18": normal(3 * 64, 15, 0, 1e-18),
      "3e37": normal(3 * 64, 15, 0, 3e37),
      "the largest floats": Float32Array.from({ length: 3 * 64 }, (_, i) => 3.3e38 * Math.sin(i * i)),
      "nearly all of the largest": Float32Array.from({ length: 3 * 64 }, (_, i) => (i % 64 < 60 ? 3.3e38 : -3.3e38)),
    })) {
      for (const weight of [true, false]) {
        test(`${name}, weight=${weight}`, () => {
          const given = { rows: 3, cols: 64, x: values, ...(weight ? {} : { weight: null }) };
          const { input, before, dx, dweight } = run(build, given);
          // dx may be so small that floats have no more digits for it: half of the least float is no error.
          const { dx: exact } = referenceBackward(input);
          const rounded = dx!.map((value, i) => (Math.abs(value - exact[i]!) <= 2 ** -150 ? exact[i]! : value));
          expect(dxUnits(Float64Array.from(rounded), input)).toBeLessThanOrEqual(4);
          expect(dweight!.every(Number.isFinite)).toBe(true);
          expectMatch({ ...run(build, given), before, dx: null });
        });
      }
    }
  });

  test("takes an eps so large that rstd is as small as that of a huge row", () => {
    for (const eps of [1e70, 1e73, 1e75]) expectMatch(run(build, { rows: 3, cols: 21, eps }));
    // As large as the variance, or a good part of it: the standard deviation alone doesn't tell rstd.
    const x = normal(63, 6, 0, 2e36);
    for (const eps of [1e71, 4e71, 4e72, 1e73]) expectMatch(run(build, { rows: 3, cols: 21, x, eps }));
  });

  test("gives the same bits whichever gradients are wanted", () => {
    const given = { rows: 3, cols: 71 };
    const all = run(build, given);
    expect(run(build, { ...given, wanted: { dweight: false, dbias: false } }).dx).toEqual(all.dx);
    expect(run(build, { ...given, wanted: { dbias: false } }).dweight).toEqual(all.dweight);
    expect(run(build, { ...given, wanted: { dweight: false } }).dbias).toEqual(all.dbias);
  });

  test("adds to dweight and dbias, call after call", () => {
    const calls = 3;
    expectMatch(run(build, { rows: 4, cols: 35, calls }), calls);
  });

  test.each([4, 8, 12])("takes pointers that are %i bytes off a multiple of 16", (misalignment) => {
    const given = { rows: 3, cols: 65 };
    const { dx, strayWrite } = run(build, { ...given, misalignment });
    expect(dx).toEqual(run(build, given).dx);
    expect(strayWrite).toBe(-1);
  });

  test.each([0, 1e5])("writes in place over dy, offset %f", (offset) => {
    const given = { rows: 3, cols: 45, x: normal(3 * 45, 7, offset) };
    const { dx, dweight, strayWrite } = run(build, { ...given, inPlace: true });
    const apart = run(build, given);
    expect(dx).toEqual(apart.dx);
    expect(dweight).toEqual(apart.dweight);
    expect(strayWrite).toBe(-1);
  });

  describe("finds the mean that one float cannot hold", () => {
    for (const offset of [1e3, -1e4, 1e7]) {
      test.each([2, 17, 65, 768])(`offset ${offset}, cols=%i`, (cols) => {
        const rows = 3;
        expectMatch(run(build, { rows, cols, x: normal(rows * cols, 8, offset) }));
      });
    }
  });

  test("takes more columns than one block of the sums", () => {
    expectMatch(run(build, { rows: 2, cols: 2 * 4096 + 21 }));
  });

  test("gives zero for the gradient of the weight of a single column", () => {
    const { dx, dweight, before } = run(build, { rows: 3, cols: 1, x: new Float32Array(3).fill(1e6) });
    expect(dweight).toEqual(before.dweight);
    expect([...dx!]).toEqual([0, 0, 0]);
  });

  test("gives NaN in the row of a NaN, and leaves the other rows of dx alone", () => {
    const given = { rows: 3, cols: 37 };
    const clean = run(build, given);
    const x = Float32Array.from(clean.input.x);
    x[37 + 20] = NaN;
    const { dx, dweight, dbias } = run(build, { ...given, x });
    expect(dx!.subarray(37, 74).every(Number.isNaN)).toBe(true);
    expect(dx!.subarray(0, 37)).toEqual(clean.dx!.subarray(0, 37));
    expect(dx!.subarray(74)).toEqual(clean.dx!.subarray(74));
    expect(dweight!.every(Number.isNaN)).toBe(true);
    expect(dbias).toEqual(clean.dbias);
  });

  test("gives a row the same bits alone and in a batch", () => {
    const cols = 77;
    const batch = run(build, { rows: 5, cols, x: normal(5 * cols, 9, 3) });
    for (let row = 0; row < 5; row++) {
      const part = (values: ArrayLike<number>) => (values as Float32Array).slice(row * cols, (row + 1) * cols);
      const alone = run(build, { rows: 1, cols, x: part(batch.input.x), dy: part(batch.input.dy) });
      expect(alone.dx).toEqual(part(batch.dx!));
    }
  });
});

test("backward gives the same bits in every build", () => {
  const given = { rows: 3, cols: 71 };
  const [first, ...others] = BUILDS.map((build) => run(build, given));
  for (const { dx, dweight } of others) {
    expect(dx).toEqual(first!.dx);
    expect(dweight).toEqual(first!.dweight);
  }
});

describe("the reference", () => {
  // (L(v + h) - L(v - h)) / 2h errs by about h^2 and 1e-16 / h: at h = 1e-5 both are about 1e-10 of numbers of size 1.
  const h = 1e-5;
  const rows = 3;
  const cols = 7;
  const input = {
    x: Float64Array.from(normal(rows * cols, 10)),
    dy: Float64Array.from(normal(rows * cols, 11)),
    weight: Float64Array.from(normal(cols, 12)),
    bias: Float64Array.from(normal(cols, 13)),
    rows,
    cols,
    eps: 1e-2,
  };
  const loss = () => referenceForward(input).y.reduce((sum, value, i) => sum + value * input.dy[i]!, 0);
  const { dx, dweight, dbias } = referenceBackward(input);

  test.each([
    ["dx", input.x, dx],
    ["dweight", input.weight, dweight],
    ["dbias", input.bias, dbias],
  ] as const)("has the central differences for its %s", (_, values, gradient) => {
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      values[i] = value + h;
      const above = loss();
      values[i] = value - h;
      const below = loss();
      values[i] = value;
      expect(Math.abs((above - below) / (2 * h) - gradient[i]!)).toBeLessThan(1e-8);
    }
  });
});
