// What layer normalization is by its definition, on random rows that fast-check shrinks to the least one that fails.
//
// Where the mathematics says that two results are equal, each may be off from it by a third of what the kernels are held to
// against float64, see reference.ts; the bound is the sum of both, and of what rounding the inputs does. float64's own roundings, 2^-29 of a unit, are below all of these.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layerNormBackward, layerNormWithStats } from "../src/index.js";
import { LIMITS, referenceBackward, referenceForward, UNIT } from "./reference.js";

fc.configureGlobal({ seed: 0x1607_0645, numRuns: 300 });

type Batch = Record<"rows" | "cols", number> & Record<"x" | "dy" | "weight" | "bias", Float32Array>;

/** Expects something of whatever an arbitrary gives. */
function forAll<T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void): void {
  fc.assert(fc.property(arbitrary, check));
}

/** Any floats, down to the subnormal ones, and the ends of the range. */
const anyFloat = fc.float({ min: -8, max: 8, noNaN: true });
/** Multiples of 2^-10 below 2^8: sums of two, and products by powers of two, are exact, and no product underflows. */
const gridFloat = fc.integer({ min: -(2 ** 18), max: 2 ** 18 }).map((i) => i / 2 ** 10);

/** The columns reach past the steps of 16 and of 4 into both tails. */
function batchOf(value: fc.Arbitrary<number>): fc.Arbitrary<Batch> {
  const floats = (size: number) =>
    fc.array(value, { minLength: size, maxLength: size }).map((list) => Float32Array.from(list));
  return fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 39 })).chain(([rows, cols]) =>
    fc.record({
      rows: fc.constant(rows),
      cols: fc.constant(cols),
      x: floats(rows * cols),
      dy: floats(rows * cols),
      weight: floats(cols),
      bias: floats(cols),
    }),
  );
}

/** A batch and an order of its rows. */
const ordered = batchOf(anyFloat).chain((batch) => {
  const indices = Array.from({ length: batch.rows }, (_, i) => i);
  const all = { minLength: batch.rows, maxLength: batch.rows };
  return fc.tuple(fc.constant(batch), fc.shuffledSubarray(indices, all));
});

function forward({ x, cols, weight, bias }: Batch, eps = 1e-5) {
  return layerNormWithStats(x, cols, weight, bias, eps);
}

/** With the statistics that forward gives. */
function backward({ x, dy, cols, weight }: Batch, eps = 1e-5) {
  const { mean, rstd } = layerNormWithStats(x, cols, null, null, eps);
  return layerNormBackward(dy, x, mean, rstd, weight);
}

const row = (array: ArrayLike<number>, r: number, cols: number): number[] =>
  Array.from(array).slice(r * cols, (r + 1) * cols);
const largest = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((max, value) => Math.max(max, Math.abs(value)), 0);
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const bits = (array: Float32Array): number[] => [...new Uint32Array(array.buffer, array.byteOffset, array.length)];

/** What any y of a row may be off. */
function forwardBound(batch: Batch, r: number, eps = 1e-5): number {
  const xhat = row(referenceForward({ ...batch, eps }).xhat, r, batch.cols);
  const terms = (1 + largest(xhat)) * largest(batch.weight) + largest(batch.bias);
  return (LIMITS.layerNorm.y / 3) * UNIT * (terms + 2 ** -126);
}

/** What any dx of a row may be off. A term that is subnormal is rounded to 2^-149, and rstd multiplies that. */
function backwardBound(batch: Batch, r: number, eps = 1e-5): number {
  const { xhat, rstd } = referenceForward({ ...batch, eps });
  const g = row(batch.dy, r, batch.cols).map((value, i) => value * batch.weight[i]!);
  const rms = Math.sqrt(mean(g.map((value) => value ** 2)));
  const terms = largest(g) + (1 + largest(row(xhat, r, batch.cols))) * rms;
  return (LIMITS.layerNorm.dx / 3) * UNIT * Math.max(rstd[r]!, 1) * (terms + 2 ** -126);
}

/** Expects two results to differ by no more than a bound of each row. */
function expectWithin(
  { cols }: Batch,
  got: Float32Array,
  expected: ArrayLike<number>,
  bound: (row: number) => number,
): void {
  const bounds = Array.from({ length: got.length / cols }, (_, r) => bound(r));
  for (const [i, value] of got.entries()) {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(bounds[Math.floor(i / cols)]!);
  }
}

/** `sum` - (a + b) of floats, where float64 would round a + b: `sum` less the larger of them is exact. */
function roundingOf(sum: number, a: number, b: number): number {
  return Math.abs(a) > Math.abs(b) ? sum - a - b : sum - b - a;
}

/** All rows vary: with eps = 0 a constant one has no result. `least` is of the standard deviation. */
function varies(batch: Batch, least = 0): boolean {
  return [...referenceForward({ ...batch, eps: 0 }).rstd].every((rstd) => rstd > 0 && 1 / rstd > least);
}

describe("forward", () => {
  test("adding a constant to the rows leaves y", () => {
    // On the grid x + c is exact for the first kind of constants; elsewhere it is rounded.
    const constant = fc.oneof(
      fc.integer({ min: -(2 ** 13), max: 2 ** 13 }),
      fc.float({ min: -(2 ** 20), max: 2 ** 20, noNaN: true }),
    );
    forAll(fc.tuple(fc.oneof(batchOf(anyFloat), batchOf(gridFloat)), constant), ([batch, c]) => {
      const moved = { ...batch, x: batch.x.map((value) => value + c) };
      const errors = Array.from(moved.x, (value, i) => roundingOf(value, batch.x[i]!, c));
      const { xhat } = referenceForward({ ...batch, eps: 1e-5 });
      const { rstd } = referenceForward({ ...moved, eps: 1e-5 });
      expectWithin(batch, forward(moved).y, forward(batch).y, (r) => {
        // Of the errors e of x + c, |e| <= E: x - mean moves by e - mean(e), at most 2E. sqrt(var + eps) is a norm, that of
        // (x - mean) / sqrt(cols) and sqrt(eps), and moves by at most that of e - mean(e), which is no more than E. So
        //   |xhat' - xhat| <= rstd' * (2E + |xhat| * E)
        const e = largest(row(errors, r, batch.cols));
        const rounding = rstd[r]! * e * (2 + largest(row(xhat, r, batch.cols))) * largest(batch.weight);
        return forwardBound(batch, r) + forwardBound(moved, r) + rounding;
      });
    });
  });

  test("scaling the rows by a power of two leaves y to the bit, with eps = 0", () => {
    forAll(fc.tuple(batchOf(gridFloat), fc.integer({ min: -20, max: 20 })), ([batch, k]) => {
      // A standard deviation of 2^-30, 2^-50 once scaled, is where the kernel takes the variance to have underflowed.
      fc.pre(varies(batch, 2 ** -29));
      const before = forward(batch, 0);
      const after = forward({ ...batch, x: batch.x.map((value) => value * 2 ** k) }, 0);
      expect(bits(after.y)).toEqual(bits(before.y));
      expect(bits(after.mean)).toEqual(bits(before.mean.map((value) => value * 2 ** k)));
      expect(bits(after.rstd)).toEqual(bits(before.rstd.map((value) => value / 2 ** k)));
    });
  });

  test("scaling the rows by any power of two that floats can take leaves y, with eps = 0", () => {
    forAll(fc.tuple(batchOf(gridFloat), fc.integer({ min: -139, max: 119 })), ([batch, k]) => {
      // Squares overflow from 2^64 and underflow from 2^-63: the other ways through the kernel. x itself is exact throughout.
      fc.pre(varies(batch));
      const after = forward({ ...batch, x: batch.x.map((value) => value * 2 ** k) }, 0).y;
      expectWithin(batch, after, forward(batch, 0).y, (r) => 2 * forwardBound(batch, r, 0));
    });
  });
});

test("permuting the rows permutes y and dx to the bit", () => {
  forAll(ordered, ([batch, order]) => {
    const permute = (array: Float32Array) => Float32Array.from(order.flatMap((r) => row(array, r, batch.cols)));
    const permuted = { ...batch, x: permute(batch.x), dy: permute(batch.dy) };
    expect(bits(forward(permuted).y)).toEqual(bits(permute(forward(batch).y)));
    expect(bits(backward(permuted).dx)).toEqual(bits(permute(backward(batch).dx)));
  });
});

describe("backward", () => {
  test("scaling dy by a power of two scales all gradients, to the bit", () => {
    forAll(fc.tuple(batchOf(gridFloat), fc.integer({ min: -20, max: 20 })), ([batch, k]) => {
      const scale = (array: Float32Array) => array.map((value) => value * 2 ** k);
      const before = backward(batch);
      const after = backward({ ...batch, dy: scale(batch.dy) });
      for (const name of ["dx", "dweight", "dbias"] as const)
        expect(bits(after[name])).toEqual(bits(scale(before[name])));
    });
  });

  test("dx of a sum of dy is the sum of their dx", () => {
    const pairs = fc
      .oneof(batchOf(anyFloat), batchOf(gridFloat))
      .chain((batch) =>
        fc.tuple(fc.constant(batch), fc.array(anyFloat, { minLength: batch.dy.length, maxLength: batch.dy.length })),
      );
    forAll(pairs, ([batch, other]) => {
      const second = { ...batch, dy: Float32Array.from(other) };
      const both = { ...batch, dy: batch.dy.map((value, i) => value + second.dy[i]!) };
      // What the rounding of that sum does is the dx of the roundings, by the linearity itself.
      const dy = Float64Array.from(both.dy, (value, i) => roundingOf(value, batch.dy[i]!, second.dy[i]!));
      const rounding = referenceBackward({ ...batch, dy, eps: 1e-5 }).dx;
      const [a, b] = [backward(batch).dx, backward(second).dx];
      const expected = rounding.map((value, i) => value + a[i]! + b[i]!);
      const bound = (r: number) => backwardBound(batch, r) + backwardBound(second, r) + backwardBound(both, r);
      expectWithin(batch, backward(both).dx, expected, bound);
    });
  });
});
