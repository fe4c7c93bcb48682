// The kinds of arrays that calls take, what results are then, and what is refused.

import { describe, expect, expectTypeOf, test } from "vitest";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  RMSNorm,
  Runtime,
  rmsNorm,
  rmsNormBackward,
  rmsNormWithStats,
  Tensor,
} from "../src/index.js";
import { normal } from "./helpers.js";

const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);
const dy = normal(rows * cols, 2);
const residual = normal(rows * cols, 3);
const weight = normal(cols, 4);
const bias = normal(cols, 5);

const MODULES: ((cols: number) => LayerNorm | RMSNorm)[] = [(cols) => new LayerNorm(cols), (cols) => new RMSNorm(cols)];

type Kind = typeof Float32Array;
const Halves = (globalThis as unknown as { Float16Array?: Kind }).Float16Array;
const KINDS: [string, Kind][] = [
  ["Float32Array", Float32Array],
  ["Float64Array", Float64Array as unknown as Kind],
  ...(Halves ? ([["Float16Array", Halves]] as [string, Kind][]) : []),
];

/** Where two arrays of one length differ; -1 where they don't. */
const firstDifference = (a: Float32Array, b: Float32Array) => a.findIndex((value, i) => !Object.is(value, b[i]));

describe.each(KINDS)("a %s", (_, Floats) => {
  /** The numbers as this kind holds them, and these as floats. */
  const of = (floats: Float32Array) => Floats.from(floats);
  const read = (floats: Float32Array) => Float32Array.from(of(floats));
  const [X, D, R, W, B] = [x, dy, residual, weight, bias].map(read) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];

  test("is an operand of every function, and gives results of its kind", () => {
    const total = X.map((value, i) => value + (R[i] as number));
    const sum = new Floats(x.length);
    const options = { residual: of(residual), sum };
    const forward = layerNormWithStats(of(x), cols, of(weight), of(bias), 1e-5, options);
    const expected = layerNormWithStats(total, cols, W, B, 1e-5);
    expect(forward).toEqual({ y: of(expected.y), mean: of(expected.mean), rstd: of(expected.rstd) });
    expect(sum).toEqual(of(total));
    expect(layerNorm(of(x), cols)).toEqual(of(layerNorm(X, cols)));
    expect(rmsNorm(of(x), cols, of(weight))).toEqual(of(rmsNorm(X, cols, W)));
    const { mean, rstd } = layerNormWithStats(X, cols, W, B, 1e-5);
    const args = [of(dy), of(x), of(mean), of(rstd), of(weight)] as const;
    const dweight = of(weight);
    const backward = layerNormBackward(...args, { add: of(residual), dweight });
    const reference = layerNormBackward(D, X, read(mean), read(rstd), W, { add: R, dweight: W.slice() });
    expect(backward).toEqual({ dx: of(reference.dx), dweight: of(reference.dweight), dbias: of(reference.dbias) });
    expect(backward.dweight).toBe(dweight);
    const root = rmsNormWithStats(X, cols, W);
    expect(rmsNormBackward(of(dy), of(x), of(root.rstd), of(weight)).dx).toEqual(
      of(rmsNormBackward(D, X, read(root.rstd), W).dx),
    );
  });

  test("is an operand of modules, in place and beside other kinds", () => {
    for (const make of MODULES) {
      const [norm, plain] = [make(cols), make(cols)];
      const y = plain.forward(X, { residual: R });
      const dx = plain.backward(D, { add: R });
      const given = of(x);
      expect(norm.forward(given, { residual: of(residual) })).toEqual(of(y));
      expect(norm.backward(of(dy), { add: of(residual) })).toEqual(of(dx));
      expect(norm.weight.grad).toEqual(plain.weight.grad);
      expect(norm.forward(given, { residual: R, out: given, sum: new Float64Array(x.length) })).toBe(given);
      expect(given).toEqual(of(y));
      const out = new Float64Array(x.length);
      expect(norm.backward(of(dy), { add: [...R], out })).toBe(out);
      expect(Float32Array.from(out)).toEqual(dx);
      const into = of(x);
      norm.eval().forward([...X], { residual: R, out: into });
      expect(into).toEqual(of(y));
    }
  });

  test("of many rows is computed in blocks, to the same bits", () => {
    const [many, width] = [700, 384];
    const large = normal(many * width, 6);
    const norm = new LayerNorm(width);
    const [y, dx] = [norm.forward(read(large)), norm.backward(read(large))];
    const grad = norm.weight.grad.slice();
    norm.zeroGrad();
    for (const training of [true, false]) {
      const out = of(large);
      norm.train(training).forward(out, { out });
      expect(firstDifference(out, of(y))).toBe(-1);
    }
    norm.train().forward(of(large));
    const out = norm.backward(of(large));
    expect(firstDifference(out, of(dx))).toBe(-1);
    expect(norm.weight.grad).toEqual(grad);
  });
});

test("a list of numbers is an operand, and gives Float32Arrays", () => {
  const norm = new LayerNorm(cols);
  expect(norm.forward([...x], { residual: [...residual] })).toEqual(new LayerNorm(cols).forward(x, { residual }));
  expect(norm.backward([...dy])).toBeInstanceOf(Float32Array);
  const { y, mean, rstd } = layerNormWithStats([...x], cols, [...weight], [...bias]);
  expect(y).toEqual(layerNorm(x, cols, weight, bias));
  expect(layerNormBackward([...dy], [...x], [...mean], [...rstd], [...weight])).toEqual(
    layerNormBackward(dy, x, mean, rstd, weight),
  );
  const t = new Tensor([rows, cols], x);
  expect(layerNorm(t, cols, [...weight]).data).toEqual(layerNorm(x, cols, weight));
});

test.each<[string, unknown, RegExp]>([
  ["a Uint16Array", new Uint16Array(cols), /x is a Uint16Array, expected .*; half floats are a Float16Array/],
  ["an Int32Array", new Int32Array(cols), /x is an Int32Array, expected a Float32Array or a Tensor$/],
  ["a BigInt64Array", new BigInt64Array(cols), /x is a BigInt64Array/],
  ["nested lists", [[1, 2]], /x has \[1, 2\] at 0, expected a flat list of numbers; list\.flat\(Infinity\) makes one/],
  ["a list of arrays", [x], /x has a Float32Array at 0, expected a flat list/],
  ["a list with a hole", [1, undefined], /x has undefined at 1, expected a flat list/],
  ["what is like a list", { length: cols }, /x is an Object/],
])("%s is refused", (_, value, message) => {
  for (const make of MODULES) expect(() => make(2).forward(value as never)).toThrow(message);
  expect(() => layerNorm(value as never, 2)).toThrow(message);
  expect(() => new LayerNorm(2).forward(value as never)).toThrow(TypeError);
});

test("lists and integers are refused as what is written to", () => {
  const norm = new LayerNorm(cols);
  for (const out of [[...x], new Int32Array(x.length)]) {
    expect(() => norm.forward(x, { out: out as never })).toThrow(
      /forward: out is .*, expected a Float32Array or a Tensor/,
    );
  }
  const { mean, rstd } = layerNormWithStats(x, cols);
  expect(() => layerNormBackward(dy, x, mean, rstd, null, { dweight: [...weight] as never })).toThrow(/dweight is/);
});

test("outputs that overlap each other are refused, by name, also outside of the memory", () => {
  const buffer = new Float32Array(2 * x.length);
  const [first, second] = [buffer.subarray(0, x.length), buffer.subarray(1, x.length + 1)];
  const norm = new LayerNorm(cols);
  expect(() => norm.forward(x, { residual, sum: first, out: second })).toThrow(/out overlaps sum/);
  const { mean, rstd } = layerNormWithStats(x, cols);
  const dweight = buffer.subarray(0, cols);
  const dbias = buffer.subarray(1, cols + 1);
  expect(() => layerNormBackward(dy, x, mean, rstd, null, { dweight, dbias })).toThrow(/dbias overlaps dweight/);
  expect(() => layerNormBackward(dy, x, mean, rstd, null, { dweight, out: first })).toThrow(/out overlaps dweight/);
  expect(buffer.every((value) => value === 0)).toBe(true);
  // In the memory, doubles are copied and floats are not.
  const block = new Tensor([3 * x.length]);
  const { buffer: memory } = block.runtime.memory;
  const doubles = new Float64Array(memory, Math.ceil(block.pointer / 8) * 8, x.length);
  const floats = block.data.subarray(x.length, 2 * x.length);
  expect(() => norm.forward(x, { residual, sum: doubles, out: floats })).toThrow(/out overlaps sum/);
  expect(block.data.every((value) => value === 0)).toBe(true);
  doubles.set(x);
  expect(norm.forward(doubles, { out: floats })).toEqual(norm.forward(x));
});

test("an array of doubles in the memory is refused where the call has the memory grow, which detaches it", () => {
  const runtime = Runtime.create();
  const weight = new Tensor([1], [2], { runtime });
  const doubles = new Float64Array(runtime.memory.buffer); // all of it, so that there is no room for copies
  expect(() => layerNorm(doubles, 1, weight, null, 1e-5, { residual: doubles })).toThrow(
    /^layerNorm: .* is a detached view: the memory has grown since/,
  );
  expect(doubles.length).toBe(0);
});

test("gradients of a call of no rows have as many elements as there are columns", () => {
  const none = new Float32Array(0);
  const zeros = [...new Float32Array(cols)];
  const gradients = [
    layerNormBackward(none, none, none, none, weight),
    layerNormBackward(none, none, none, none, null, { dweight: new Float32Array(cols) }),
    layerNormBackward(none, none, none, none, null, { dbias: new Float32Array(cols) }),
    layerNormBackward(none, new Tensor([0, cols]), none, none),
  ];
  for (const { dweight, dbias } of gradients) expect([[...dweight], [...dbias]]).toEqual([zeros, zeros]);
  const { dweight, dbias } = layerNormBackward(new Tensor([0, cols]), none, none, none);
  expect([dweight.shape, dbias.shape]).toEqual([[cols], [cols]]);
});

test("the types tell the kind of a result", () => {
  const norm = new LayerNorm(cols);
  const t = new Tensor([rows, cols], x);
  expectTypeOf(norm.forward(t)).toEqualTypeOf<Tensor>();
  expectTypeOf(norm.forward(x)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(norm.forward([...x])).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(norm.forward(Float64Array.from(x))).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(norm.forward(x, { out: new Float64Array(x.length) })).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(norm.forward(x, { residual: [...x] })).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(layerNorm(Float64Array.from(x), cols)).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(norm.forwardAsync([...x])).toEqualTypeOf<Promise<Float32Array<ArrayBuffer>>>();
  // @ts-expect-error: an array beside a Tensor
  expect(() => norm.forward(t, { residual: x })).toThrow(/residual is a Float32Array, expected a Tensor, as x is/);
  // @ts-expect-error: bits of half floats
  expect(() => norm.forward(new Uint16Array(cols))).toThrow(TypeError);
});
