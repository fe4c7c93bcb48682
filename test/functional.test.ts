// The functions of both norms. What kinds of arrays they take is in operands.test.ts.

import { describe, expect, test } from "vitest";
import { layerNormBackward, layerNormWithStats, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import { FAMILIES, floatsOf, KINDS, NOT_NUMBERS } from "./norms.js";
import { Watched } from "./watched.js";
import { expectWithin } from "./within.js";

const rows = 6;
const cols = 35;
const shape = [2, 3, 5, 7];
const x = normal(rows * cols, 1, 0.3, 2);
const dy = normal(rows * cols, 2);
const residual = normal(rows * cols, 5);
const weight = normal(cols, 3);
const bias = normal(cols, 4);
const eps = 1e-3;
const onePage = () => Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });

/** The words of an error, its class, and the arguments of the call that ends in it. */
type Refused = [message: string, Kind: ErrorConstructor, ...args: unknown[]];
const disposed = new Tensor([cols]);
disposed.dispose();
const elsewhere = new Tensor([cols], undefined, { runtime: Runtime.create() });

const FORWARD: Refused[] = [
  [`x is undefined, ${NOT_NUMBERS}`, TypeError, undefined, 2],
  ["x was disposed", TypeError, disposed, cols],
  ['normalizedShape is "35", expected a positive integer or a list of them', TypeError, x, "35"],
  ["x has 210 elements, expected a multiple of 36", RangeError, x, 36],
  ["x has the shape [7], expected [..., 5, 7]", RangeError, new Tensor([7]), [5, 7]],
  ["weight has 34 elements, expected 35", RangeError, x, cols, bias.slice(1)],
  ["weight has 1 elements, expected 35", RangeError, x, cols, [0]],
  ["weight has the shape [35], expected [5, 7]", RangeError, x, [5, 7], new Tensor([35])],
  ["weight belongs to another runtime", TypeError, new Tensor([cols]), cols, elsewhere],
  ["eps is -1, expected a finite number of 0 or more", RangeError, x, cols, null, null, -1],
  ['eps is "1", expected a number', TypeError, x, cols, null, null, "1"],
  ['"dbais" is not an option, expected out, residual, sum', TypeError, x, cols, null, null, 1, { dbais: 1 }],
  ["options is a Tensor, expected an object", TypeError, x, cols, null, null, 1, new Tensor([6, 35])],
];

describe.each(FAMILIES)("$norm", (family) => {
  const { norm, apply, withStats, backward } = family;
  const input = { norm, x, dy, weight, bias: norm === "layerNorm" ? bias : null, rows, cols, eps };
  const stats = withStats(x, cols, weight, bias, eps);
  const plain = backward(dy, x, stats, weight);
  /** Those of the shapes that x and the weight have as Tensors of four dimensions. */
  const of = (kind: string, data: Float32Array) =>
    KINDS[kind as "Tensors"](data, data.length === cols ? [5, 7] : data.length === rows ? [2, 3] : shape) as Tensor;

  test.each(["arrays", "Tensors"])("gives y, and the statistics of each row, on %s", (kind) => {
    const t = of(kind, x);
    const y = apply(t, [5, 7], of(kind, weight), of(kind, bias), eps);
    expectWithin({ y: floatsOf(y) }, input);
    expect(floatsOf(t)).toEqual(x);
    const { y: again, ...rest } = withStats(t, [5, 7], of(kind, weight), of(kind, bias), eps);
    expect(floatsOf(again)).toEqual(floatsOf(y));
    expectWithin(Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, floatsOf(value)])), input);
    if (kind === "Tensors") {
      expect(y.shape).toEqual(shape);
      for (const stat of Object.values(rest)) expect(stat.shape).toEqual([2, 3]);
      expect(withStats(new Tensor([7]), 7).rstd.shape).toEqual([]);
    }
  });

  test.each(["arrays", "Tensors"])("gives the gradients, on %s, with and without a weight", (kind) => {
    for (const w of [weight, null]) {
      const { mean, rstd } = withStats(of(kind, x), [5, 7], null, null, eps);
      const result = backward(of(kind, dy), of(kind, x), mean ? { mean, rstd } : { rstd }, w && of(kind, w));
      const floats = Object.entries(result).map(([key, value]) => [key, floatsOf(value)]);
      expectWithin(Object.fromEntries(floats), { ...input, weight: w });
      expect(floats.length).toBe(norm === "layerNorm" ? 3 : 2);
      if (kind === "arrays") continue;
      expect([result.dx.shape, result.dweight.shape]).toEqual([shape, [5, 7]]);
    }
  });

  test("gives the same in memory that is not zeros", () => {
    const { runtime } = new Watched();
    const [t, d] = [x, dy].map((data) => new Tensor([rows, cols], data, { runtime })) as [Tensor, Tensor];
    const given = withStats(t, cols, weight, bias, eps);
    expect(Object.values(given).map(floatsOf)).toEqual(Object.values(stats));
    expect(Object.values(backward(d, t, given, weight)).map(floatsOf)).toEqual(Object.values(plain));
  });

  test("takes arrays beside Tensors, and the other way round", () => {
    expect(apply(of("Tensors", x), [5, 7], weight, bias, eps).data).toEqual(stats.y);
    expect(apply(x, cols, new Tensor([cols], weight), new Tensor([cols], bias), eps)).toEqual(stats.y);
    const t = new Tensor([rows, cols], x);
    const { mean, rstd } = withStats(t, cols, weight, bias, eps);
    expect(backward(dy, t, { ...(mean && { mean }), rstd: stats.rstd }, new Tensor([cols], weight))).toEqual(plain);
    const result = backward(new Tensor([rows, cols], dy), x, { ...stats, rstd }, weight);
    expect(Object.values(result).map(floatsOf)).toEqual(Object.values(plain));
  });

  test("has the module's eps, and neither weight nor bias, by default", () => {
    expect(apply(x, cols)).toEqual(family.make(cols, { elementwiseAffine: false }).forward(x));
    expect(apply(x, cols, null, null)).toEqual(apply(x, cols, undefined, undefined, family.eps));
    expect(apply(x, cols, undefined, bias)).toEqual(apply(x, cols, new Float32Array(cols).fill(1), bias));
  });

  test("takes a batch without rows", () => {
    const none = new Float32Array(0);
    const zeros = new Float32Array(cols);
    expect(apply(none, 5)).toEqual(none);
    const [dx, ...sums] = Object.values(backward(none, none, { mean: none, rstd: none }, weight));
    expect([dx, ...sums]).toEqual([none, ...sums.map(() => zeros)]);
    const t = new Tensor([2, 0, 5]);
    expect(apply(t, 5).shape).toEqual([2, 0, 5]);
    // Where statistics in arrays don't tell, the last dimension is normalized.
    for (const stats of [withStats(t, 5), { mean: none, rstd: none }]) {
      const { dx, dweight } = backward(t, t, stats);
      expect([dx.shape, [...dweight.data]]).toEqual([t.shape, [0, 0, 0, 0, 0]]);
    }
  });

  test.each(FORWARD)("is refused: %s", (message, Kind, ...args) => {
    for (const [name, call] of [
      [norm, apply],
      [`${norm}WithStats`, withStats],
    ] as const) {
      expect(() => call(...(args as [Tensor, number]))).toThrow(new Kind(`${name}: ${message}`));
    }
  });

  describe.each(["arrays", "Tensors"])("options, on %s,", (kind) => {
    test("out, residual and sum are those of the module", () => {
      const total = x.map((value, i) => value + residual[i]!);
      const [a, b, out] = [of(kind, x), of(kind, residual), of(kind, dy)];
      const expected = withStats(total, cols, weight, bias, eps);
      const got = withStats(a, [5, 7], weight, bias, eps, { residual: b });
      expect(Object.values(got).map(floatsOf)).toEqual(Object.values(expected));
      expect(apply(a, [5, 7], weight, bias, eps, { residual: b, sum: b, out })).toBe(out);
      expect([out, b].map(floatsOf)).toEqual([expected.y, total]);
      expect(apply(a, [5, 7], weight, bias, eps, { out: a })).toBe(a);
      expect(floatsOf(a)).toEqual(stats.y);
    });

    test("out and add are those of the module, gradients that are given are added to and returned", () => {
      const fresh = backward(dy, x, stats, weight, { eps: 1e-5 });
      const before = normal(cols, 6);
      const sums = Object.keys(fresh).slice(1);
      const given = Object.fromEntries(sums.map((name) => [name, of(kind, before)]));
      const out = of(kind, residual);
      const got = backward(of(kind, dy), of(kind, x), stats, of(kind, weight), { ...given, out, add: out });
      expect(got).toEqual({ dx: out, ...given });
      for (const name of sums) expect(got[name as "dweight"]).toBe(given[name]);
      expect(floatsOf(out)).toEqual(fresh.dx.map((value, i) => value + residual[i]!));
      const floats = Object.fromEntries(sums.map((name) => [name, floatsOf(given[name]!)]));
      expectWithin(floats, input, { before: { dweight: before, dbias: before } });
      const unknown = () => backward(dy, x, stats, null, { ...given, dbais: before });
      expect(unknown).toThrow(`"dbais" is not an option, expected out, add, ${sums.join(", ")}, eps`);
    });
  });

  test("leaves nothing in the memory but its result, also where it finds no room", () => {
    const runtime = onePage();
    const t = new Tensor([4500, 2], undefined, { runtime });
    for (let i = 0; i < 3; i++) expect(() => apply(t, 2)).toThrow(/no room for 36000 bytes/);
    expect(() => new Tensor([5000], undefined, { runtime }).dispose()).not.toThrow();
    const small = new Tensor([1000, 2], undefined, { runtime });
    for (let i = 0; i < 100; i++) apply(small, 2).dispose();
    expect(apply(elsewhere, 2 + 33).runtime).toBe(elsewhere.runtime);
  });

  test("refuses outputs of backward that overlap what is read or another, by name", () => {
    // Far enough apart that a large output from the last element of one on ends before the next.
    const block = new Tensor([4000], normal(4000, 1));
    const within = (index: number, shape: number[]) =>
      new Tensor(shape, undefined, { pointer: block.pointer + 4 * index });
    const [d, t, add] = [within(0, [6, 35]), within(500, [6, 35]), within(1000, [6, 35])];
    const [mean, rstd, affine] = [within(1500, [6]), within(2000, [6]), within(2500, [35])];
    const [out, dweight] = [within(3000, [6, 35]), within(3500, [35])];
    const refuses = (options: object, message: string) =>
      expect(() => backward(d, t, { mean, rstd }, affine, options)).toThrow(
        new RangeError(`${norm}Backward: ${message}`),
      );
    const end = ({ pointer, size }: Tensor, shape: number[]) => within((pointer - block.pointer) / 4 + size - 1, shape);
    const before = block.data.slice();
    const read = { dy: d, x: t, rstd, weight: affine, add, ...(norm === "layerNorm" && { mean }) };
    const sums = Object.keys(plain).slice(1);
    for (const [name, operand] of Object.entries(read)) {
      refuses({ add, out: end(operand, [6, 35]) }, `out overlaps ${name}`);
      for (const sum of sums) refuses({ add, [sum]: end(operand, [35]) }, `${sum} overlaps ${name}`);
    }
    for (const sum of sums) refuses({ out, [sum]: end(out, [35]) }, `out overlaps ${sum}`);
    if (sums[1]) refuses({ dweight, dbias: end(dweight, [35]) }, "dweight overlaps dbias");
    expect(block.data).toEqual(before);
  });
});

describe("layerNormBackward", () => {
  const t = new Tensor(shape, x);
  const { mean, rstd } = layerNormWithStats(x, cols);
  const [, ...ofT] = Object.values(layerNormWithStats(t, [5, 7]));
  const [row, three, across, wide] = [[4], [3], [4, 6], [6, 35]].map((shape) => new Tensor(shape));
  const ROWS = (count: number) => `dy has 210 elements, expected ${count} rows, as many as rstd has`;

  test.each<Refused>([
    ["x has 209 elements, expected 210, as dy has", RangeError, dy, x.slice(1), mean, rstd],
    ["rstd has 5 elements, expected 6, as mean has", RangeError, dy, x, mean, rstd.slice(1)],
    [ROWS(4), RangeError, dy, x, mean.slice(2), rstd.slice(2)],
    [ROWS(6), RangeError, dy, x, mean, rstd, weight.slice(1)],
    ["dy has 0 elements, expected 2 rows, as many as rstd has", RangeError, [], [], [1, 2], [1, 2]],
    [`rstd is undefined, ${NOT_NUMBERS}`, TypeError, dy, x, mean],
    ["x has the shape [35, 6], expected that of dy, [6, 35]", RangeError, wide, new Tensor([35, 6]), mean, rstd],
    [`dy has the shape [${shape.join(", ")}], expected [..., 7, 5]`, RangeError, t, t, ...ofT, new Tensor([7, 5])],
    ["weight has 34 elements, expected 35", RangeError, t, t, ...ofT, weight.slice(1)],
    ["dy has the shape [4], expected [..., 1]", RangeError, row, row, row, row],
    ["dy has the shape [4, 6], expected [..., 8]", RangeError, across, across, three, three],
    ["dy has the shape [4, 6], expected [..., 8]", RangeError, across, across, three, three, new Float32Array(8)],
    ["eps is -1, expected a finite number of 0 or more", RangeError, dy, x, mean, rstd, null, { eps: -1 }],
  ])("refuses operands that don't fit: %s", (message, Kind, ...args) => {
    const call = () => layerNormBackward(...(args as unknown as Parameters<typeof layerNormBackward>));
    expect(call).toThrow(new Kind(`layerNormBackward: ${message}`));
  });
});
