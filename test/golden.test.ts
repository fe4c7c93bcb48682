// Against PyTorch: results that scripts/fixtures.py computed in float64 from float32 inputs.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseSafetensors } from "../examples/safetensors.js";
import { LayerNorm, layerNorm, Tensor } from "../src/index.js";
import { referenceBackward, referenceForward } from "./reference.js";
import { expectWithin } from "./within.js";

const { tensors, metadata } = parseSafetensors(readFileSync(new URL("fixtures/golden.safetensors", import.meta.url)));
const cases = JSON.parse(metadata.cases!) as Record<string, { normalizedShape: number[]; eps: number }>;

test("the fixtures say which PyTorch made them", () => {
  expect(metadata.torch).toMatch(/^\d+\.\d+/);
  expect(Object.keys(cases).length).toBeGreaterThan(8);
});

describe.each(Object.entries(cases))("PyTorch, %s", (name, { normalizedShape, eps }) => {
  const find = (key: string) => tensors.get(`${name}/${key}`);
  const { shape, data: x } = find("x")!;
  const dy = find("dy")!.data as Float32Array;
  const weight = find("weight")?.data as Float32Array | undefined;
  const bias = find("bias")?.data as Float32Array | undefined;
  const cols = normalizedShape.reduce((product, dimension) => product * dimension, 1);
  const rows = x.length / cols;
  const input = { x, dy, weight, bias, rows, cols, eps };

  function make(): LayerNorm {
    const ln = new LayerNorm(normalizedShape, {
      eps,
      elementwiseAffine: weight !== undefined,
      bias: bias !== undefined,
    });
    ln.loadStateDict({ ...(weight && { weight }), ...(bias && { bias }) });
    return ln;
  }

  // PyTorch and our reference are both float64: they agree to within some thousand of its roundings.
  test("our reference agrees with it", () => {
    const forward = referenceForward(input);
    const backward = referenceBackward(input);
    for (const [key, got] of Object.entries({ y: forward.y, ...backward })) {
      const expected = find(key)?.data;
      if (!expected) continue;
      const scale = Math.max(...expected.map(Math.abs));
      for (let i = 0; i < got.length; i++) expect(Math.abs(got[i]! - expected[i]!)).toBeLessThan(1e-10 * scale);
    }
  });

  test("the module agrees with it, forward and backward", () => {
    using ln = make();
    using xTensor = new Tensor(shape, x);
    using y = ln.forward(xTensor);
    expect(y.shape).toEqual(shape);
    expectWithin({ y: y.data }, input);
    using dyTensor = new Tensor(shape, dy);
    using dx = ln.backward(dyTensor);
    const [dweight, dbias] = [ln.weight?.grad, ln.bias?.grad];
    expectWithin({ dx: dx.data, ...(dweight && { dweight }), ...(dbias && { dbias }) }, input);
  });

  test("the function agrees with the module, to the bit", () => {
    using ln = make();
    const y = layerNorm(x as Float32Array, normalizedShape, weight, bias, eps);
    expect(y).toEqual(ln.forward(x as Float32Array));
  });
});
