// Flax, llm.c and MLX: the situations and sizes of their own layer norm tests, against our reference in float64. ONNX and WebNN
// are in conformance-axes.test.ts, PyTorch in conformance-pytorch.test.ts, Keras in keras.test.ts.

import { describe, expect, test } from "vitest";
import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import type { Case } from "./reference.js";
import { expectWithin } from "./within.js";

/** Expects layerNormWithStats and layerNormBackward to match the reference within the limits. */
function expectMatch(input: Case & { dy: Float32Array; x: Float32Array }, shape: readonly number[]): void {
  const { x, dy, weight, bias, rows, cols, eps } = input;
  const { y, mean, rstd } = layerNormWithStats(x, shape, weight as Float32Array, bias as Float32Array, eps);
  expect([y.length, mean.length]).toEqual([rows * cols, rows]);
  const { dx, dweight, dbias } = layerNormBackward(dy, x, mean, rstd, weight as Float32Array);
  expectWithin({ y, mean, rstd, dx, dweight, dbias }, input);
}

describe("Flax", () => {
  test("normalizes x + 1e6 as it does x", () => {
    const [rows, cols] = [6, 37];
    // Sixteenths: a float32 near 1e6 holds them exactly, so that the shift loses nothing.
    const near = normal(rows * cols, 1).map((value) => Math.round(value * 16) / 16);
    const far = near.map((value) => value + 1e6);
    expect(far.map((value) => value - 1e6)).toEqual(near);
    const dy = normal(rows * cols, 2);
    const input = { x: far, dy, weight: normal(cols, 3), bias: normal(cols, 4), rows, cols, eps: 1e-6 };
    expectMatch(input, [cols]);
    const y = layerNorm(far, cols, input.weight, input.bias, 1e-6);
    expectWithin({ y }, { ...input, x: near });
  });
});

describe("llm.c, B=2 T=3 C=4", () => {
  const [B, T, C] = [2, 3, 4] as const;
  const x = normal(B * T * C, 1);
  const weight = normal(C, 2);
  const bias = normal(C, 3);
  const douts = [normal(B * T * C, 4), normal(B * T * C, 5)] as const;
  const inputs = douts.map((dy) => ({ x, dy, weight, bias, rows: B * T, cols: C, eps: 1e-5 }));

  test("gives out, mean and rstd, the last two of the shape (B, T)", () => {
    const { y, mean, rstd } = layerNormWithStats(new Tensor([B, T, C], x), C, weight, bias);
    expectWithin({ y: y.data, mean: mean.data, rstd: rstd.data }, inputs[0]!);
    expect([mean.shape, rstd.shape]).toEqual([
      [B, T],
      [B, T],
    ]);
  });

  test("accumulates dweight and dbias; dx, which it adds to, is assigned here", () => {
    const ln = new LayerNorm(C);
    ln.loadStateDict({ weight, bias });
    ln.forward(new Tensor([B, T, C], x));
    const out = new Tensor([B, T, C], normal(B * T * C, 6));
    for (const [call, dy] of douts.entries()) {
      const before = { dweight: ln.weight!.grad.slice(), dbias: ln.bias!.grad.slice() };
      expect(ln.backward(new Tensor([B, T, C], dy), { out })).toBe(out);
      const { grad } = ln.weight!;
      expectWithin({ dx: out.data, dweight: grad, dbias: ln.bias!.grad }, inputs[call]!, { before });
    }
  });
});

// Around a SIMD group, and around what one of MLX's kernels takes at once.
describe.each([31, 32, 33, 4099, 8192])("MLX, %d columns", (cols) => {
  const rows = 3;
  const [x, dy] = [normal(rows * cols, 1, 0.5), normal(rows * cols, 2)];
  const weight = normal(cols, 3);
  const bias = normal(cols, 4);

  test.each([
    { with: "weight and bias", affine: { weight, bias } },
    { with: "a weight alone", affine: { weight } },
    { with: "a bias alone", affine: { bias } },
    { with: "neither", affine: {} },
  ])("forward and backward with $with", ({ affine }) =>
    expectMatch({ x, dy, ...affine, rows, cols, eps: 1e-5 }, [cols]),
  );
});
