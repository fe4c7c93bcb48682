// ONNX LayerNormalization-17 and RMSNormalization-23 and WebNN layerNormalization, which say what to normalize by axes: their node
// cases, against the definitions in float64, written here on axes of an n-dimensional array and sharing nothing with
// reference.ts but its units and limits.

import { describe, expect, test } from "vitest";
import { Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import { FAMILIES, type Family } from "./norms.js";
import { LIMITS, unitsOff } from "./reference.js";

interface NdArray {
  shape: readonly number[];
  data: ArrayLike<number>;
}

const count = (shape: readonly number[]) => shape.reduce((product, dimension) => product * dimension, 1);

/** The coordinates of the element at `offset`, the last dimension running fastest. */
function coordinates(shape: readonly number[], offset: number): number[] {
  const at: number[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at[axis] = offset % shape[axis]!;
    offset = Math.floor(offset / shape[axis]!);
  }
  return at;
}

/** The offset of the element that stands at `at` once `shape` is broadcast: aligned at the end, a dimension of 1 repeated. */
function broadcastOffset(shape: readonly number[], at: readonly number[]): number {
  const skipped = at.length - shape.length;
  return shape.reduce((offset, dimension, axis) => offset * dimension + (dimension === 1 ? 0 : at[skipped + axis]!), 0);
}

/** f of each element of a and that of b broadcast to it. */
function elementwise(f: (a: number, b: number) => number, a: NdArray, b: NdArray): NdArray {
  const data = Float64Array.from(a.data, (value, i) =>
    f(value, b.data[broadcastOffset(b.shape, coordinates(a.shape, i))]!),
  );
  return { shape: a.shape, data };
}

/** The mean over `axes`, each of which stays as a dimension of 1. */
function reduceMean(a: NdArray, axes: readonly number[]): NdArray {
  const shape = a.shape.map((dimension, axis) => (axes.includes(axis) ? 1 : dimension));
  const data = new Float64Array(count(shape));
  const each = data.length / count(a.shape);
  for (let i = 0; i < a.data.length; i++) {
    data[broadcastOffset(shape, coordinates(a.shape, i))]! += a.data[i]! * each;
  }
  return { shape, data };
}

const scalar = (value: number): NdArray => ({ shape: [], data: [value] });

interface Case {
  shape: readonly number[];
  /** Those normalized over: the trailing ones. */
  axes: readonly number[];
  /** Absent: the default of LayerNorm, which must be ours. */
  epsilon?: number | undefined;
  scale?: boolean;
  bias?: boolean;
}

const plus = (a: NdArray, b: NdArray) => elementwise((p, q) => p + q, a, b);
const times = (a: NdArray, b: NdArray) => elementwise((p, q) => p * q, a, b);
const absolute = (a: NdArray): NdArray => ({ ...a, data: Float64Array.from(a.data, Math.abs) });

/** Expects our y and statistics to be what the definition gives, operator by operator, in shape and within the limits. */
function expectConformance(
  { norm, withStats }: Family,
  { shape, axes, epsilon, scale = true, bias = true }: Case,
): void {
  const centered = norm === "layerNorm";
  const normalizedShape = axes.map((axis) => shape[axis]!);
  const leading = shape.slice(0, shape.length - axes.length);
  const cols = count(normalizedShape);
  const x = { shape, data: normal(count(shape), 1, 0.5, 2) };
  const weights = { shape: normalizedShape, data: normal(cols, 2) };
  const biases = { shape: normalizedShape, data: normal(cols, 3) };
  const [s, b] = [scale ? weights : scalar(1), bias && centered ? biases : scalar(0)];
  const mean = centered ? reduceMean(x, axes) : scalar(0);
  const d = elementwise((p, q) => p - q, x, mean);
  const variance = reduceMean(times(d, d), axes);
  const inverse = elementwise((p, q) => 1 / Math.sqrt(p + q), variance, scalar(epsilon ?? 1e-5));
  expect(inverse.shape).toEqual([...leading, ...axes.map(() => 1)]);
  const normalized = times(d, inverse);
  const y = plus(times(normalized, s), b);
  const terms = times(centered ? plus(absolute(normalized), scalar(1)) : absolute(normalized), absolute(s));

  using input = new Tensor(shape, x.data);
  using weight = new Tensor(normalizedShape, weights.data);
  using shift = new Tensor(normalizedShape, biases.data);
  const eps = centered ? epsilon : (epsilon ?? 1e-5);
  const results = withStats(input, normalizedShape, scale ? weight : null, bias ? shift : null, eps);
  expect(results.y.shape).toEqual(shape);
  const sizes = Array.from(inverse.data, (r, row) => Math.abs(mean.data[row]!) + 1 / r);
  const expected = {
    y: [y.data, plus(terms, absolute(b)).data],
    ...(centered && { mean: [mean.data, sizes] }),
    rstd: [inverse.data, inverse.data],
  };
  for (const name of ["y", "mean", "rstd"] as const) {
    using result = results[name as "y"];
    const [truth, scales] = expected[name] ?? [];
    expect(result === undefined).toBe(truth === undefined);
    if (!truth || !scales) continue;
    if (name !== "y") expect(result.shape).toEqual(leading);
    expect(unitsOff(result.data, truth, scales)).toBeLessThanOrEqual(LIMITS[norm][name] / (centered ? 2 : 1));
  }
}

/** ONNX's axis is the first of those normalized over, counted from the end where negative. */
function axesFrom(axis: number, rank: number): number[] {
  const first = axis < 0 ? axis + rank : axis;
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

/** The node cases, the same for both norms. */
const ONNX_CASES = (
  [
    ["2d", [3, 4], [0, 1, -1, -2]],
    ["3d", [2, 3, 5], [0, 1, 2, -1, -2, -3], 0.1],
    ["4d", [2, 3, 4, 5], [0, 1, 2, 3, -1, -2, -3, -4]],
    ["default_axis", [2, 3, 4, 5], [-1]],
  ] as [string, number[], number[], number?][]
).flatMap(([name, shape, axes, epsilon]) =>
  axes.map((axis) => ({ name: `${name}, axis ${axis}`, shape, axis, epsilon })),
);

test("ONNX has 19 cases of each", () => expect(new Set(ONNX_CASES.map(({ name }) => name)).size).toBe(19));

describe.each(FAMILIES)("ONNX's results of $norm", (family) => {
  test.each(ONNX_CASES)("$name", ({ shape, axis, epsilon }) =>
    expectConformance(family, { shape, axes: axesFrom(axis, shape.length), epsilon }),
  );
});

describe("WebNN layerNormalization of 24 elements over trailing axes", () => {
  const [layerNorm] = FAMILIES as [Family];
  // Without axes, all but the first.
  const shapes = [
    [4, 6],
    [2, 3, 4],
    [2, 1, 4, 3],
    [2, 1, 4, 1, 3],
  ];
  test.each(shapes.map((shape) => ({ shape, axes: axesFrom(1, shape.length) })))(
    "$shape without options normalizes over $axes",
    ({ shape, axes }) => expectConformance(layerNorm, { shape, axes, scale: false, bias: false }),
  );

  test.each([
    { name: "scale", shape: [2, 1, 4, 1, 3], axes: [1, 2, 3, 4], bias: false },
    { name: "bias", shape: [2, 1, 4, 1, 3], axes: [1, 2, 3, 4], scale: false },
    { name: "scale and bias", shape: [4, 6], axes: [1] },
    { name: "epsilon", shape: [2, 1, 4, 3], axes: [1, 2, 3], epsilon: 1e-6, scale: false, bias: false },
    { name: "a large epsilon", shape: [4, 6], axes: [1], epsilon: 10, scale: false, bias: false },
    { name: "axes [2]", shape: [2, 3, 4], axes: [2], scale: false, bias: false },
    { name: "axes [2, 3]", shape: [2, 1, 4, 3], axes: [2, 3], scale: false, bias: false },
    { name: "axes [0, 1, 2], all of them", shape: [2, 3, 4], axes: [0, 1, 2], scale: false, bias: false },
    { name: "axes [3, 4], scale, bias and epsilon", shape: [2, 1, 4, 1, 3], axes: [3, 4], epsilon: 1e-4 },
  ])("$shape with $name", ({ name: _, ...options }) => expectConformance(layerNorm, options));
});
