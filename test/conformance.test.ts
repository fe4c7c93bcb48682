// Cases and published values of other libraries' own tests of both norms, against our reference in float64. PyTorch is
// in pytorch.test.ts, ONNX and WebNN in axes.test.ts, Keras' layers in keras.test.ts.
//
//   published                                 cases   run here, all of which pass
//   GGML, tests/test-backend-ops.cpp             86   86: alone 21, gradient 10, after an add 25, with mul and add 30
//   candle, candle-nn/tests/ops.rs                4   3: the other has an x of 16-bit floats
//   Keras, rms_normalization_test.py              5   5
//   onnxruntime, skiplayernorm_op_test.cc        13   11: the others are rows of 64 numbers of 16 bits
//
// GGML's 72 cases of rms_norm_mul_rope are not counted: what they add is a rotary embedding.

import { describe, expect, test } from "vitest";
import { LayerNorm, layerNorm, RMSNorm, rmsNorm, rmsNormBackward, rmsNormWithStats, Tensor } from "../src/index.js";
import { between, difference, normal } from "./helpers.js";
import { type Case, referenceForward, UNIT } from "./reference.js";
import { expectWithin } from "./within.js";

const count = (shape: readonly number[]) => shape.reduce((product, dimension) => product * dimension, 1);
const expectRms = (got: Parameters<typeof expectWithin>[0], input: Omit<Case, "norm">) =>
  expectWithin(got, { ...input, norm: "rmsNorm" });

/** A sum of float32, as an operator of its own gives it. */
const add = (a: Float32Array, b: Float32Array) => a.map((value, i) => value + b[i]!);

describe("GGML, uniform numbers in (-10, 10)", () => {
  const shapes = [64, 1025].map((cols) => [3, 4, 5, cols]);
  const grid = [0, 1e-6, 1e-4, 1e-1, 10].flatMap((eps) => shapes.map((shape) => ({ eps, shape, cols: shape[3]! })));
  const fused = [
    ...shapes.flatMap((shape) =>
      [false, true].map((broadcast) => ({ shape, broadcast, twice: false, epsilons: [0, 1e-6, 1e-4, 1e-1, 1] })),
    ),
    ...[1, 511, 1025, 8192, 16896].flatMap((cols) =>
      [false, true].map((twice) => ({ shape: [1, 1, 1, cols], broadcast: false, twice, epsilons: [1e-6] })),
    ),
  ].flatMap(({ epsilons, ...options }) => epsilons.map((eps) => ({ ...options, eps })));

  /** Repeats `data` of `shape` in each dimension until it is of the shape `to`; the last dimension is the fastest. */
  function repeat(data: Float32Array, shape: readonly number[], to: readonly number[]): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length: count(to) }, (_, offset) => {
      let from = 0;
      let stride = 1;
      for (let axis = to.length - 1; axis >= 0; axis--) {
        from += ((offset % to[axis]!) % shape[axis]!) * stride;
        offset = Math.floor(offset / to[axis]!);
        stride *= shape[axis]!;
      }
      return data[from]!;
    });
  }

  describe.each(grid)("$shape, eps $eps", ({ shape, cols, eps }) => {
    const rows = 60;
    const x = between(-10, 10, rows * cols, 1);

    test("rms_norm", () => {
      const { y, rstd } = rmsNormWithStats(new Tensor(shape, x), cols, null, eps);
      expect(y.shape).toEqual(shape);
      expectRms({ y: y.data, rstd: rstd.data }, { x, rows, cols, eps });
    });

    test("rms_norm of a view", () => {
      // The first half of each dimension, where it lies: each row is a Tensor in the memory of the whole.
      using whole = new Tensor(shape, x);
      const half = Math.floor(cols / 2);
      for (const row of [0, 1, 5, 6]) {
        using view = new Tensor([half], undefined, { pointer: whole.pointer + row * cols * 4 });
        using y = rmsNorm(view, half, null, eps);
        expectRms({ y: y.data }, { x: x.slice(row * cols, row * cols + half), rows: 1, cols: half, eps });
      }
      expect(whole.data).toEqual(x);
    });

    test("rms_norm_back", () => {
      const dy = between(-10, 10, rows * cols, 2);
      const { rstd } = rmsNormWithStats(x, cols, null, eps);
      const { dx, dweight } = rmsNormBackward(dy, x, rstd, null, { eps });
      expectRms({ dx, dweight }, { x, dy, rows, cols, eps });
    });
  });

  test("rms_norm in place", () => {
    const [rows, cols, eps] = [60, 64, 1e-6];
    const x = between(-10, 10, rows * cols, 1);
    const norm = new RMSNorm(cols, { eps, elementwiseAffine: false }).eval();
    using tensor = new Tensor([3, 4, 5, cols], x);
    expect(norm.forward(tensor, { out: tensor })).toBe(tensor);
    expectRms({ y: tensor.data }, { x, rows, cols, eps });
  });

  test.each(fused)("after additions, $shape, eps $eps, broadcast $broadcast, twice $twice", (options) => {
    const { shape, broadcast, twice, eps } = options;
    const full = broadcast ? shape.map((dimension, axis) => dimension * [4, 3, 3, 2][axis]!) : shape;
    const cols = full[3]!;
    const rows = count(full) / cols;
    const a = between(-10, 10, rows * cols, 1);
    const of = (seed: number) => repeat(between(-10, 10, count(shape), seed), shape, full);
    const [b, c] = [of(2), of(3)];
    const row = (data: Float32Array, i: number) => data.subarray(i * cols, (i + 1) * cols);
    // The reference takes long for 2160 rows. One in 13 has every index of each dimension, of 12, 12 and 15.
    const compared = Array.from({ length: rows }, (_, i) => i).filter((i) => !broadcast || i % 13 === 0);
    const sum = new Float32Array(rows * cols);
    // add_rms_norm, of which there is no case where it is added twice
    if (!twice) {
      const y = rmsNorm(a, cols, null, eps, { residual: b, sum });
      expect(difference(sum, add(a, b))).toBe(-1);
      for (const i of compared) expectRms({ y: row(y, i) }, { x: row(sum, i), rows: 1, cols, eps });
    }
    // rms_norm_mul_add, whose second factor has a row for each of x: each is normalized with a weight of its own
    const x = twice ? add(add(add(a, b), c), b) : add(a, b);
    for (const i of compared) {
      const y = rmsNorm(row(x, i), cols, row(b, i), eps, { residual: row(c, i), sum: row(sum, i) });
      expect(difference(row(sum, i), add(row(x, i), row(c, i)))).toBe(-1);
      expectRms({ y }, { x: row(sum, i), weight: row(b, i), rows: 1, cols, eps });
    }
  });

  test("in 86 cases", () => {
    const added = fused.filter(({ twice }) => !twice).length;
    expect([grid.length, added, fused.length]).toEqual([10, 25, 30]);
    expect(2 * grid.length + 1 + grid.length + added + fused.length).toBe(86);
  });
});

describe("candle", () => {
  test("rms_norm with the weight (1, 2, 3)", () => {
    const x = [3, 1, 4, 1, 5, 9, 2, 1, 7, 8, 2, 8];
    const y = rmsNorm(new Tensor([2, 2, 3], x), 3, new Tensor([3], [1, 2, 3]), 1e-5);
    const published = [1.019, 0.6794, 4.0762, 0.1674, 1.6744, 4.521, 0.4714, 0.4714, 4.9497, 1.206, 0.603, 3.6181];
    expect(Array.from(y.data, (value) => Math.round(value * 1e4) / 1e4)).toEqual(published);
  });

  test("rms_norm of 24 x 70 rows of 64 numbers in (0, 1)", () => {
    const [rows, cols, eps] = [24 * 70, 64, 1e-5];
    const x = between(0, 1, rows * cols, 1);
    expectRms({ y: rmsNorm(x, cols, new Float32Array(cols).fill(1), eps) }, { x, rows, cols, eps });
  });

  test("rms_norm of numbers up to 7e9, whose squares sum to more than float32 holds with ease", () => {
    const [rows, cols, eps] = [4, 6912, 1e-5];
    const x = Float32Array.from(
      { length: rows * cols },
      (_, i) => (i % 2 ? -1 : 1) * Math.abs(Math.sin(i * 0.17)) * 7e9,
    );
    const y = rmsNorm(x, cols, null, eps);
    expect(y.every(Number.isFinite)).toBe(true);
    expectRms({ y }, { x, rows, cols, eps });
  });
});

describe("Keras' RMSNormalization, eps 1e-6", () => {
  // Two of its cases differ in how they give the axis, the last one.
  test.each([
    { shape: [4, 2], axes: [2], x: between(-1, 1, 8, 1) },
    { shape: [1000, 2, 2, 2], axes: [2, 2], x: normal(8000, 1, 5, 10) },
    { shape: [2, 4, 8], axes: [4, 8], x: new Float32Array(64).fill(1) },
  ])("has one trainable weight, $axes on $shape", ({ shape, axes, x }) => {
    const norm = new RMSNorm(axes, { eps: 1e-6 });
    expect(norm.parameters().map((parameter) => parameter.shape)).toEqual([axes]);
    const y = norm.forward(new Tensor(shape, x));
    expect(y.shape).toEqual(shape);
    expectRms({ y: y.data }, { x, rows: x.length / count(axes), cols: count(axes), eps: 1e-6 });
  });

  test("gives the published values for 0 to 9", () => {
    const y = new RMSNorm(10, { eps: 1e-6 }).forward(Float32Array.from({ length: 10 }, (_, i) => i));
    const published = [
      0, 0.18731716, 0.37463433, 0.5619515, 0.74926865, 0.9365858, 1.123903, 1.3112202, 1.4985373, 1.6858544,
    ];
    // Both sides are off by as much as y may be.
    for (const [i, value] of published.entries()) expect(Math.abs(y[i]! - value)).toBeLessThan(8 * UNIT * 1.6858544);
  });
});

describe("onnxruntime, an addition before a norm of four columns, eps 1e-12", () => {
  const [cols, eps] = [4, 1e-12];
  const weight = Float32Array.of(0.3, 0.2, 4, 2.2);
  const bias = Float32Array.of(0.2, 0.1, 0.4, 1.6);
  const input = [0.8, -0.5, 0, 1, 0.5, 0.2, 0.3, -0.6];
  const skip = [0.1, -0.2, 0.3, 1, 0.5, 0.1, 0.4, 1.6];
  const [first, second] = [
    [0.284338593, -0.170905784, -0.928971648, 4.692415237, 0.461116523, -0.213339806, -0.296310037, 3.514854431],
    [0.554704309, -0.150801018, -2.32298255, 3.255286694, 0.156314805, 0.21066919, 4.943261147, -1.795796514],
  ] as const;
  const skip2 = [...skip, 1.8, -0.3, 0, 1, -0.5, 0.4, 0.8, -0.6];
  const unbiased = first.map((value, i) => value - [0.2, 0.1, 0.4, 1.6][i % cols]!);
  const batch1 = { shape: [1, 2, 4], input, skip, output: first };
  const batch2 = { shape: [2, 2, 4], input: [...input, ...input], skip: skip2, output: [...first, ...second] };
  // Their third operand, a bias, is added to the input before: what is then normalized is that of Batch2.
  const projection = [0.1, -0.1, 0.2, -0.2];
  const projected = [0.7, -0.4, -0.2, 1.2, 0.4, 0.3, 0.1, -0.4, 0.7, -0.4, -0.2, 1.2, 0.4, 0.3, 0.1, -0.4].map(
    (value, i) => Math.fround(Math.fround(value) + Math.fround(projection[i % cols]!)),
  );
  const repeated = { ...batch2, skip: [...skip, ...skip], output: [...first, ...first] };

  type SkipCase = Record<"shape" | "input" | "skip" | "output", readonly number[]> & {
    beta?: boolean;
    /** That of onnxruntime, where it computes in 16 bits. */
    tolerance?: number;
  };

  test.each<[string, SkipCase]>([
    ["NullInput", { shape: [1, 0, 4], input: [], skip: [], output: [] }],
    ["Batch1", batch1],
    ["Batch1_Float16, in float32", { ...batch1, tolerance: 0.01 }],
    ["Batch1_NoBeta", { ...batch1, output: unbiased, beta: false }],
    ["Batch2", batch2],
    ["Batch2_Bias", { ...batch2, input: projected }],
    ["Batch2_Bias_ProducingOptionalOutput", { ...batch2, input: projected }],
    ["Batch2_TokenCount", { ...batch2, shape: [4, 4] }],
    ["Batch2_Skip_Broadcast_No_Batch_Size", repeated],
    ["Batch2_Skip_Broadcast_Batch_Size_1", repeated],
  ])("SkipLayerNorm%s", (_, { shape, input, skip, output, beta = true, tolerance }) => {
    const [x, residual] = [Float32Array.from(input), Float32Array.from(skip)];
    const expected = add(x, residual);
    const tensor = (data: Float32Array) => new Tensor(shape, data);
    const sum = tensor(new Float32Array(x.length));
    const y = layerNorm(tensor(x), cols, weight, beta ? bias : null, eps, { residual: tensor(residual), sum });
    expect([y.shape, sum.shape]).toEqual([shape, shape]);
    expect(sum.data).toEqual(expected);
    const norm = new LayerNorm(cols, { eps, bias: beta }).eval();
    norm.loadStateDict({ weight, ...(beta && { bias }) });
    expect(norm.forward(tensor(x), { residual: tensor(residual) }).data).toEqual(y.data);
    // Either side may be off by 4 units. The sum with their bias is rounded once more: another unit.
    const { xhat } = referenceForward({ x: expected, rows: expected.length / cols, cols, eps });
    for (const [i, value] of output.entries()) {
      const scale = weight[i % cols]! * (1 + Math.abs(xhat[i]!)) + (beta ? bias[i % cols]! : 0);
      expect(Math.abs(y.data[i]! - value)).toBeLessThanOrEqual(tolerance ?? 9 * UNIT * scale);
    }
  });

  test("SkipSimplifiedLayerNormBatch1_Float16, in float32", () => {
    const published = [0.3491, -0.1455, 0, 3.2005, 0.3487, 0.093, 2.7899, -3.0689];
    const y = rmsNorm(Float32Array.from(input), cols, weight, eps, { residual: new Float32Array(8) });
    for (const [i, value] of published.entries()) expect(Math.abs(y[i]! - value)).toBeLessThan(0.01);
  });
});
