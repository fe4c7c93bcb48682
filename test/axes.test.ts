// ONNX LayerNormalization-17 and RMSNormalization-23 and WebNN layerNormalization, which say what to normalize by axes: their node
// cases, against the definitions in float64, written here on axes of an n-dimensional array and sharing nothing with
// reference.ts but its units and limits.

import { describe, expect, test } from "vitest";
import { layerNormWithStats, rmsNormWithStats, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
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

/** Both definitions, operator by operator. */
function define(x: NdArray, axes: readonly number[], epsilon: number, scale: NdArray, bias: NdArray) {
  const mean = reduceMean(x, axes);
  const d = elementwise((a, b) => a - b, x, mean);
  const variance = reduceMean(
    elementwise((a, b) => a * b, d, d),
    axes,
  );
  const invStdDev = elementwise((a, b) => 1 / Math.sqrt(a + b), variance, scalar(epsilon));
  const normalized = elementwise((a, b) => a * b, d, invStdDev);
  const scaled = elementwise((a, b) => a * b, normalized, scale);
  const y = elementwise((a, b) => a + b, scaled, bias);
  const sizes = elementwise((a, b) => (1 + Math.abs(a)) * Math.abs(b), normalized, scale);
  const terms = elementwise((a, b) => a + Math.abs(b), sizes, bias);
  return { y, mean, invStdDev, terms };
}

interface Case {
  shape: readonly number[];
  /** Those normalized over: the trailing ones. */
  axes: readonly number[];
  /** Absent: the default, which must be ours. */
  epsilon?: number | undefined;
  scale?: boolean;
  bias?: boolean;
}

/** Expects our y, mean and rstd to be what `define` gives, in shape and within the limits. */
function expectConformance({ shape, axes, epsilon, scale = true, bias = true }: Case): void {
  const normalizedShape = axes.map((axis) => shape[axis]!);
  const leading = shape.slice(0, shape.length - axes.length);
  const cols = count(normalizedShape);
  const x = { shape, data: normal(count(shape), 1, 0.5, 2) };
  const weights = { shape: normalizedShape, data: normal(cols, 2) };
  const biases = { shape: normalizedShape, data: normal(cols, 3) };
  const expected = define(x, axes, epsilon ?? 1e-5, scale ? weights : scalar(1), bias ? biases : scalar(0));
  expect(expected.mean.shape).toEqual([...leading, ...axes.map(() => 1)]);

  using input = new Tensor(shape, x.data);
  using weight = new Tensor(normalizedShape, weights.data);
  using shift = new Tensor(normalizedShape, biases.data);
  const results = layerNormWithStats(input, normalizedShape, scale ? weight : null, bias ? shift : null, epsilon);
  using y = results.y;
  using mean = results.mean;
  using rstd = results.rstd;
  expect(y.shape).toEqual(shape);
  expect([mean.shape, rstd.shape]).toEqual([leading, leading]);

  const invStdDev = Array.from(expected.invStdDev.data);
  const sizes = invStdDev.map((r, row) => Math.abs(expected.mean.data[row]!) + 1 / r);
  const limits = LIMITS.layerNorm;
  expect(unitsOff(y.data, expected.y.data, expected.terms.data)).toBeLessThanOrEqual(limits.y / 2);
  expect(unitsOff(mean.data, expected.mean.data, sizes)).toBeLessThanOrEqual(limits.mean / 2);
  expect(unitsOff(rstd.data, invStdDev, invStdDev)).toBeLessThanOrEqual(limits.rstd / 2);
}

/** The same for RMSNormalization, whose scale is always there. */
function expectRmsConformance({ shape, axes, epsilon = 1e-5 }: Case): void {
  const normalizedShape = axes.map((axis) => shape[axis]!);
  const leading = shape.slice(0, shape.length - axes.length);
  const cols = count(normalizedShape);
  const x = { shape, data: normal(count(shape), 1, 0.5, 2) };
  const weights = { shape: normalizedShape, data: normal(cols, 2) };
  const multiply = (a: NdArray, b: NdArray) => elementwise((p, q) => p * q, a, b);
  const inverse = elementwise((a, b) => 1 / Math.sqrt(a + b), reduceMean(multiply(x, x), axes), scalar(epsilon));
  const expected = Array.from(multiply(multiply(x, inverse), weights).data);

  using input = new Tensor(shape, x.data);
  using weight = new Tensor(normalizedShape, weights.data);
  const results = rmsNormWithStats(input, normalizedShape, weight, epsilon);
  using y = results.y;
  using rstd = results.rstd;
  expect([y.shape, rstd.shape]).toEqual([shape, leading]);
  expect(unitsOff(y.data, expected, expected.map(Math.abs))).toBeLessThanOrEqual(LIMITS.rmsNorm.y);
  expect(unitsOff(rstd.data, inverse.data, inverse.data)).toBeLessThanOrEqual(LIMITS.rmsNorm.rstd);
}

/** ONNX's axis is the first of those normalized over, counted from the end where negative. */
function axesFrom(axis: number, rank: number): number[] {
  const first = axis < 0 ? axis + rank : axis;
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

const axisName = (axis: number) => (axis < 0 ? `axis_negative_${-axis}` : `axis${axis}`);

/** The node cases, the same for both norms. */
const ONNX_CASES: { name: string; shape: number[]; axis: number; epsilon?: number }[] = [
  ...[0, 1, -1, -2].map((axis) => ({ name: `2d_${axisName(axis)}`, shape: [3, 4], axis })),
  ...[0, 1, 2, -1, -2, -3].map((axis) => ({
    name: `3d_${axisName(axis)}_epsilon`,
    shape: [2, 3, 5],
    axis,
    epsilon: 0.1,
  })),
  ...[0, 1, 2, 3, -1, -2, -3, -4].map((axis) => ({ name: `4d_${axisName(axis)}`, shape: [2, 3, 4, 5], axis })),
  { name: "default_axis", shape: [2, 3, 4, 5], axis: -1 },
];

describe("ONNX LayerNormalization-17 gives Y, Mean and InvStdDev", () => {
  test("in 19 cases", () => expect(new Set(ONNX_CASES.map(({ name }) => name)).size).toBe(19));

  test.each(ONNX_CASES)("layer_normalization_$name", ({ shape, axis, epsilon }) =>
    expectConformance({ shape, axes: axesFrom(axis, shape.length), epsilon }),
  );
});

describe("ONNX RMSNormalization-23, which has the same 19 cases, gives Y", () => {
  test.each(ONNX_CASES)("rms_normalization_$name", ({ shape, axis, epsilon }) =>
    expectRmsConformance({ shape, axes: axesFrom(axis, shape.length), epsilon }),
  );
});

describe("WebNN layerNormalization of 24 elements over trailing axes", () => {
  // Without axes, all but the first.
  const shapes = [
    [4, 6],
    [2, 3, 4],
    [2, 1, 4, 3],
    [2, 1, 4, 1, 3],
  ];
  test.each(shapes.map((shape) => ({ shape, axes: axesFrom(1, shape.length) })))(
    "$shape without options normalizes over $axes",
    ({ shape, axes }) => expectConformance({ shape, axes, scale: false, bias: false }),
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
  ])("$shape with $name", ({ name: _, ...options }) => expectConformance(options));
});
