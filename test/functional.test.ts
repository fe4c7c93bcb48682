import { describe, expect, expectTypeOf, test } from "vitest";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  type Operand,
  Runtime,
  Tensor,
} from "../src/index.js";
import { normal } from "./helpers.js";
import { expectWithin } from "./within.js";

const rows = 6;
const cols = 35;
const x = normal(rows * cols, 1, 0.3, 2);
const dy = normal(rows * cols, 2);
const weight = normal(cols, 3);
const bias = normal(cols, 4);
const input = { x, dy, weight, bias, rows, cols, eps: 1e-3 };

describe("layerNorm", () => {
  test("normalizes an array", () => {
    const y = layerNorm(x, cols, weight, bias, 1e-3);
    expectTypeOf(y).toExtend<Float32Array>();
    expect(y).toBeInstanceOf(Float32Array);
    expect(y.buffer).not.toBe(Runtime.default.memory.buffer);
    expectWithin({ y }, input);
  });

  test("normalizes a Tensor over several dimensions", () => {
    const t = new Tensor([2, 3, 5, 7], x);
    const y = layerNorm(t, [5, 7], new Tensor([5, 7], weight), new Tensor([5, 7], bias), 1e-3);
    expectTypeOf(y).toEqualTypeOf<Tensor>();
    expect(y.shape).toEqual([2, 3, 5, 7]);
    expect(y.data).toEqual(layerNorm(x, cols, weight, bias, 1e-3));
    expect([...t.data]).toEqual([...x]);
  });

  test("takes arrays beside Tensors, and the other way round", () => {
    const expected = layerNorm(x, cols, weight, bias);
    expect(layerNorm(new Tensor([rows, cols], x), cols, weight, bias).data).toEqual(expected);
    expect(layerNorm(x, cols, new Tensor([cols], weight), new Tensor([cols], bias))).toEqual(expected);
  });

  test("has an eps of 1e-5, and neither weight nor bias, by default", () => {
    expect(layerNorm(x, cols)).toEqual(new LayerNorm(cols, { elementwiseAffine: false, eps: 1e-5 }).forward(x));
    expect(layerNorm(x, cols, null, null)).toEqual(layerNorm(x, cols, undefined, undefined, 1e-5));
    expect(layerNorm(x, cols, undefined, bias)).toEqual(layerNorm(x, cols, new Float32Array(cols).fill(1), bias));
  });

  test("takes a batch without rows", () => {
    expect(layerNorm(new Float32Array(0), 5).length).toBe(0);
    expect(layerNorm(new Tensor([0, 5]), 5).shape).toEqual([0, 5]);
  });

  test("takes views of its own memory, which grows on the way", () => {
    const runtime = Runtime.create();
    const big = new Tensor([400, 500], normal(400 * 500, 5), { runtime });
    const w = new Tensor([500], normal(500, 6), { runtime });
    const b = new Tensor([500], normal(500, 7), { runtime });
    const expected = layerNorm(big.data.slice(), 500, w.data.slice(), b.data.slice());
    const before = runtime.memory.buffer;
    const got = layerNorm(big.data, 500, w, b.data);
    expect(got.findIndex((value, i) => value !== expected[i])).toBe(-1); // toEqual takes a second for so many
    expect(runtime.memory.buffer).not.toBe(before);
  });

  test.each([
    [
      [[[1, 2]] as never, 2],
      TypeError,
      "layerNorm: x has [1, 2] at 0, expected a flat list of numbers; list.flat(Infinity) makes one",
    ],
    [[undefined as never, 2], TypeError, "layerNorm: x is undefined, expected a Float32Array or a Tensor"],
    [
      [new Uint16Array(2) as never, 2],
      TypeError,
      "layerNorm: x is a Uint16Array, expected a Float32Array or a Tensor; half floats are a Float16Array, where the host has it",
    ],
    [[new Int32Array(2) as never, 2], TypeError, "layerNorm: x is an Int32Array, expected a Float32Array or a Tensor"],
    [[x, 0], RangeError, "layerNorm: normalizedShape is [0], expected integers of 1 or more"],
    [[x, []], RangeError, "layerNorm: normalizedShape is [], expected at least one dimension"],
    [
      [x, "35" as never],
      TypeError,
      'layerNorm: normalizedShape is "35", expected a positive integer or a list of them',
    ],
    [[x, 36], RangeError, "layerNorm: x has 210 elements, expected a multiple of 36"],
    [[x, cols, bias.slice(1)], RangeError, "layerNorm: weight has 34 elements, expected 35"],
    [[x, cols, weight, bias.slice(1)], RangeError, "layerNorm: bias has 34 elements, expected 35"],
    [[x, cols, null, [0]], RangeError, "layerNorm: bias has 1 elements, expected 35"],
    [[x, [5, 7], new Tensor([35])], RangeError, "layerNorm: weight has the shape [35], expected [5, 7]"],
    [[x, cols, null, null, -1], RangeError, "layerNorm: eps is -1, expected a finite number of 0 or more"],
    [[x, cols, null, null, Infinity], RangeError, "layerNorm: eps is Infinity, expected a finite number of 0 or more"],
    [[x, cols, null, null, "1" as never], TypeError, 'layerNorm: eps is "1", expected a number'],
    [[new Tensor([35, 6]), 35], RangeError, "layerNorm: x has the shape [35, 6], expected [..., 35]"],
    [[new Tensor([7]), [5, 7]], RangeError, "layerNorm: x has the shape [7], expected [..., 5, 7]"],
  ] as const)("refuses arguments that don't fit: %#", (args, kind, message) => {
    expect(() => layerNorm(...(args as unknown as Parameters<typeof layerNorm>))).toThrow(new kind(message));
  });

  test("refuses disposed Tensors and those of two runtimes", () => {
    const gone = new Tensor([2]);
    gone.dispose();
    expect(() => layerNorm(gone, 2)).toThrow(new TypeError("layerNorm: x was disposed"));
    const other = new Tensor([2], undefined, { runtime: Runtime.create() });
    expect(() => layerNorm(new Tensor([2]), 2, other)).toThrow(
      new TypeError("layerNorm: weight belongs to another runtime"),
    );
    expect(layerNorm(other, 2).runtime).toBe(other.runtime);
  });

  test("leaves nothing in the memory but its result", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    const t = new Tensor([2000, 2], undefined, { runtime });
    for (let i = 0; i < 100; i++) layerNorm(t, 2).dispose();
    expect(t.data.length).toBe(4000);
  });

  test("out of memory gives back what it had taken", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    const t = new Tensor([9000], undefined, { runtime });
    for (let i = 0; i < 3; i++) expect(() => layerNorm(t, 9000)).toThrow(/no room for 36000 bytes/);
    expect(() => new Tensor([5000], undefined, { runtime })).not.toThrow();
  });
});

test("operands of either kind have a type", () => {
  const operands: Operand[] = [x, new Tensor([6, 35], x)];
  const results: Operand[] = operands.map((operand) => layerNorm(operand, cols));
  expect(results.map((y) => y instanceof Tensor)).toEqual([false, true]);
  const y: Operand = new LayerNorm(cols).forward(operands[0]!);
  expect(y).toBeInstanceOf(Float32Array);
});

describe("layerNormWithStats", () => {
  test("gives mean and rstd, one a row", () => {
    const { y, mean, rstd } = layerNormWithStats(x, cols, weight, bias, 1e-3);
    expect(y).toEqual(layerNorm(x, cols, weight, bias, 1e-3));
    expectWithin({ mean, rstd }, input);
  });

  test("gives them the leading dimensions of a Tensor", () => {
    const { mean, rstd } = layerNormWithStats(new Tensor([2, 3, 5, 7], x), [5, 7]);
    expectTypeOf(mean).toEqualTypeOf<Tensor>();
    expect(mean.shape).toEqual([2, 3]);
    expect(rstd.shape).toEqual([2, 3]);
    expect(layerNormWithStats(new Tensor([7], normal(7, 1)), 7).mean.shape).toEqual([]);
  });
});

describe("layerNormBackward", () => {
  test("gives the three gradients of arrays", () => {
    const { mean, rstd } = layerNormWithStats(x, cols, weight, bias, 1e-3);
    const { dx, dweight, dbias } = layerNormBackward(dy, x, mean, rstd, weight);
    expectWithin({ dx, dweight, dbias }, input);
  });

  test("gives those of Tensors, in the shapes they have, with and without a weight", () => {
    const t = new Tensor([2, 3, 5, 7], x);
    const { mean, rstd } = layerNormWithStats(t, [5, 7]);
    const dyTensor = new Tensor([2, 3, 5, 7], dy);
    const { dx, dweight, dbias } = layerNormBackward(dyTensor, t, mean, rstd);
    expectTypeOf(dx).toEqualTypeOf<Tensor>();
    expect(dx.shape).toEqual([2, 3, 5, 7]);
    expect(dweight.shape).toEqual([5, 7]);
    expect(dbias.shape).toEqual([5, 7]);
    const arrays = layerNormBackward(dy, x, mean, rstd);
    expect(arrays.dx).toEqual(dx.data);
    expect(arrays.dweight).toEqual(dweight.data);
    const weighted = layerNormBackward(dyTensor, t, mean, rstd, new Tensor([5, 7], weight));
    expect(weighted.dx.data).toEqual(layerNormBackward(dy, x, mean, rstd, weight).dx);
  });

  test("takes arrays beside Tensors, and the other way round", () => {
    const { mean, rstd } = layerNormWithStats(x, cols, weight);
    const expected = layerNormBackward(dy, x, mean, rstd, weight);
    const t = new Tensor([rows, cols], x);
    const stats = layerNormWithStats(t, cols, weight);
    expect(layerNormBackward(dy, t, stats.mean, rstd, new Tensor([cols], weight))).toEqual(expected);
    const { dx, dweight, dbias } = layerNormBackward(new Tensor([rows, cols], dy), x, mean, stats.rstd, weight);
    expect({ dx: dx.data, dweight: dweight.data, dbias: dbias.data }).toEqual(expected);
  });

  test("sums many rows in double", () => {
    const many = 130;
    const pairs = Float32Array.from({ length: 2 * many }, (_, i) => 2 * (i % 2));
    const far = new Float32Array(2 * many);
    far
      .fill(2 ** 24, 0, 2)
      .fill(1, 128, 130)
      .fill(-(2 ** 24), 258);
    const { mean, rstd } = layerNormWithStats(pairs, 2, null, null, 0);
    const { dweight, dbias } = layerNormBackward(far, pairs, mean, rstd);
    expect([...dweight]).toEqual([-1, 1]);
    expect([...dbias]).toEqual([1, 1]);
  });

  test("takes a batch without rows", () => {
    const none = new Float32Array(0);
    expect(layerNormBackward(none, none, none, none)).toEqual({ dx: none, dweight: none, dbias: none });
    const { dx, dweight } = layerNormBackward(none, none, none, none, weight);
    expect(dx.length).toBe(0);
    expect([...dweight]).toEqual([...new Float32Array(cols)]);
    const { mean, rstd } = layerNormWithStats(new Tensor([0, 5]), 5);
    expect(layerNormBackward(new Tensor([0, 5]), new Tensor([0, 5]), mean, rstd).dbias.shape).toEqual([5]);
  });

  test("refuses outputs that overlap what is read, by name", () => {
    // Far enough apart that a large output from the last element of one on ends before the next.
    const block = new Tensor([4000], normal(4000, 1));
    const within = (index: number, shape: number[]) =>
      new Tensor(shape, undefined, { pointer: block.pointer + 4 * index });
    const [dyTensor, t, add] = [within(0, [6, 35]), within(500, [6, 35]), within(1000, [6, 35])];
    const [mean, rstd, affine] = [within(1500, [6]), within(2000, [6]), within(2500, [35])];
    const [out, dweight] = [within(3000, [6, 35]), within(3500, [35])];
    const refuses = (options: object, message: string) =>
      expect(() => layerNormBackward(dyTensor, t, mean, rstd, affine, options)).toThrow(
        new RangeError(`layerNormBackward: ${message}`),
      );
    const end = ({ pointer, size }: Tensor, shape: number[]) => within((pointer - block.pointer) / 4 + size - 1, shape);
    const before = block.data.slice();
    for (const [name, operand] of Object.entries({ dy: dyTensor, x: t, mean, rstd, weight: affine, add })) {
      refuses({ add, out: end(operand, [6, 35]) }, `out overlaps ${name}`);
      refuses({ add, dweight: end(operand, [35]) }, `dweight overlaps ${name}`);
      refuses({ add, dbias: end(operand, [35]) }, `dbias overlaps ${name}`);
    }
    refuses({ out, dweight: end(out, [35]) }, "out overlaps dweight");
    refuses({ dweight, dbias: end(dweight, [35]) }, "dweight overlaps dbias");
    expect(block.data).toEqual(before);
  });

  test("refuses operands that don't fit", () => {
    const { mean, rstd } = layerNormWithStats(x, cols);
    const call = (...args: unknown[]) =>
      expect(() => layerNormBackward(...(args as Parameters<typeof layerNormBackward>)));
    call(dy, x.slice(1), mean, rstd).toThrow(
      new RangeError("layerNormBackward: x has 209 elements, expected 210, as dy has"),
    );
    call(dy, x, mean, rstd.slice(1)).toThrow(
      new RangeError("layerNormBackward: rstd has 5 elements, expected 6, as mean has"),
    );
    call(dy, x, mean.slice(2), rstd.slice(2)).toThrow(
      new RangeError("layerNormBackward: dy has 210 elements, expected 4 rows, one for each rstd, of the same size"),
    );
    call(dy, x, mean, rstd, weight.slice(1)).toThrow(
      new RangeError("layerNormBackward: dy has 210 elements, expected 6 rows, one for each rstd, of the same size"),
    );
    call(dy, x, mean).toThrow(
      new TypeError("layerNormBackward: rstd is undefined, expected a Float32Array or a Tensor"),
    );
    const t = new Tensor([2, 3, 5, 7], x);
    const stats = layerNormWithStats(t, [5, 7]);
    call(t, t, stats.mean, stats.rstd, new Tensor([7, 5])).toThrow(
      new RangeError("layerNormBackward: dy has the shape [2, 3, 5, 7], expected [..., 7, 5]"),
    );
    call(t, t, stats.mean, stats.rstd, weight.slice(1)).toThrow(
      new RangeError("layerNormBackward: weight has 34 elements, expected 35"),
    );
    const row = new Tensor([4]);
    call(row, row, row, row).toThrow(new RangeError("layerNormBackward: dy has the shape [4], expected [..., 1]"));
    const three = new Tensor([3]);
    const across = new Tensor([4, 6]);
    call(across, across, three, three).toThrow(
      new RangeError("layerNormBackward: dy has the shape [4, 6], expected [..., 8]"),
    );
    call(across, across, three, three, new Float32Array(8)).toThrow(RangeError);
    call(new Tensor([6, 35]), new Tensor([35, 6]), mean, rstd).toThrow(
      new RangeError("layerNormBackward: x has the shape [35, 6], expected that of dy, [6, 35]"),
    );
  });
});

test("no rows of a Tensor, with statistics in arrays: the last dimension is normalized", () => {
  const none = () => new Tensor([2, 0, 5]);
  const { dx, dweight } = layerNormBackward(none(), none(), new Float32Array(0), new Float32Array(0));
  expect(dx.shape).toEqual([2, 0, 5]);
  expect(dweight.shape).toEqual([5]);
});
