import { describe, expect, test } from "vitest";
import { Arena, BUILDS, COLS, normal, ROWS } from "./helpers.js";
import { dxUnits, gradientUnits, referenceBackward, referenceForward } from "./reference.js";

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
}

/** Calls the kernel in an arena of its own, with statistics rounded from float64. */
function run(build: string, given: Given) {
  const { rows, cols, misalignment = 0, inPlace = false, wanted = {}, calls = 1 } = given;
  const size = rows * cols;
  const x = given.x ?? normal(size, 1);
  const dy = given.dy ?? normal(size, 2);
  const weight = given.weight === undefined ? normal(cols, 3) : given.weight;
  const eps = given.eps ?? 1e-5;
  const input = { x, dy, weight, rows, cols, eps };
  const { mean, rstd } = referenceForward(input);
  const before = { dweight: normal(cols, 4), dbias: normal(cols, 5) };

  const arena = new Arena(build, 3 * size + 2 * rows + 3 * cols, misalignment);
  const dyAt = arena.input(dy);
  const dxAt = inPlace ? dyAt : arena.output(size, wanted.dx);
  if (inPlace) arena.allow(dyAt, size);
  const dweightAt = arena.output(cols, wanted.dweight, before.dweight);
  const dbiasAt = arena.output(cols, wanted.dbias, before.dbias);
  const xAt = arena.input(x);
  const meanAt = arena.input(mean);
  const rstdAt = arena.input(rstd);
  const weightAt = arena.input(weight);
  arena.seal();
  for (let call = 0; call < calls; call++) {
    arena.kernels.layerNormBackward(dxAt, dweightAt, dbiasAt, dyAt, xAt, meanAt, rstdAt, weightAt, rows, cols);
  }
  return {
    input,
    before,
    dx: dxAt ? arena.floats(dxAt, size) : null,
    dweight: dweightAt ? arena.floats(dweightAt, cols) : null,
    dbias: dbiasAt ? arena.floats(dbiasAt, cols) : null,
    strayWrite: arena.strayWrite(),
  };
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
      for (const cols of [15, 71]) {
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
