// Blocking calls on arrays are computed in blocks of rows: the same bits as on Tensors, in little memory.

import { describe, expect, test } from "vitest";
import { LayerNorm, RMSNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";

const numbers = normal(3_000_000, 1);
const from = (at: number, length: number) => numbers.slice(at, at + length);
const kinds = ["LayerNorm", "RMSNorm"] as const;
type Kind = (typeof kinds)[number];

function make(kind: Kind, cols: number, runtime = Runtime.create()): LayerNorm | RMSNorm {
  const norm = kind === "RMSNorm" ? new RMSNorm(cols, { runtime }) : new LayerNorm(cols, { runtime });
  norm.loadStateDict(kind === "RMSNorm" ? { weight: from(1, cols) } : { weight: from(1, cols), bias: from(2, cols) });
  return norm;
}

/** The index of the first float whose bits differ, or -1. */
function difference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  const [aBits, bBits] = [a.slice(), b.slice()].map((floats) => new Uint32Array(floats.buffer)) as [
    Uint32Array,
    Uint32Array,
  ];
  return aBits.findIndex((word, i) => word !== bBits[i]);
}

// 64 KiB hold 16384 floats: a block of 16 rows of 1024, of one row of 16384, and less than one row of 16387.
const FORWARD = [
  [15, 1024],
  [16, 1024],
  [17, 1024],
  [31, 1024],
  [33, 1024],
  [16383, 1],
  [16385, 1],
  [5461, 3],
  [5462, 3],
  [257, 131],
  [1, 16384],
  [2, 16384],
  [3, 16387],
  [2, 70001],
] as const;

describe.each(kinds)("%s", (kind) => {
  test.each(FORWARD)("forward of %i rows of %i gives the bits of Tensors", (rows, cols) => {
    const size = rows * cols;
    const [x, residual] = [from(3, size), from(7, size)];
    const norm = make(kind, cols);
    const tensor = (data: Float32Array) => new Tensor([rows, cols], data, { runtime: norm.weight.runtime });
    for (const training of [false, true]) {
      norm.train(training);
      expect(difference(norm.forward(x), norm.forward(tensor(x)).data)).toBe(-1);
      const sum = new Float32Array(size);
      const sumTensor = tensor(sum);
      const y = norm.forward(x, { residual, sum });
      const expected = norm.forward(tensor(x), { residual: tensor(residual), sum: sumTensor });
      expect(difference(y, expected.data)).toBe(-1);
      expect(difference(sum, sumTensor.data)).toBe(-1);
    }
    const inPlace = x.slice();
    norm.eval().forward(inPlace, { residual, out: inPlace });
    expect(difference(inPlace, norm.forward(tensor(x), { residual: tensor(residual) }).data)).toBe(-1);
  });

  const BACKWARD = [63, 64, 65, 66, 127, 128, 129, 130, 2047, 2048, 2049, 2050].map((rows) => [rows, 5] as const);
  const WIDE = [63, 64, 65, 127, 128, 129].map((rows) => [rows, 769] as const);
  test.each([...BACKWARD, ...WIDE, [2049, 769], [65, 16385], [3, 40001]] as const)(
    "backward of %i rows of %i gives the bits of Tensors",
    (rows, cols) => {
      const size = rows * cols;
      const [x, dy, add] = [from(3, size), from(5, size), from(11, size)];
      const [onArrays, onTensors] = [make(kind, cols), make(kind, cols)];
      const tensor = (data: Float32Array) => new Tensor([rows, cols], data, { runtime: onTensors.weight.runtime });
      onArrays.forward(x);
      onTensors.forward(tensor(x));
      for (const fused of [false, true]) {
        const dx = onArrays.backward(dy, fused ? { add } : {});
        const expected = onTensors.backward(tensor(dy), fused ? { add: tensor(add) } : {});
        expect(difference(dx, expected.data)).toBe(-1);
        for (const [i, [name, parameter]] of onTensors.namedParameters().entries()) {
          const grad = onArrays.parameters()[i]?.grad as Float32Array;
          expect(difference(grad, parameter.grad), `${name}.grad`).toBe(-1);
        }
      }
      const inPlace = dy.slice();
      onArrays.backward(inPlace, { out: inPlace });
      expect(difference(inPlace, onTensors.backward(tensor(dy)).data)).toBe(-1);
    },
  );

  test("in eval mode an array of any size takes no more than 1 MiB of memory", () => {
    const cols = 1000;
    const norm = make(kind, cols).eval();
    const out = new Float32Array(numbers.length);
    norm.forward(numbers, { residual: numbers, sum: out, out: numbers.slice() });
    norm.forward(numbers, { out });
    expect(norm.weight.runtime.memory.buffer.byteLength).toBeLessThanOrEqual(2 ** 20);
    // A row alone, beside its results with the whole batch.
    expect(difference(norm.forward(from(2_999_000, cols)), out.subarray(2_999_000))).toBe(-1);
  });

  test("arrays may overlap each other: all of x is read before anything is written", () => {
    const [rows, cols] = [67, 1021];
    const size = rows * cols;
    const norm = make(kind, cols).eval();
    const expected = norm.forward(from(3, size));
    for (const shift of [-4 * cols, -1, 1, cols, 20 * cols]) {
      const buffer = new Float32Array(size + 40 * cols);
      const x = buffer.subarray(20 * cols, 20 * cols + size);
      const out = buffer.subarray(20 * cols + shift, 20 * cols + shift + size);
      x.set(from(3, size));
      norm.forward(x, { out });
      expect(difference(out, expected), `${shift}`).toBe(-1);
    }
  });

  test("arrays may overlap in shared memory, seen through two buffers", () => {
    const [rows, cols] = [67, 1021];
    const size = rows * cols;
    const norm = make(kind, cols).eval();
    const expected = norm.forward(from(3, size));
    const shared = new SharedArrayBuffer(4 * (size + cols));
    const x = new Float32Array(shared, 0, size);
    const out = new Float32Array(structuredClone(shared), 4 * cols, size);
    x.set(from(3, size));
    norm.forward(x, { out });
    expect(out.buffer).not.toBe(shared);
    expect(difference(out, expected)).toBe(-1);
  });

  test("arrays in the memory are used where they lie, and may overlap only as Tensors may", () => {
    const [rows, cols] = [67, 1019];
    const size = rows * cols;
    const norm = make(kind, cols).eval();
    const { runtime } = norm.weight;
    const expected = norm.forward(from(3, size));
    const block = new Tensor([2 * size], undefined, { runtime });
    const part = (at: number) => block.data.subarray(at, at + size);
    const bytes = runtime.memory.buffer.byteLength;
    for (const to of [0, size]) {
      part(0).set(from(3, size));
      const out = part(to);
      expect(norm.forward(part(0), { out })).toBe(out);
      expect(difference(out, expected), `to ${to}`).toBe(-1);
    }
    expect(runtime.memory.buffer.byteLength).toBe(bytes);
    part(0).set(from(3, size));
    for (const at of [1, cols, size - 1]) {
      expect(() => norm.forward(part(0), { out: part(at) })).toThrow(/forward: out overlaps x/);
      expect(() => norm.forward(part(at), { out: part(0) })).toThrow(/forward: out overlaps x/);
    }
    expect(difference(part(0), from(3, size))).toBe(-1);
  });

  test("an array in the memory beside one outside of it gives the bits of any other", () => {
    const [rows, cols] = [67, 1019];
    const size = rows * cols;
    const norm = make(kind, cols);
    const { runtime } = norm.weight;
    const [x, residual] = [from(3, size), from(7, size)];
    const expected = norm.forward(x, { residual });
    const dx = norm.backward(x, { add: residual });
    const block = new Tensor([3 * size], undefined, { runtime });
    const inside = (data: Float32Array, i: number) => {
      block.data.set(data, i * size);
      return block.data.subarray(i * size, (i + 1) * size);
    };
    for (const training of [true, false]) {
      norm.train(training);
      for (const which of [0, 1, 2, 3, 4, 5, 6, 7]) {
        const [a, b, sum] = [x, residual, new Float32Array(size)].map((data, i) =>
          which & (1 << i) ? inside(data, i) : data.slice(),
        ) as [Float32Array, Float32Array, Float32Array];
        expect(difference(norm.forward(a, { residual: b, sum }), expected), `${which}`).toBe(-1);
        expect([difference(a, x), difference(b, residual)], `${which}`).toEqual([-1, -1]);
        expect(
          difference(
            sum,
            x.map((value, i) => value + (residual[i] as number)),
          ),
          `${which}`,
        ).toBe(-1);
        if (training) expect(difference(norm.backward(a, { add: b, out: b }), dx), `${which}`).toBe(-1);
      }
    }
  });

  test("an out over the weight is refused", () => {
    const [rows, cols] = [67, 1013];
    const size = rows * cols;
    const runtime = Runtime.create();
    const block = new Tensor([size], from(9, size), { runtime });
    const weight = new Tensor([cols], undefined, { runtime, pointer: block.pointer });
    const norm = (kind === "RMSNorm" ? new RMSNorm(cols, { weight }) : new LayerNorm(cols, { weight })).eval();
    expect(() => norm.forward(from(3, size), { out: block.data })).toThrow(/forward: out overlaps weight/);
    expect(difference(block.data, from(9, size))).toBe(-1);
  });

  test("backward takes arrays that overlap, too", () => {
    const [rows, cols] = [131, 517];
    const size = rows * cols;
    const norm = make(kind, cols);
    norm.forward(from(3, size));
    const expected = norm.backward(from(5, size));
    const grad = norm.weight.grad.slice();
    for (const shift of [-cols, 1, 3 * cols]) {
      const buffer = new Float32Array(size + 10 * cols);
      const dy = buffer.subarray(5 * cols, 5 * cols + size);
      const out = buffer.subarray(5 * cols + shift, 5 * cols + shift + size);
      dy.set(from(5, size));
      norm.zeroGrad();
      norm.backward(dy, { out });
      expect(difference(out, expected), `${shift}`).toBe(-1);
      expect(difference(norm.weight.grad, grad)).toBe(-1);
    }
  });
});

test("a Tensor's data are a new view once the memory has grown", () => {
  const runtime = Runtime.create();
  const t = new Tensor([3], [1, 2, 3], { runtime });
  const before = t.data;
  expect(t.data).toBe(before);
  new Tensor([100_000], undefined, { runtime });
  expect(before.length).toBe(0);
  expect([...t.data]).toEqual([1, 2, 3]);
  const none = new Tensor([0], undefined, { runtime });
  expect(none.data.length).toBe(0);
});
