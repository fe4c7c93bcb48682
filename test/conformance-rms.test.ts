// RMS normalization, and additions before it: published cases of GGML, candle, Keras, PyTorch and onnxruntime, on their
// sizes, eps and values. ONNX's 19 cases are in conformance-axes.test.ts.
//
//   published                                 cases   run here, all of which pass
//   GGML, tests/test-backend-ops.cpp             86   86: alone 21, gradient 10, after an add 25, with mul and add 30
//   candle, candle-nn/tests/ops.rs                4   3: the other has an x of 16-bit floats
//   Keras, rms_normalization_test.py              5   5
//   PyTorch, RMSNorm of its module inputs         6   6
//   PyTorch, rms_norm of its operator inputs      9   8: the other has a negative eps, which is an error here
//   onnxruntime, skiplayernorm_op_test.cc        13   11: the others are rows of 64 numbers of 16 bits
//
// GGML's 72 cases of rms_norm_mul_rope are not counted: what they add is a rotary embedding.

import { describe, expect, test } from "vitest";
import { LayerNorm, layerNorm, RMSNorm, rmsNorm, rmsNormBackward, rmsNormWithStats, Tensor } from "../src/index.js";
import { uniform } from "./helpers.js";
import { type Case, referenceForward, UNIT } from "./reference.js";
import { expectWithin as within } from "./within.js";

function expectWithin(got: Parameters<typeof within>[0], input: Omit<Case, "norm">): void {
  within(got, { ...input, norm: "rmsNorm" });
}
const count = (shape: readonly number[]) => shape.reduce((product, dimension) => product * dimension, 1);

function numbers(size: number, seed: number, least: number, most: number): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  return Float32Array.from({ length: size }, () => least + (most - least) * next());
}

/** A sum of float32, as an operator of its own gives it. */
const add = (a: Float32Array, b: Float32Array) => a.map((value, i) => value + b[i]!);

/** The first place where two arrays differ, or -1; `toEqual` takes seconds for as many numbers as there are here. */
const difference = (a: Float32Array, b: Float32Array) => a.findIndex((value, i) => value !== b[i]);

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

describe("GGML, uniform numbers in (-10, 10)", () => {
  const shapes = [64, 1025].map((cols) => [3, 4, 5, cols]);
  const grid = [0, 1e-6, 1e-4, 1e-1, 10].flatMap((eps) => shapes.map((shape) => ({ eps, shape, cols: shape[3]! })));
  const published: string[] = [];
  const named = (name: string, ...options: unknown[]) => {
    published.push([name, ...options].join(" "));
    return published.at(-1)!;
  };

  describe.each(grid)("$shape, eps $eps", ({ shape, cols, eps }) => {
    const rows = 60;
    const x = numbers(rows * cols, 1, -10, 10);

    test(named("rms_norm", cols, eps), () => {
      const { y, rstd } = rmsNormWithStats(new Tensor(shape, x), cols, null, eps);
      expect(y.shape).toEqual(shape);
      expectWithin({ y: y.data, rstd: rstd.data }, { x, rows, cols, eps });
    });

    test(named("rms_norm of a view", cols, eps), () => {
      // The first half of each dimension, where it lies: each row is a Tensor in the memory of the whole.
      using whole = new Tensor(shape, x);
      const half = Math.floor(cols / 2);
      for (const row of [0, 1, 5, 6]) {
        using view = new Tensor([half], undefined, { pointer: whole.pointer + row * cols * 4 });
        using y = rmsNorm(view, half, null, eps);
        expectWithin({ y: y.data }, { x: x.slice(row * cols, row * cols + half), rows: 1, cols: half, eps });
      }
      expect(whole.data).toEqual(x);
    });

    test(named("rms_norm_back", cols, eps), () => {
      const dy = numbers(rows * cols, 2, -10, 10);
      const { rstd } = rmsNormWithStats(x, cols, null, eps);
      const { dx, dweight } = rmsNormBackward(dy, x, rstd, null, { eps });
      expectWithin({ dx, dweight }, { x, dy, rows, cols, eps });
    });
  });

  test(named("rms_norm in place"), () => {
    const [rows, cols, eps] = [60, 64, 1e-6];
    const x = numbers(rows * cols, 1, -10, 10);
    const norm = new RMSNorm(cols, { eps, elementwiseAffine: false }).eval();
    using tensor = new Tensor([3, 4, 5, cols], x);
    expect(norm.forward(tensor, { out: tensor })).toBe(tensor);
    expectWithin({ y: tensor.data }, { x, rows, cols, eps });
  });

  const fused = [
    ...shapes.flatMap((shape) =>
      [false, true].map((broadcast) => ({ shape, broadcast, multiAdd: false, epsilons: [0, 1e-6, 1e-4, 1e-1, 1] })),
    ),
    ...[1, 511, 1025, 8192, 16896].flatMap((cols) =>
      [false, true].map((multiAdd) => ({ shape: [1, 1, 1, cols], broadcast: false, multiAdd, epsilons: [1e-6] })),
    ),
  ];

  describe.each(fused)("$shape, broadcast $broadcast, additions twice $multiAdd", (options) => {
    const { shape, broadcast, multiAdd, epsilons } = options;
    const full = broadcast ? shape.map((dimension, axis) => dimension * [4, 3, 3, 2][axis]!) : shape;
    const cols = full[3]!;
    const rows = count(full) / cols;
    const a = numbers(rows * cols, 1, -10, 10);
    const [b, c] = [2, 3].map((seed) => repeat(numbers(count(shape), seed, -10, 10), shape, full)) as [
      Float32Array,
      Float32Array,
    ];
    const row = (data: Float32Array, i: number) => data.subarray(i * cols, (i + 1) * cols);
    // The reference takes long for 2160 rows. One in 13 has every index of each dimension, of 12, 12 and 15.
    const compared = Array.from({ length: rows }, (_, i) => i).filter((i) => !broadcast || i % 13 === 0);

    // Where it is added twice there is no case of this.
    if (!multiAdd)
      test.each(epsilons.map((eps) => [named("add_rms_norm", ...shape, eps, broadcast), eps] as const))(
        "%s",
        (_, eps) => {
          const sum = new Float32Array(rows * cols);
          const y = rmsNorm(a, cols, null, eps, { residual: b, sum });
          expect(difference(sum, add(a, b))).toBe(-1);
          for (const i of compared) expectWithin({ y: row(y, i) }, { x: row(sum, i), rows: 1, cols, eps });
        },
      );

    // The second factor has a row for each of x, so that each row is normalized with a weight of its own.
    test.each(epsilons.map((eps) => [named("rms_norm_mul_add", ...shape, eps, broadcast, multiAdd), eps] as const))(
      "%s",
      (_, eps) => {
        const x = multiAdd ? add(add(add(a, b), c), b) : add(a, b);
        const sum = new Float32Array(cols);
        for (const i of compared) {
          const y = rmsNorm(row(x, i), cols, row(b, i), eps, { residual: row(c, i), sum });
          expect(difference(sum, add(row(x, i), row(c, i)))).toBe(-1);
          expectWithin({ y }, { x: sum, weight: row(b, i), rows: 1, cols, eps });
        }
      },
    );
  });

  test("86 cases", () => expect(new Set(published).size).toBe(86));
});

describe("candle", () => {
  const x = [3, 1, 4, 1, 5, 9, 2, 1, 7, 8, 2, 8];

  test("rms_norm with the weight (1, 2, 3)", () => {
    const y = rmsNorm(new Tensor([2, 2, 3], x), 3, new Tensor([3], [1, 2, 3]), 1e-5);
    const published = [1.019, 0.6794, 4.0762, 0.1674, 1.6744, 4.521, 0.4714, 0.4714, 4.9497, 1.206, 0.603, 3.6181];
    expect(Array.from(y.data, (value) => Math.round(value * 1e4) / 1e4)).toEqual(published);
  });

  test("rms_norm of 24 x 70 rows of 64 numbers in (0, 1)", () => {
    const [rows, cols, eps] = [24 * 70, 64, 1e-5];
    const data = numbers(rows * cols, 1, 0, 1);
    expectWithin({ y: rmsNorm(data, cols, new Float32Array(cols).fill(1), eps) }, { x: data, rows, cols, eps });
  });

  test("rms_norm of numbers up to 7e9, whose squares sum to more than float32 holds with ease", () => {
    const [rows, cols, eps] = [4, 6912, 1e-5];
    const data = Float32Array.from(
      { length: rows * cols },
      (_, i) => (i % 2 ? -1 : 1) * Math.abs(Math.sin(i * 0.17)) * 7e9,
    );
    const y = rmsNorm(data, cols, null, eps);
    expect(y.every(Number.isFinite)).toBe(true);
    expectWithin({ y }, { x: data, rows, cols, eps });
  });
});

describe("Keras, eps 1e-6", () => {
  const eps = 1e-6;

  test.each([{ axis: "by default" }, { axis: "-1" }])("has one trainable weight, axis $axis, on (4, 2)", () => {
    const norm = new RMSNorm(2, { eps });
    expect(norm.parameters().length).toBe(1);
    const x = numbers(8, 1, -1, 1);
    const y = norm.forward(new Tensor([4, 2], x));
    expect(y.shape).toEqual([4, 2]);
    expectWithin({ y: y.data }, { x, rows: 4, cols: 2, eps });
  });

  test("normalizes (1000, 2, 2, 2) of mean 5 and deviation 10 over the last two axes", () => {
    const [rows, cols] = [2000, 4];
    const [u, v] = [uniform(1), uniform(2)];
    const x = Float32Array.from(
      { length: rows * cols },
      () => 5 + 10 * Math.sqrt(-2 * Math.log(u())) * Math.cos(2 * Math.PI * v()),
    );
    const y = new RMSNorm([2, 2], { eps }).forward(new Tensor([1000, 2, 2, 2], x));
    expectWithin({ y: y.data }, { x, rows, cols, eps });
  });

  test("gives the published values for 0 to 9", () => {
    const y = new RMSNorm(10, { eps }).forward(Float32Array.from({ length: 10 }, (_, i) => i));
    const published = [
      0, 0.18731716, 0.37463433, 0.5619515, 0.74926865, 0.9365858, 1.123903, 1.3112202, 1.4985373, 1.6858544,
    ];
    // Both sides are off by as much as y may be.
    for (const [i, value] of published.entries()) expect(Math.abs(y[i]! - value)).toBeLessThan(8 * UNIT * 1.6858544);
  });

  test("has a scale of (4, 8) over axes -1 and -2 of (2, 4, 8), here by its shape", () => {
    const norm = new RMSNorm([4, 8], { eps });
    const y = norm.forward(new Tensor([2, 4, 8], new Float32Array(64).fill(1)));
    expect([norm.weight.shape, y.shape]).toEqual([
      [4, 8],
      [2, 4, 8],
    ]);
    expectWithin({ y: y.data }, { x: new Float32Array(64).fill(1), rows: 2, cols: 32, eps });
  });
});

describe("PyTorch's modules, eps 1e-3, forward and backward", () => {
  test.each([
    { name: "1d_elementwise_affine", normalizedShape: [5], shape: [4, 5, 5], affine: true },
    { name: "1d_elementwise_affine_large_batch", normalizedShape: [5], shape: [128, 5, 5], affine: true },
    { name: "1d_no_elementwise_affine", normalizedShape: [5], shape: [4, 5, 5], affine: false },
    { name: "3d_elementwise_affine", normalizedShape: [2, 2, 5], shape: [4, 2, 2, 5], affine: true },
    { name: "3d_no_elementwise_affine", normalizedShape: [2, 2, 5], shape: [4, 2, 2, 5], affine: false },
    { name: "1d_empty_elementwise_affine", normalizedShape: [5], shape: [0, 5], affine: true },
  ])("$name", ({ normalizedShape, shape, affine }) => {
    const eps = 1e-3;
    const cols = count(normalizedShape);
    const rows = count(shape) / cols;
    const [x, dy] = [numbers(rows * cols, 1, -9, 9), numbers(rows * cols, 2, -9, 9)];
    const norm = new RMSNorm(normalizedShape, { eps, elementwiseAffine: affine });
    const y = norm.forward(new Tensor(shape, x));
    const dx = norm.backward(new Tensor(shape, dy));
    expect([y.shape, dx.shape]).toEqual([shape, shape]);
    const dweight = norm.weight?.grad;
    expect(dweight !== undefined).toBe(affine);
    expectWithin({ y: y.data, dx: dx.data, ...(dweight && { dweight }) }, { x, dy, rows, cols, eps });
  });
});

describe("PyTorch's operator, numbers in (-9, 1000)", () => {
  test.each([
    { shape: [1, 2, 3], normalizedShape: [1, 2, 3], eps: 0.5 },
    { shape: [1], normalizedShape: [1] },
    { shape: [1, 2], normalizedShape: [2] },
    { shape: [0, 1], normalizedShape: [1] },
    { shape: [1, 2], normalizedShape: [2], weighted: false },
  ])("$shape over $normalizedShape", ({ shape, normalizedShape, eps, weighted = true }) => {
    const cols = count(normalizedShape);
    const rows = count(shape) / cols;
    const x = numbers(rows * cols, 1, -9, 1000);
    const weight = weighted ? numbers(cols, 2, -9, 1000) : null;
    const y = rmsNorm(new Tensor(shape, x), normalizedShape, weight && new Tensor(normalizedShape, weight), eps);
    expect(y.shape).toEqual(shape);
    expectWithin({ y: y.data }, { x, weight, rows, cols, eps: eps ?? UNIT });
  });

  test("refuses a normalized shape of no dimensions", () => {
    expect(() => rmsNorm(new Tensor([1, 2, 3]), [])).toThrow(
      /normalizedShape is \[\], expected at least one dimension/,
    );
  });

  test("refuses a weight of another shape", () => {
    const weight = new Tensor([1, 2]);
    expect(() => rmsNorm(new Tensor([1, 2, 3]), [1, 2, 3], weight)).toThrow(/weight has the shape \[1, 2\]/);
  });

  test("refuses an x that doesn't end with the normalized shape", () => {
    expect(() => rmsNorm(new Tensor([2, 2, 3]), [2, 2])).toThrow(/x has the shape \[2, 2, 3\], expected \[..., 2, 2\]/);
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
  const batch2 = {
    input: [...input, ...input],
    skip: [...skip, 1.8, -0.3, 0, 1, -0.5, 0.4, 0.8, -0.6],
    output: [...first, ...second],
  };
  // Their third operand, a bias, is added to the input before: what is then normalized is that of Batch2.
  const projection = [0.1, -0.1, 0.2, -0.2];
  const withBias = {
    ...batch2,
    input: [0.7, -0.4, -0.2, 1.2, 0.4, 0.3, 0.1, -0.4, 0.7, -0.4, -0.2, 1.2, 0.4, 0.3, 0.1, -0.4].map((value, i) =>
      Math.fround(Math.fround(value) + Math.fround(projection[i % cols]!)),
    ),
  };
  const repeated = { input: [...input, ...input], skip: [...skip, ...skip], output: [...first, ...first] };

  interface SkipCase {
    name: string;
    shape: number[];
    input: readonly number[];
    skip: readonly number[];
    output: readonly number[];
    beta?: boolean;
    /** That of onnxruntime, where it computes in 16 bits. */
    tolerance?: number;
  }

  test.each<SkipCase>([
    { name: "NullInput", shape: [1, 0, 4], input: [], skip: [], output: [] },
    { name: "Batch1", shape: [1, 2, 4], input, skip, output: first },
    { name: "Batch1_Float16, in float32", shape: [1, 2, 4], input, skip, output: first, tolerance: 0.01 },
    {
      name: "Batch1_NoBeta",
      shape: [1, 2, 4],
      input,
      skip,
      output: first.map((value, i) => value - [0.2, 0.1, 0.4, 1.6][i % cols]!),
      beta: false,
    },
    { name: "Batch2", shape: [2, 2, 4], ...batch2 },
    { name: "Batch2_Bias", shape: [2, 2, 4], ...withBias },
    { name: "Batch2_Bias_ProducingOptionalOutput", shape: [2, 2, 4], ...withBias },
    { name: "Batch2_TokenCount", shape: [4, 4], ...batch2 },
    { name: "Batch2_Skip_Broadcast_No_Batch_Size", shape: [2, 2, 4], ...repeated },
    { name: "Batch2_Skip_Broadcast_Batch_Size_1", shape: [2, 2, 4], ...repeated },
  ])("SkipLayerNorm$name", ({ shape, input, skip, output, beta = true, tolerance }) => {
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
    const residual = new Float32Array(8);
    const y = rmsNorm(Float32Array.from(input), cols, weight, eps, { residual });
    for (const [i, value] of published.entries()) expect(Math.abs(y[i]! - value)).toBeLessThan(0.01);
  });
});
