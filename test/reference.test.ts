// The float64 reference against exact rational arithmetic, where float64 has the least digits to spare.

import { describe, expect, test } from "vitest";
import { inputOf, type Recipe } from "./recipe.js";
import { errorsOf, UNIT, unitsOff } from "./reference.js";

/** A rational number. */
type Ratio = readonly [numerator: bigint, denominator: bigint];

const zero: Ratio = [0n, 1n];
const add = ([a, b]: Ratio, [c, d]: Ratio): Ratio => (b === d ? [a + c, b] : [a * d + c * b, b * d]);
const times = ([a, b]: Ratio, [c, d]: Ratio): Ratio => [a * c, b * d];
const minus = (a: Ratio, [c, d]: Ratio): Ratio => add(a, [-c, d]);
const over = (a: Ratio, [c, d]: Ratio): Ratio => times(a, c < 0n ? [-d, -c] : [d, c]);
const sum = (ratios: Ratio[]) => ratios.reduce(add, zero);

/** A double as what it is. */
function exact(value: number): Ratio {
  let shift = 0n;
  for (; !Number.isInteger(value); shift++) value *= 2;
  return [BigInt(value), 1n << shift];
}

const bits = (value: bigint) => value.toString(2).length;

/** Rounded to a double, but for the last bit. */
function rounded([a, b]: Ratio): number {
  const size = a < 0n ? -a : a;
  const shift = 64 + bits(b) - bits(size);
  const quotient = Number(shift > 0 ? (size << BigInt(shift)) / b : size / (b << BigInt(-shift)));
  const half = Math.trunc(shift / 2);
  return Math.sign(Number(a > 0n) - Number(a < 0n)) * quotient * 2 ** -half * 2 ** (half - shift);
}

/** The square root, to 128 bits or so. */
function root([a, b]: Ratio): Ratio {
  const shift = BigInt(Math.max(0, 256 + bits(b) - bits(a))) & ~1n;
  const square = (a << shift) / b;
  let guess = 1n << BigInt((bits(square) >> 1) + 1);
  for (let next = (guess + square / guess) >> 1n; next < guess; next = (guess + square / guess) >> 1n) guess = next;
  return [guess, 1n << (shift / 2n)];
}

/** All results of one row. */
function exactly(recipe: Recipe) {
  const input = inputOf({ ...recipe, rows: 1 });
  const { norm, cols } = input;
  const [x, dy] = [input.x, input.dy ?? []].map((values) => Array.from(values, exact)) as [Ratio[], Ratio[]];
  const weight = Array.from({ length: cols }, (_, i) => exact(input.weight?.[i] ?? 1));
  const bias = Array.from({ length: cols }, (_, i) => exact(input.bias?.[i] ?? 0));
  const count: Ratio = [BigInt(cols), 1n];
  const mean = (values: Ratio[]) => over(sum(values), count);

  const m = norm === "layerNorm" ? mean(x) : zero;
  const d = x.map((value) => minus(value, m));
  const square = add(mean(d.map((value) => times(value, value))), exact(input.eps));
  const rstd = over([1n, 1n], root(square));
  const xhat = d.map((value) => times(value, rstd));
  const g = dy.map((value, i) => times(value, weight[i]!));
  const a = norm === "layerNorm" ? mean(g) : zero;
  const c = over(mean(g.map((value, i) => times(value, d[i]!))), square);
  return {
    input,
    results: {
      y: xhat.map((value, i) => rounded(add(times(value, weight[i]!), bias[i]!))),
      rstd: [rounded(rstd)],
      dx: g.map((value, i) => rounded(times(rstd, minus(minus(value, a), times(d[i]!, c))))),
      dweight: dy.map((value, i) => rounded(times(value, xhat[i]!))),
      dbias: dy.map(rounded),
    },
  };
}

const given = {
  rows: 1,
  cols: 37,
  eps: 1e-5,
  dy: { kind: "bell", seed: 2 },
  weight: { kind: "bell", seed: 3 },
} as const;
const CASES: Record<string, Partial<Recipe> & Pick<Recipe, "x">> = {
  "N(0, 1)": { x: { kind: "bell" }, bias: { kind: "bell", seed: 4 } },
  "offset 1e7": { x: { kind: "bell", offset: 1e7 } },
  "two floats beside each other": {
    x: { kind: "runs", values: [1.5, 1.5000001192092896], lengths: [36, 1] },
    eps: 1e-30,
  },
  "0.006 with the noise of its last bits": { x: { kind: "runs", values: [0.006], noise: 4.66e-10 }, eps: 1e-5 },
  "the largest floats": { x: { kind: "bell", scale: 1e38 }, eps: 0 },
  "subnormal numbers": { x: { kind: "bell", scale: 3e-39 }, eps: 0 },
  "one outlier, and dy of the signs of xhat": {
    x: { kind: "runs", values: [0.7, -0.71], spikes: [[5, 1, 4.3]] },
    dy: { kind: "sign" },
  },
  "dy * weight beyond float32": {
    x: { kind: "bell" },
    dy: { kind: "bell", scale: 1e38 },
    weight: { kind: "bell", scale: 1e10 },
  },
  "dy that is xhat": { x: { kind: "bell", offset: 3 }, dy: { kind: "xhat" } },
  "numbers of any size": { x: { kind: "binades", values: [40] }, dy: { kind: "binades", values: [40] }, eps: 1e-12 },
};

// Sums of 37 doubles err by 37 roundings of 2^-53, 2^-25 units of 2^-23 together; all results take less than 32 such sums.
const TOLERANCE = 2 ** -20;

describe.each(["layerNorm", "rmsNorm"] as const)("the reference of %s agrees with exact arithmetic", (norm) => {
  test.each(Object.entries(CASES))("%s", (_, recipe) => {
    const { input, results } = exactly({ norm, ...given, ...recipe });
    for (const units of Object.values(errorsOf(results, input))) expect(units).toBeLessThanOrEqual(TOLERANCE);
  });
});

test("exact arithmetic is right on numbers known by hand", () => {
  const x = { kind: "runs", values: [1, 3] } as const;
  const { results } = exactly({
    norm: "layerNorm",
    rows: 1,
    cols: 4,
    eps: 3,
    x,
    dy: { kind: "runs", values: [1, 0, 0, 0] },
  });
  // mean 2, var + eps 4, rstd 1/2, xhat ±1/2; mean(g) 1/4, mean(g * xhat) -1/8
  expect(results.rstd).toEqual([0.5]);
  expect(results.y).toEqual([-0.5, 0.5, -0.5, 0.5]);
  expect(results.dx).toEqual([11, -3, -5, -3].map((value) => value / 32));
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
