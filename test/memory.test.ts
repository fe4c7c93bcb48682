// The far ends of a memory of 32-bit addresses, and what is made and dropped in it.

import { describe, expect, test } from "vitest";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Parameter,
  Runtime,
  Tensor,
} from "../src/index.js";
import { DISPOSE, normal } from "./helpers.js";

const GIB = 2 ** 30;
const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);
const dy = normal(rows * cols, 2);

/** Forward and backward on tensors at given addresses, beside what the default runtime gives. */
function expectSame(runtime: Runtime, at: { x: number; y: number; dy: number; dx: number }): void {
  const tensor = (pointer: number, data?: Float32Array) => new Tensor([rows, cols], data, { runtime, pointer });
  const here = new LayerNorm(cols, { runtime });
  const there = new LayerNorm(cols);
  const y = here.forward(tensor(at.x, x), { out: tensor(at.y) });
  expect(y.data).toEqual(there.forward(x));
  const dx = here.backward(tensor(at.dy, dy), { out: tensor(at.dx) });
  expect(dx.data).toEqual(there.backward(dy));
  expect(here.weight?.grad).toEqual(there.weight?.grad);
  expect(here.bias?.grad).toEqual(there.bias?.grad);
}

describe("a memory of 4 GiB", () => {
  const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536 });
  const size = rows * cols * 4;

  /** A runtime whose blocks come one after the other from `first` on. */
  function from(first: number): Runtime {
    let next = first;
    const allocate = (bytes: number) => {
      next += Math.ceil(bytes / 4) * 4;
      // As an export of WebAssembly returns it, i32.
      return (next - Math.ceil(bytes / 4) * 4) | 0;
    };
    return Runtime.create({ memory, allocate, free: () => {} });
  }

  test("has the same results above 2 GiB", () => {
    const at = 2 * GIB + 4;
    expectSame(from(2 * GIB + 65536), { x: at, y: at + size, dy: at + 2 * size, dx: at + 3 * size });
  });

  test("has the same results across 2 GiB", () => {
    const across = 2 * GIB - 52;
    const above = 3 * GIB;
    expectSame(from(2 * GIB - 16384), { x: across, y: above, dy: above + size, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: across, dy: above + size, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: above + size, dy: across, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: above + size, dy: above + 2 * size, dx: across });
  });

  test("has the same results up to its last byte", () => {
    const last = 4 * GIB - size;
    expectSame(from(GIB), { x: last, y: GIB + 65536, dy: GIB + 65536 + size, dx: GIB + 65536 + 2 * size });
    expectSame(from(GIB), { x: last - size, y: last, dy: last - 2 * size, dx: last - 3 * size });
    expectSame(from(GIB), { x: last - size, y: last - 2 * size, dy: last - 3 * size, dx: last });
  });
});

test("a heap grown to over 3 GiB holds what was there, and computes above it", () => {
  const runtime = Runtime.create();
  const ln = new LayerNorm(cols, { runtime });
  const apart = new LayerNorm(cols);
  const before = new Tensor([rows, cols], x, { runtime });
  ln.forward(before);
  const fillers = [1, 2, 3].map(() => runtime.allocate(GIB - 65536));
  expect(runtime.memory.buffer.byteLength).toBeGreaterThan(3 * GIB);
  expect(before.data).toEqual(x);

  apart.forward(x);
  expect(ln.backward(dy)).toEqual(apart.backward(dy));
  const y = ln.forward(new Tensor([rows, cols], x, { runtime }));
  expect(y.data).toEqual(apart.forward(x));
  expect(Math.max(...fillers, y.pointer)).toBeGreaterThan(2 * GIB);
  for (const pointer of fillers) runtime.free(pointer);
  expect(y.data).toEqual(apart.forward(x));
});

test("a hundred modules made, used and disposed leave the memory at its first size", () => {
  const runtime = Runtime.create();
  for (let i = 0; i < 100; i++) {
    const ln = new LayerNorm(cols, { runtime });
    ln.backward(ln.forward(x));
    ln.dispose();
  }
  expect(runtime.memory.buffer.byteLength).toBe(65536);
});

/** The blocks of a runtime: the bytes of those taken, the addresses of those held, and how many more there is room for. */
class Blocks {
  readonly #heap = Runtime.create();
  readonly held = new Set<number>();
  room = Infinity;
  #taken: number[] = [];
  readonly runtime = Runtime.create({
    memory: this.#heap.memory,
    allocate: (bytes) => {
      if (this.room-- <= 0) return 0;
      this.#taken.push(bytes);
      const pointer = this.#heap.allocate(bytes);
      this.held.add(pointer);
      return pointer;
    },
    free: (pointer) => {
      if (!this.held.delete(pointer)) throw new Error(`${pointer} is not held`);
      this.#heap.free(pointer);
    },
  });

  taken(use: () => void): number[] {
    this.#taken = [];
    use();
    return this.#taken;
  }
}

describe("the blocks of a runtime", () => {
  const many = 67;
  const manyX = normal(many * cols, 5);

  test.each([
    ["Tensor", 1, (runtime: Runtime) => new Tensor([rows, cols], x, { runtime })],
    ["Parameter", 2, (runtime: Runtime) => new Parameter([rows, cols], x, { runtime })],
    ["LayerNorm", 4, (runtime: Runtime) => new LayerNorm(cols, { runtime })],
  ])("a %s holds %i, and gives each back once", (_, count, make) => {
    const { runtime, held } = new Blocks();
    const made = make(runtime);
    expect(held.size).toBe(count);
    made[DISPOSE]();
    expect(held.size).toBe(0);
    made[DISPOSE]();
    made.dispose();
  });

  test("functions of arrays keep none", () => {
    const { runtime, held } = new Blocks();
    const weight = new Tensor([cols], normal(cols, 3), { runtime });
    layerNorm(x, cols, weight);
    const { mean, rstd } = layerNormWithStats(manyX, cols, weight);
    layerNormBackward(manyX, manyX, mean, rstd, weight);
    expect([...held]).toEqual([weight.pointer]);
  });

  test("eval gives back what forward kept", () => {
    const { runtime, held } = new Blocks();
    const ln = new LayerNorm(cols, { runtime });
    const parameters = [...held];
    const t = new Tensor([rows, cols], x, { runtime });
    ln.forward(x);
    ln.forward(t).dispose();
    ln.eval();
    expect([...held]).toEqual([...parameters, t.pointer]);
    ln.train().forward(x);
    ln.eval();
    expect([...held]).toEqual([...parameters, t.pointer]);
  });

  test("a pass over as many rows as the last takes one for its result, and one for the sums over many rows", () => {
    const blocks = new Blocks();
    const { runtime } = blocks;
    const ln = new LayerNorm(cols, { runtime });
    for (const array of [x, manyX]) {
      const size = array.byteLength;
      const sums = array === x ? [] : [runtime.kernels.layerNormBackwardWorkspace(many, cols)];
      const shape = [array.length / cols, cols];
      const t = new Tensor(shape, array, { runtime });
      const out = new Tensor(shape, undefined, { runtime });
      for (const operand of [array, t]) {
        ln.forward(operand);
        expect(blocks.taken(() => ln.forward(operand))).toEqual([size]);
        expect(blocks.taken(() => ln.backward(operand))).toEqual([size, ...sums]);
      }
      expect(blocks.taken(() => ln.forward(t, { out }))).toEqual([]);
      expect(blocks.taken(() => ln.backward(t, { out }))).toEqual(sums);
    }
    for (const parameter of ln.parameters()) parameter.requiresGrad = false;
    expect(blocks.taken(() => ln.backward(manyX))).toEqual([manyX.byteLength]);
  });

  test.each(["array", "Tensor"])("a call on an %s that has no room for one gives back the others", (kind) => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const operand = kind === "array" ? manyX : new Tensor([many, cols], manyX, { runtime });
    const ln = new LayerNorm(cols, { runtime });
    const { mean, rstd } = layerNormWithStats(operand, cols, ln.weight);
    for (const [ofArray, ofTensor, use] of [
      [4, 4, () => new LayerNorm(cols, { runtime })],
      [4, 3, () => ln.forward(operand)],
      [2, 2, () => ln.backward(operand)],
      [4, 3, () => layerNormWithStats(operand, cols, ln.weight)],
      [8, 4, () => layerNormBackward(operand, operand, mean, rstd, ln.weight)],
    ] as const) {
      const before = [...held];
      const count = kind === "array" ? ofArray : ofTensor;
      for (let room = 0; room < count; room++) {
        blocks.room = room;
        expect(use).toThrow(/out of memory/);
        expect([...held]).toEqual(before);
      }
      blocks.room = count;
      expect(blocks.taken(use).length).toBe(count);
      blocks.room = Infinity;
    }
  });
});

test("a state dict goes from one instance to another, and to another runtime", () => {
  const trained = new LayerNorm([cols]);
  trained.weight?.data.set(normal(cols, 3));
  trained.bias?.data.set(normal(cols, 4));
  const runtime = Runtime.create();
  const copy = new LayerNorm(cols, { runtime });
  copy.loadStateDict(trained.stateDict());
  expect(copy.forward(x)).toEqual(trained.forward(x));
  trained.resetParameters();
  expect(copy.weight?.data).toEqual(normal(cols, 3));
});
