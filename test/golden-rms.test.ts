// RMSNorm against PyTorch: results that scripts/fixtures.py computed in float64 from float32 inputs, with and without a residual.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseSafetensors } from "../examples/safetensors.js";
import { RMSNorm, rmsNorm, Tensor } from "../src/index.js";
import { referenceBackward, referenceForward, unitsOff } from "./reference.js";
import { expectWithin } from "./within.js";

const { tensors, metadata } = parseSafetensors(
  readFileSync(new URL("fixtures/golden-rms.safetensors", import.meta.url)),
);
const cases = JSON.parse(metadata.cases!) as Record<string, { normalizedShape: number[]; eps: number }>;

test("the fixtures say which PyTorch made them, and half of them have a residual", () => {
  expect(metadata.torch).toMatch(/^\d+\.\d+/);
  expect(Object.keys(cases).length).toBe(9);
  expect(Object.keys(cases).filter((name) => tensors.has(`${name}/residual`)).length).toBe(5);
});

describe.each(Object.entries(cases))("PyTorch, %s", (name, { normalizedShape, eps }) => {
  const find = (key: string) => tensors.get(`${name}/${key}`);
  const floats = (key: string) => find(key)?.data as Float32Array | undefined;
  const { shape } = find("x")!;
  const [x, dy] = [floats("x")!, floats("dy")!];
  const [weight, residual, sum, add] = [floats("weight"), floats("residual"), floats("sum"), floats("add")];
  const cols = normalizedShape.reduce((product, dimension) => product * dimension, 1);
  const input = { norm: "rmsNorm", x: sum ?? x, dy, weight, rows: x.length / cols, cols, eps } as const;
  const expected = (key: string) => find(key)!.data as Float64Array;
  /** PyTorch's dx without what was added to it. */
  const gradient = () => expected("dx").map((value, i) => value - (add?.[i] ?? 0));

  // PyTorch and our reference are both float64: they agree to within some thousand of its roundings.
  test("our reference agrees with it", () => {
    const { dx, dweight } = referenceBackward(input);
    const results = { y: referenceForward(input).y, dx, ...(weight && { dweight }) };
    for (const [key, got] of Object.entries(results)) {
      const truth = key === "dx" ? gradient() : expected(key);
      const scale = Math.max(...truth.map(Math.abs));
      for (let i = 0; i < got.length; i++) expect(Math.abs(got[i]! - truth[i]!)).toBeLessThan(1e-10 * scale);
    }
  });

  test("the module agrees with it, forward and backward", () => {
    using norm = new RMSNorm(normalizedShape, { eps, elementwiseAffine: weight !== undefined });
    norm.loadStateDict({ ...(weight && { weight }) });
    using xTensor = new Tensor(shape, x);
    using ours = new Tensor(shape);
    using y = norm.forward(xTensor, residual && { residual: new Tensor(shape, residual), sum: ours });
    expect(y.shape).toEqual(shape);
    expectWithin({ y: y.data }, input);
    if (sum) expect(ours.data).toEqual(sum);
    using dyTensor = new Tensor(shape, dy);
    using dx = norm.backward(dyTensor);
    expectWithin({ dx: dx.data, ...(weight && { dweight: norm.weight!.grad }) }, input);
  });

  // Only cases with a residual have a gradient to add.
  if (add)
    test("backward with add gives PyTorch's gradient of both paths", () => {
      using norm = new RMSNorm(normalizedShape, { eps, elementwiseAffine: weight !== undefined });
      norm.loadStateDict({ ...(weight && { weight }) });
      norm.forward(x, { residual: residual! });
      const fused = norm.backward(dy, { add: add! });
      norm.forward(x, { residual: residual! });
      expect(fused).toEqual(norm.backward(dy).map((value, i) => value + add![i]!));
      const sizes = expected("dx").map((value) => 1 + Math.abs(value));
      expect(unitsOff(fused, expected("dx"), sizes)).toBeLessThanOrEqual(8);
    });

  test("the function agrees with the module, to the bit", () => {
    using norm = new RMSNorm(normalizedShape, { eps, elementwiseAffine: weight !== undefined });
    norm.loadStateDict({ ...(weight && { weight }) });
    expect(rmsNorm(x, normalizedShape, weight, eps, { ...(residual && { residual }) })).toEqual(
      norm.eval().forward(x, { ...(residual && { residual }) }),
    );
  });
});
