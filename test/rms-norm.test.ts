// The module RMSNorm and its functions; its kernels are in forward.test.ts and backward.test.ts beside those of LayerNorm.

import { expectTypeOf } from "expect-type";
import { describe, expect, test } from "vitest";
import {
  LayerNorm,
  type Operand,
  Parameter,
  type ResultOf,
  RMSNorm,
  Runtime,
  rmsNorm,
  rmsNormBackward,
  rmsNormWithStats,
  Tensor,
} from "../src/index.js";
import { normal } from "./helpers.js";

const rows = 6;
const cols = 35;
const x = normal(rows * cols, 1, 0.5);
const dy = normal(rows * cols, 2);
const weight = normal(cols, 3, 1, 0.5);
const eps = 2 ** -23;

/** RMSNorm in float64. */
function reference(input: ArrayLike<number> = x) {
  const y: number[] = [];
  const rstd: number[] = [];
  const dx: number[] = [];
  const dweight = new Array<number>(cols).fill(0);
  for (let row = 0; row < rows; row++) {
    const values = Array.from({ length: cols }, (_, i) => input[row * cols + i]!);
    const r = 1 / Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / cols + eps);
    rstd.push(r);
    const g = values.map((_, i) => dy[row * cols + i]! * weight[i]!);
    const c = values.reduce((sum, value, i) => sum + g[i]! * value * r, 0) / cols;
    for (const [i, value] of values.entries()) {
      y.push(value * r * weight[i]!);
      dx.push(r * (g[i]! - value * r * c));
      dweight[i]! += dy[row * cols + i]! * value * r;
    }
  }
  return { y, rstd, dx, dweight };
}

/** Within so many units of 2^-23 of the largest: more than the kernels' limits, which other tests hold them to. */
function expectClose(got: ArrayLike<number>, expected: readonly number[], units = 8): void {
  const scale = Math.max(...expected.map(Math.abs));
  expect(got.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(Math.abs(got[i]! - value)).toBeLessThan(units * eps * scale);
}

function make(options: { runtime?: Runtime } = {}): RMSNorm {
  const norm = new RMSNorm(cols, options);
  norm.loadStateDict({ weight });
  return norm;
}

describe("RMSNorm", () => {
  test("has PyTorch's defaults: weight of ones, no bias, eps 2^-23, training mode", () => {
    const norm = new RMSNorm([5, 7]);
    expect([...norm.weight.data]).toEqual(new Array(35).fill(1));
    expect(norm.namedParameters().map(([name]) => name)).toEqual(["weight"]);
    expect(norm.eps).toBe(eps);
    expect(norm.training).toBe(true);
    expect(norm.normalizedShape).toEqual([5, 7]);
    expect(norm).not.toHaveProperty("bias");
  });

  test.each(["array", "Tensor"])("forward and backward of an %s match float64, and gradients add up", (kind) => {
    const norm = make();
    const { y, dx, dweight } = reference();
    if (kind === "array") {
      expectClose(norm.forward(x), y);
      expectClose(norm.backward(dy), dx);
      norm.backward(dy);
    } else {
      const [xTensor, dyTensor] = [new Tensor([2, 3, cols], x), new Tensor([2, 3, cols], dy)];
      expectClose(norm.forward(xTensor).data, y);
      expectClose(norm.backward(dyTensor).data, dx);
      norm.backward(dyTensor);
    }
    expectClose(
      norm.weight.grad,
      dweight.map((value) => 2 * value),
      16,
    );
    norm.zeroGrad();
    expect(norm.weight.grad.every((value) => value === 0)).toBe(true);
  });

  test("a weight that requires no gradient gets none", () => {
    const norm = make();
    norm.weight.requiresGrad = false;
    norm.forward(x);
    expectClose(norm.backward(dy), reference().dx);
    expect(norm.weight.grad.every((value) => value === 0)).toBe(true);
  });

  test.each(["array", "Tensor"])("residual and add of an %s have the bits of additions apart", (kind) => {
    const residual = normal(rows * cols, 4);
    const sum = x.map((value, i) => value + residual[i]!);
    const [apart, fused] = [make(), make()];
    const y = apart.forward(sum);
    const dx = apart.backward(dy).map((value, i) => value + residual[i]!);
    if (kind === "array") {
      const kept = new Float32Array(rows * cols);
      expect(fused.forward(x, { residual, sum: kept })).toEqual(y);
      expect(kept).toEqual(sum);
      expect(fused.backward(dy, { add: residual })).toEqual(dx);
    } else {
      const [a, b, d] = [x, residual, dy].map((data) => new Tensor([rows, cols], data)) as [Tensor, Tensor, Tensor];
      expect(fused.forward(a, { residual: b, sum: a }).data).toEqual(y);
      expect(a.data).toEqual(sum);
      expect(fused.backward(d, { add: b, out: d }).data).toEqual(dx);
    }
    expect(fused.weight.grad).toEqual(apart.weight.grad);
  });

  test("uses a weight that exists in place, and leaves it to its owner", () => {
    const given = new Tensor([cols], weight);
    const norm = new RMSNorm(cols, { weight: given });
    expect(norm.weight.pointer).toBe(given.pointer);
    expectClose(norm.forward(x), reference().y);
    norm.dispose();
    expect(given.disposed).toBe(false);
    expect(given.data).toEqual(weight);
    const parameter = new Parameter([cols], weight);
    expect(new RMSNorm(cols, { weight: parameter }).weight).toBe(parameter);
  });

  test.each(["weight", "gamma", "scale"])("loads a checkpoint that calls the weight %s, by prefix", (name) => {
    const norm = new RMSNorm(cols);
    norm.loadStateDict({ [`model.norm.${name}`]: weight, other: [1] }, { prefix: "model.norm." });
    expect(norm.stateDict()).toEqual({ weight });
    expect(() => norm.loadStateDict({ weight, bias: weight })).toThrow('RMSNorm.loadStateDict: "bias" is unknown');
  });

  test("calls itself RMSNorm in errors", () => {
    expect(() => new RMSNorm(cols, { bias: true } as never)).toThrow(
      new TypeError('RMSNorm: "bias" is not an option, expected eps, elementwiseAffine, weight, runtime'),
    );
    expect(() => make().forward(x.slice(1))).toThrow(/^RMSNorm.forward: x has 209 elements/);
    expect(() => make().eval().backward(dy)).toThrow(/^RMSNorm.backward: in eval mode/);
  });

  test("is told from its options whether it has a weight", () => {
    expectTypeOf(new RMSNorm(3).weight).toEqualTypeOf<Parameter>();
    expectTypeOf(new RMSNorm(3, { elementwiseAffine: false }).weight).toEqualTypeOf<null>();
    expectTypeOf(new LayerNorm(3).weight).toEqualTypeOf<Parameter>();
    expectTypeOf(new LayerNorm(3, { bias: false }).bias).toEqualTypeOf<null>();
    const apply = <T extends Operand>(norm: LayerNorm | RMSNorm, operand: T): ResultOf<T> => norm.forward(operand);
    const [layer, root] = [new LayerNorm(cols), make()];
    expect(apply(layer, x)).toEqual(layer.forward(x));
    expect(apply(root, x)).toEqual(root.forward(x));
    expect(new RMSNorm(3, { elementwiseAffine: false }).weight).toBe(null);
  });
});

describe("the functions", () => {
  test("give what the module gives, to the bit", () => {
    const norm = make();
    expect(rmsNorm(x, cols, weight)).toEqual(norm.forward(x));
    const { y, rstd } = rmsNormWithStats(x, cols, weight);
    expect(y).toEqual(norm.forward(x));
    expectClose(rstd, reference().rstd);
    const { dx, dweight, ...rest } = rmsNormBackward(dy, x, rstd, weight, { eps });
    expect(rest).toEqual({});
    expect(dx).toEqual(norm.backward(dy));
    expect(dweight).toEqual(norm.weight.grad);
  });

  test("add to a dweight that is given, and write to out", () => {
    const runtime = Runtime.create();
    const tensor = (shape: number[], data?: ArrayLike<number>) => new Tensor(shape, data, { runtime });
    const { rstd } = rmsNormWithStats(x, cols, weight);
    const plain = rmsNormBackward(dy, x, rstd, weight);
    const before = normal(cols, 5);
    const dweight = tensor([cols], before);
    const out = tensor([rows, cols]);
    const given = rmsNormBackward(tensor([rows, cols], dy), x, rstd, weight, { dweight, out, add: out });
    expect(given.dx).toBe(out);
    expect(given.dweight).toBe(dweight);
    expect(out.data).toEqual(plain.dx);
    expectClose(
      dweight.data,
      Array.from(before, (value, i) => value + plain.dweight[i]!),
    );
  });

  test("refuse unknown options", () => {
    expect(() => rmsNormBackward(dy, x, new Float32Array(rows), weight, { dbias: weight } as never)).toThrow(
      /"dbias" is not an option/,
    );
  });
});
