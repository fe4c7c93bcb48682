// Blocking calls on arrays are computed in blocks of rows: the same bits as on Tensors, in little memory.

import { describe, expect, test } from "vitest";
import { Runtime, Tensor } from "../src/index.js";
import { difference, normal, shapesOf } from "./helpers.js";
import { FAMILIES } from "./norms.js";

const numbers = normal(3_000_000, 1);
const from = (at: number, length: number) => numbers.slice(at, at + length);

// 256 KiB hold 65536 floats: a block of 64 rows of 1024, of 32 with a residual, of one row of 65536, and less than one row
// of 65539.
const FORWARD =
  "31x1024 32x1024 33x1024 63x1024 64x1024 65x1024 129x1024 65535x1 65537x1 21845x3 21846x3 513x131 " +
  "1x65536 2x65536 3x65539 2x70001";
// Blocks of backward are whole groups of 8 rows: 13104 rows of 5, or 6552 with an add.
const BACKWARD =
  "6551x5 6552x5 6553x5 13103x5 13104x5 13105x5 13112x5 26209x5 " +
  "63x769 64x769 65x769 127x769 128x769 129x769 2049x769 65x16385 3x40001";

describe.each(FAMILIES)("$name", (family) => {
  /** A module of seeded parameters, in a runtime of its own. */
  const make = (cols: number) => {
    const norm = family.make(cols, { runtime: Runtime.create() });
    for (const [i, { data }] of norm.parameters().entries()) data.set(from(1 + i, cols));
    return norm;
  };

  test.each(shapesOf(FORWARD))("forward of %i rows of %i gives the bits of Tensors", (rows, cols) => {
    const size = rows * cols;
    const [x, residual] = [from(3, size), from(7, size)];
    const norm = make(cols);
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

  test.each([1000, 500_000])("no code of its own is called while a call copies an array of %i", (size) => {
    const x = from(0, size);
    const own = () => Object.assign(x.slice(), { set: null, subarray: null, constructor: null }) as never;
    expect(difference(make(1000).forward(own(), { out: own() }), make(1000).forward(x))).toBe(-1);
  });

  test("nothing is written past an out that is shorter than it says", () => {
    const whole = new Float32Array(1_000_000);
    const out = Object.defineProperty(whole.subarray(0, 500_000), "length", { value: whole.length });
    expect(() => make(1000).forward(from(0, whole.length), { out })).toThrow(RangeError);
    expect(whole.subarray(500_000).every((value) => value === 0)).toBe(true);
  });

  test("an out of doubles that begins where x does, computed after all of x was read, has the results of two arrays", () => {
    const [rows, cols] = [2000, 64];
    const { buffer } = new Float64Array(rows * cols);
    const x = new Float32Array(buffer, 0, rows * cols);
    x.set(from(3, x.length));
    const expected = Float64Array.from(family.apply(x.slice(), cols));
    const out = new Float64Array(buffer);
    expect(difference(family.apply(x, cols, null, null, family.eps, { out }) as never, expected as never)).toBe(-1);
  });

  test.each(shapesOf(BACKWARD))("backward of %i rows of %i gives the bits of Tensors", (rows, cols) => {
    const size = rows * cols;
    const [x, dy, add] = [from(3, size), from(5, size), from(11, size)];
    const [onArrays, onTensors] = [make(cols), make(cols)];
    const tensor = (data: Float32Array) => new Tensor([rows, cols], data, { runtime: onTensors.weight.runtime });
    onArrays.forward(x);
    onTensors.forward(tensor(x));
    for (const fused of [false, true]) {
      const dx = onArrays.backward(dy, fused ? { add } : {});
      const expected = onTensors.backward(tensor(dy), fused ? { add: tensor(add) } : {});
      expect(difference(dx, expected.data)).toBe(-1);
      for (const [i, { grad }] of onTensors.parameters().entries()) {
        expect(difference(onArrays.parameters()[i]!.grad, grad)).toBe(-1);
      }
    }
    const inPlace = dy.slice();
    onArrays.backward(inPlace, { out: inPlace });
    expect(difference(inPlace, onTensors.backward(tensor(dy)).data)).toBe(-1);
  });

  test("in eval mode an array of any size takes no more than 1 MiB of memory", () => {
    const cols = 1000;
    const norm = make(cols).eval();
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
    const norm = make(cols).eval();
    const expected = norm.forward(from(3, size));
    for (const shift of [-4 * cols, -1, 1, cols, 20 * cols]) {
      const own = new Float32Array(size + 40 * cols).buffer;
      const shared = new SharedArrayBuffer(own.byteLength);
      // Shared memory may be seen through two buffers.
      for (const [a, b] of [
        [own, own],
        [shared, structuredClone(shared)],
      ] as const) {
        const x = new Float32Array(a, 80 * cols, size);
        const out = new Float32Array(b, 4 * (20 * cols + shift), size);
        x.set(from(3, size));
        norm.forward(x, { out });
        expect(difference(out, expected), `${shift}`).toBe(-1);
      }
    }
  });

  test("arrays in the memory are used where they lie, and may overlap only as Tensors may", () => {
    const [rows, cols] = [67, 1019];
    const size = rows * cols;
    const norm = make(cols).eval();
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
    const norm = make(cols);
    const { runtime } = norm.weight;
    const [x, residual] = [from(3, size), from(7, size)];
    const expected = norm.forward(x, { residual });
    const total = x.map((value, i) => value + residual[i]!);
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
        expect(difference(sum, total), `${which}`).toBe(-1);
        if (training) expect(difference(norm.backward(a, { add: b, out: b }), dx), `${which}`).toBe(-1);
      }
    }
  });

  test("backward takes arrays that overlap, too", () => {
    const [rows, cols] = [131, 517];
    const size = rows * cols;
    const norm = make(cols);
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
