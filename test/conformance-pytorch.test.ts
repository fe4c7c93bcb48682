// PyTorch: the situations of its own layer norm tests, through its kind of module, against our reference in float64.

import { describe, expect, test } from "vitest";
import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, Runtime, Tensor } from "../src/index.js";
import { normal, uniform } from "./helpers.js";
import { type Case, LIMITS, UNIT } from "./reference.js";
import { expectWithin } from "./within.js";

/** Expects a module of these parameters to match the reference within the limits. */
function expectMatch(ln: LayerNorm, input: Case & { x: Float32Array; dy: Float32Array }): void {
  const [y, dx] = [ln.forward(input.x), ln.backward(input.dy)];
  expectWithin({ y, dx, dweight: ln.weight!.grad, ...(ln.bias && { dbias: ln.bias.grad }) }, input);
}

describe("refuses a normalized shape that doesn't fit:", () => {
  test("() on (), when it is given", () => {
    const message = "normalizedShape is [], expected at least one dimension";
    expect(() => new LayerNorm([])).toThrow(new RangeError(`LayerNorm: ${message}`));
    expect(() => layerNorm(new Tensor([]), [])).toThrow(new RangeError(`layerNorm: ${message}`));
  });

  test.each([
    { normalizedShape: [2, 3], shape: [3], message: "has the shape [3], expected [..., 2, 3]" },
    { normalizedShape: [2], shape: [1, 2, 3], message: "has the shape [1, 2, 3], expected [..., 2]" },
    { normalizedShape: [10], shape: [2, 3], message: "has the shape [2, 3], expected [..., 10]" },
    { normalizedShape: 10, shape: [2, 3], message: "has the shape [2, 3], expected [..., 10]" },
  ])("$normalizedShape on $shape", ({ normalizedShape, shape, message }) => {
    const x = new Tensor(shape);
    expect(() => layerNorm(x, normalizedShape)).toThrow(new RangeError(`layerNorm: x ${message}`));
    const ln = new LayerNorm(normalizedShape);
    expect(() => ln.forward(x)).toThrow(new RangeError(`LayerNorm.forward: x ${message}`));
  });

  // An array has no shape but its length, so that one of six is three rows of [2].
  test.each([
    { normalizedShape: [2, 3], size: 3, message: "has 3 elements, expected a multiple of 6" },
    { normalizedShape: [10], size: 6, message: "has 6 elements, expected a multiple of 10" },
    { normalizedShape: 10, size: 6, message: "has 6 elements, expected a multiple of 10" },
  ])("$normalizedShape on an array of $size", ({ normalizedShape, size, message }) => {
    const x = new Float32Array(size);
    expect(() => layerNorm(x, normalizedShape)).toThrow(new RangeError(`layerNorm: x ${message}`));
    const ln = new LayerNorm(normalizedShape);
    expect(() => ln.forward(x)).toThrow(new RangeError(`LayerNorm.forward: x ${message}`));
  });
});

test("takes the empty batch (0, 5), whose gradients are zero", () => {
  const ln = new LayerNorm(5);
  const x = new Tensor([0, 5]);
  expect(ln.forward(x).shape).toEqual([0, 5]);
  expect(ln.backward(new Tensor([0, 5])).shape).toEqual([0, 5]);
  for (const { grad } of ln.parameters()) expect([...grad]).toEqual([0, 0, 0, 0, 0]);
  const { mean, rstd } = layerNormWithStats(x, 5);
  const { dx, dweight, dbias } = layerNormBackward(x, x, mean, rstd, new Tensor([5]));
  expect(dx.shape).toEqual([0, 5]);
  for (const { data } of [dweight, dbias]) expect([...data]).toEqual([0, 0, 0, 0, 0]);
});

test("gives one column exactly the bias, and exactly no gradient to x and weight, at 1e6", () => {
  const ln = new LayerNorm(1);
  ln.loadStateDict({ weight: [3], bias: [0.7] });
  const x = Float32Array.of(1e6, -1e6, 1e6 + 0.0625, 999_999.9);
  expect([...ln.forward(x)]).toEqual(Array(4).fill(Math.fround(0.7)));
  // Adding zero turns -0 into 0.
  expect(Array.from(ln.backward(Float32Array.of(1, 2, 4, 8)), (value) => value + 0)).toEqual([0, 0, 0, 0]);
  expect(ln.weight!.grad[0]! + 0).toBe(0);
  expect(ln.bias!.grad[0]).toBe(15);
});

// Beside variances of 4: none, the default, one that counts as much, and ones that rule.
test.each([0, 1e-5, 4, 1e4, 1e12])("takes an eps of %d, forward and backward", (eps) => {
  const [rows, cols] = [3, 19];
  const parameters = { weight: normal(cols, 3), bias: normal(cols, 4) };
  const ln = new LayerNorm(cols, { eps });
  ln.loadStateDict(parameters);
  expectMatch(ln, { x: normal(rows * cols, 1, 0.5, 2), dy: normal(rows * cols, 2), ...parameters, rows, cols, eps });
});

test("makes a constant row NaN where eps is 0, and no other", () => {
  const x = Float32Array.of(...normal(5, 1), 2, 2, 2, 2, 2, ...normal(5, 2));
  const y = layerNorm(x, 5, null, null, 0);
  expect([...y.subarray(5, 10)]).toEqual(Array(5).fill(NaN));
  expect(y.subarray(0, 5)).toEqual(layerNorm(x.slice(0, 5), 5, null, null, 0));
  expect(y.subarray(10)).toEqual(layerNorm(x.slice(10), 5, null, null, 0));
});

test("has a weight that learns, and no bias, with bias=False", () => {
  const [rows, cols] = [4, 11];
  const weight = normal(cols, 3);
  const ln = new LayerNorm(cols, { bias: false });
  expect(ln.bias).toBeNull();
  expect(Object.keys(ln.stateDict())).toEqual(["weight"]);
  ln.loadStateDict({ weight });
  expectMatch(ln, { x: normal(rows * cols, 1), dy: normal(rows * cols, 2), weight, rows, cols, eps: 1e-5 });
});

test("normalizes over [256, 256, 144], forward and backward", () => {
  const shape = [256, 256, 144];
  const cols = 256 * 256 * 144;
  // A runtime of its own, since a memory doesn't shrink; and the reference in loops, without arrays of this size.
  const runtime = Runtime.create();
  const next = uniform(1);
  const make = (least: number, most: number) => {
    const tensor = new Tensor([1, ...shape], undefined, { runtime });
    const { data } = tensor;
    for (let i = 0; i < cols; i++) data[i] = least + (most - least) * next();
    return tensor;
  };
  using input = make(0, 10);
  using gradient = make(-1, 1);
  using ln = new LayerNorm(shape, { runtime });
  for (const { data } of ln.parameters()) for (let i = 0; i < cols; i++) data[i] = 0.5 + next();
  using output = ln.forward(input);
  using result = ln.backward(gradient);

  const [x, dy, y, dx] = [input.data, gradient.data, output.data, result.data];
  const [weight, bias] = [ln.weight!.data, ln.bias!.data];
  const [dweight, dbias] = [ln.weight!.grad, ln.bias!.grad];
  let mean = 0;
  for (let i = 0; i < cols; i++) mean += x[i]! / cols;
  let variance = 0;
  for (let i = 0; i < cols; i++) variance += (x[i]! - mean) ** 2 / cols;
  const rstd = 1 / Math.sqrt(variance + 1e-5);
  const sum = { g: 0, gx: 0, squares: 0 };
  for (let i = 0; i < cols; i++) {
    const xhat = (x[i]! - mean) * rstd;
    const g = dy[i]! * weight[i]!;
    sum.g += g / cols;
    sum.gx += (g * xhat) / cols;
    sum.squares += (g * g) / cols;
  }
  // The largest errors, in the units of errorsOf.
  const off = { y: 0, dx: 0, dweight: 0, dbias: 0 };
  for (let i = 0; i < cols; i++) {
    const xhat = (x[i]! - mean) * rstd;
    const g = dy[i]! * weight[i]!;
    const size = 1 + Math.abs(xhat);
    const terms = { y: weight[i]! * size + bias[i]!, dx: rstd * (Math.abs(g) + size * Math.sqrt(sum.squares)) };
    off.y = Math.max(off.y, Math.abs(y[i]! - (xhat * weight[i]! + bias[i]!)) / (UNIT * terms.y));
    off.dx = Math.max(off.dx, Math.abs(dx[i]! - rstd * (g - sum.g - xhat * sum.gx)) / (UNIT * terms.dx));
    off.dweight = Math.max(off.dweight, Math.abs(dweight[i]! - dy[i]! * xhat) / (UNIT * Math.abs(dy[i]!) * size));
    off.dbias = Math.max(off.dbias, Math.abs(dbias[i]! - dy[i]!));
  }
  for (const name of ["y", "dx", "dweight"] as const) expect(off[name]).toBeLessThanOrEqual(LIMITS.layerNorm[name] / 3);
  // One row: nothing is rounded.
  expect(off.dbias).toBe(0);
});
