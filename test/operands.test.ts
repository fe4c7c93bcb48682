// The kinds of arrays that calls take, what results are then, and what is refused.

import { describe, expect, expectTypeOf, test } from "vitest";
import type { LayerNormBackwardOptions } from "../src/index.js";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Parameter,
  Runtime,
  Tensor,
} from "../src/index.js";
import { difference, normal } from "./helpers.js";
import { FAMILIES, NOT_NUMBERS } from "./norms.js";

const rows = 5;
const cols = 37;
const [x, dy, residual] = [1, 2, 3].map((seed) => normal(rows * cols, seed)) as [Floats, Floats, Floats];
const [weight, bias] = [4, 5].map((seed) => normal(cols, seed)) as [Floats, Floats];

type Floats = Float32Array<ArrayBuffer>;
type Kind = typeof Float32Array;
const { Float16Array: Halves } = globalThis as unknown as { Float16Array?: Kind };
const KINDS = [Float32Array, Float64Array as unknown as Kind, ...(Halves ? [Halves] : [])].map(
  (Kind) => [Kind.name, Kind] as const,
);
const SUITES = KINDS.flatMap(([kind, Kind]) => FAMILIES.map((family) => ({ ...family, kind, Kind })));

describe.each(SUITES)("a $kind for $name", ({ make, apply, withStats, backward, Kind }) => {
  /** The numbers as this kind holds them, and these as floats. */
  const of = (floats: Float32Array) => Kind.from(floats);
  const read = (floats: Float32Array) => Float32Array.from(of(floats));
  const [X, D, R, W, B] = [x, dy, residual, weight, bias].map(read) as [Floats, Floats, Floats, Floats, Floats];
  const all = (results: object, convert = of) =>
    Object.fromEntries(Object.entries(results).map(([name, floats]) => [name, convert(floats)]));

  test("is an operand of every function, and gives results of its kind", () => {
    const total = X.map((value, i) => value + R[i]!);
    const sum = new Kind(x.length);
    const stats = withStats(total, cols, W, B, 1e-5);
    const options = { residual: of(residual), sum };
    expect(withStats(of(x), cols, of(weight), of(bias), 1e-5, options)).toEqual(all(stats));
    expect(sum).toEqual(of(total));
    expect(apply(of(x), cols, of(weight))).toEqual(of(apply(X, cols, W)));
    const { y: _, ...given } = all(stats) as { y: Floats; mean: Floats; rstd: Floats };
    const rounded = all(given, (floats) => Float32Array.from(floats));
    const dweight = of(weight);
    const result = backward(of(dy), of(x), given, of(weight), { add: of(residual), dweight });
    const more = { add: R, dweight: W.slice() };
    expect(result).toEqual(all(backward(D, X, rounded as typeof given, W, more)));
    expect(result.dweight).toBe(dweight);
  });

  test("is an operand of modules, in place and beside other kinds", () => {
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
    expect(norm.eval().forward([...X], { residual: R, out: of(x) })).toEqual(of(y));
  });

  test("of many rows is computed in blocks, to the same bits", () => {
    const [many, width] = [700, 384];
    const large = normal(many * width, 6);
    const norm = make(width);
    const [y, dx] = [norm.forward(read(large)), norm.backward(read(large))];
    const grad = norm.weight.grad.slice();
    norm.zeroGrad();
    for (const training of [true, false]) {
      const out = of(large);
      norm.train(training).forward(out, { out });
      expect(difference(out, of(y))).toBe(-1);
    }
    norm.train().forward(of(large));
    expect(difference(norm.backward(of(large)), of(dx))).toBe(-1);
    expect(norm.weight.grad).toEqual(grad);
  });
});

describe.each(FAMILIES)("$name", ({ name, norm, make, apply, withStats, backward }) => {
  test("takes lists of numbers, and gives Float32Arrays", () => {
    const module = make(cols);
    expect(module.forward([...x], { residual: [...residual] })).toEqual(make(cols).forward(x, { residual }));
    expect(module.backward([...dy])).toBeInstanceOf(Float32Array);
    const { y, ...stats } = withStats([...x], cols, [...weight], [...bias]);
    expect(y).toEqual(apply(x, cols, weight, bias));
    expect(backward([...dy], [...x], stats, [...weight])).toEqual(backward(dy, x, stats, weight));
    expect(apply(new Tensor([rows, cols], x), cols, [...weight]).data).toEqual(apply(x, cols, weight));
  });

  test.each<[message: string, x: unknown]>([
    [` is a Uint16Array, ${NOT_NUMBERS}`, new Uint16Array(cols)],
    [` is an Int32Array, ${NOT_NUMBERS}`, new Int32Array(cols)],
    [` is a BigInt64Array, ${NOT_NUMBERS}`, new BigInt64Array(cols)],
    [` is an Object, ${NOT_NUMBERS}`, { length: cols }],
    ["[0] is [1, 2], expected a number; list.flat(Infinity) makes a flat list", [[1, 2]]],
    ["[0] is a Float32Array, expected a number", [x]],
    ["[1] is undefined, expected a number", [1, undefined]],
  ])("refuses an x: x%s", (message, given) => {
    expect(() => make(2).forward(given as never)).toThrow(new TypeError(`${name}.forward: x${message}`));
    expect(() => apply(given as never, 2)).toThrow(new TypeError(`${norm}: x${message}`));
  });

  test("refuses to write to lists and integers", () => {
    for (const out of [[...x], new Int32Array(x.length)]) {
      expect(() => make(cols).forward(x, { out: out as never })).toThrow(/out is .* a Tensor or an array of floats$/);
    }
    const dweight = [...weight];
    expect(() => backward(dy, x, withStats(x, cols), null, { dweight })).toThrow(/dweight is \[/);
    const stats = bias.slice(0, rows);
    // @ts-expect-error: the types say so
    expect(() => layerNormBackward(dy, x, stats, stats, null, { dweight })).toThrow(/dweight is \[/);
  });

  test("refuses outputs that overlap each other, by name, also outside of the memory", () => {
    const buffer = new Float32Array(2 * x.length);
    const [first, second] = [buffer.subarray(0, x.length), buffer.subarray(1, x.length + 1)];
    const module = make(cols);
    expect(() => module.forward(x, { residual, sum: first, out: second })).toThrow(/out overlaps sum/);
    const use = (options: object) => () => backward(dy, x, withStats(x, cols), null, options);
    const dweight = buffer.subarray(0, cols);
    expect(use({ dweight, out: first })).toThrow(/out overlaps dweight/);
    if (name === "LayerNorm")
      expect(use({ dweight, dbias: second.subarray(0, cols) })).toThrow(/dbias overlaps dweight/);
    expect(buffer.every((value) => value === 0)).toBe(true);
    // In the memory, doubles are copied and floats are not.
    const block = new Tensor([3 * x.length]);
    const { buffer: memory } = block.runtime.memory;
    const doubles = new Float64Array(memory, Math.ceil(block.pointer / 8) * 8, x.length);
    const floats = block.data.subarray(x.length, 2 * x.length);
    expect(() => module.forward(x, { residual, sum: doubles, out: floats })).toThrow(/out overlaps sum/);
    expect(block.data.every((value) => value === 0)).toBe(true);
    doubles.set(x);
    expect(module.forward(doubles, { out: floats })).toEqual(Float32Array.from(module.forward(x)));
  });

  test("refuses doubles in the memory that the call detaches, because the memory grows", async () => {
    const runtime = await Runtime.create({ async: true });
    const tensor = new Tensor([1], [2], { runtime });
    const doubles = new Float64Array(runtime.memory.buffer); // all of it, so that there is no room for copies
    expect(() => apply(doubles, 1, tensor, null, 1e-5, { residual: doubles })).toThrow(/is detached, as/);
    expect(doubles.length).toBe(0);
  });
});

test("gradients of a call of no rows have as many elements as there are columns", () => {
  const none = new Float32Array(0);
  const zeros = new Float32Array(cols);
  for (const { dweight, dbias } of [
    layerNormBackward(none, none, none, none, weight),
    layerNormBackward(none, none, none, none, null, { dweight: new Float32Array(cols) }),
    layerNormBackward(none, none, none, none, null, { dbias: new Float32Array(cols) }),
    layerNormBackward(none, new Tensor([0, cols]), none, none),
  ]) {
    expect([dweight, dbias]).toEqual([zeros, zeros]);
  }
  const { dweight, dbias } = layerNormBackward(new Tensor([0, cols]), none, none, none);
  expect([dweight.shape, dbias.shape]).toEqual([[cols], [cols]]);
});

test("the types tell the kind of a result", () => {
  const norm = new LayerNorm(cols);
  const t = new Tensor([rows, cols], x);
  const doubles = Float64Array.from(x);
  expectTypeOf(norm.forward(t)).toEqualTypeOf<Tensor>();
  expectTypeOf(norm.forward(x)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(norm.forward([...x], { residual: x })).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(norm.forward(doubles)).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(norm.forward(x, { out: doubles })).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(norm.forwardAsync([...x])).toEqualTypeOf<Promise<Float32Array<ArrayBuffer>>>();
  expectTypeOf(layerNorm(doubles, cols)).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  expectTypeOf(layerNorm([...x], cols, null, null, 1e-5, { out: doubles })).toEqualTypeOf<Float64Array<ArrayBuffer>>();
  const { y, mean, rstd } = layerNormWithStats(t, cols, null, null, 1e-5, { out: new Parameter([rows, cols]) });
  expectTypeOf({ y, mean }).toEqualTypeOf<{ y: Parameter; mean: Tensor }>();
  expectTypeOf<LayerNormBackwardOptions<Tensor>["dbias"]>().toEqualTypeOf<Tensor | undefined>();
  const { dx, dweight } = layerNormBackward(doubles, x, mean, rstd, null, { dweight: weight });
  expectTypeOf({ dx, dweight }).toEqualTypeOf<{ dx: typeof doubles; dweight: typeof weight }>();
  // @ts-expect-error: an array beside a Tensor
  expect(() => norm.forward(t, { residual: x })).toThrow(/residual is a Float32Array, expected a Tensor, as x is/);
  // @ts-expect-error: the same of a function
  expect(() => layerNorm(t, cols, null, null, 1e-5, { out: x })).toThrow(/out is a Float32Array, expected a Tensor/);
  // @ts-expect-error: bits of half floats
  expect(() => norm.forward(new Uint16Array(cols))).toThrow(TypeError);
  // @ts-expect-error: doubles, whatever is expected
  expect(norm.forward(doubles) satisfies Float32Array).toBeInstanceOf(Float64Array);
  // @ts-expect-error: the same of a function
  expect(layerNorm(doubles, cols) satisfies Float32Array).toBeInstanceOf(Float64Array);
});
