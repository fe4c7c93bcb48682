// What is made and dropped in a memory.

import { describe, expect, test } from "vitest";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Parameter,
  RMSNorm,
  Runtime,
  Tensor,
} from "../src/index.js";
import { DISPOSE, normal } from "./helpers.js";

const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);

test("a hundred modules made, used and disposed leave the memory at its first size", () => {
  const runtime = Runtime.create();
  for (let i = 0; i < 100; i++) {
    const ln = new LayerNorm(cols, { runtime });
    ln.backward(ln.forward(x));
    ln.dispose();
  }
  expect(runtime.memory.buffer.byteLength).toBe(65536);
});

test("a hundred thousand forward and backward calls on arrays leave the memory at its first size", () => {
  const runtime = Runtime.create();
  const ln = new LayerNorm(8, { runtime });
  const arrays = [1, 2, 3].map((count) => normal(8 * count, count));
  for (let i = 0; i < 1e5; i++) ln.backward(ln.forward(arrays[i % 3]!));
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

  /** Has the runtime give back the memory that it keeps between calls, as it does when there is no other. */
  flush(): void {
    this.room = 0;
    expect(() => new Tensor([1], undefined, { runtime: this.runtime })).toThrow(/out of memory/);
    this.room = Infinity;
  }

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

  test("a module over given Tensors holds their gradients alone, and gives back no more than these", () => {
    const { runtime, held } = new Blocks();
    const weight = new Tensor([cols], normal(cols, 3), { runtime });
    const bias = new Tensor([cols], normal(cols, 4), { runtime });
    const given = [weight.pointer, bias.pointer];
    for (const [count, make] of [
      [2, () => new LayerNorm(cols, { weight, bias })],
      [3, () => new LayerNorm(cols, { weight })],
      [1, () => new LayerNorm(cols, { weight, bias: false })],
      [1, () => new RMSNorm(cols, { weight })],
    ] as const) {
      const module = make();
      expect(held.size).toBe(given.length + count);
      module.dispose();
      module.dispose();
      expect([...held]).toEqual(given);
    }
    const parameter = new Parameter([cols], undefined, { runtime });
    const before = [...held];
    new RMSNorm(cols, { weight: parameter }).dispose();
    expect([...held]).toEqual(before);
  });

  test.each([0, 1])("a module over given Tensors that has room for %i of two gradients gives all back", (room) => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const weight = new Tensor([cols], normal(cols, 3), { runtime });
    const bias = new Tensor([cols], normal(cols, 4), { runtime });
    blocks.room = room;
    expect(() => new LayerNorm(cols, { weight, bias })).toThrow(/out of memory/);
    expect([...held]).toEqual([weight.pointer, bias.pointer]);
    expect(weight.data).toEqual(normal(cols, 3));
  });

  test("functions of arrays keep none but the memory for the next call", () => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const weight = new Tensor([cols], normal(cols, 3), { runtime });
    layerNorm(x, cols, weight);
    const { mean, rstd } = layerNormWithStats(manyX, cols, weight);
    layerNormBackward(manyX, manyX, mean, rstd, weight);
    expect(held.size).toBe(2);
    blocks.flush();
    expect([...held]).toEqual([weight.pointer]);
  });

  test("eval gives back what forward kept", () => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const ln = new LayerNorm(cols, { runtime });
    const parameters = [...held];
    const t = new Tensor([rows, cols], x, { runtime });
    ln.forward(x);
    ln.forward(t).dispose();
    ln.eval();
    blocks.flush();
    expect([...held]).toEqual([...parameters, t.pointer]);
    ln.train().forward(x);
    ln.eval();
    blocks.flush();
    expect([...held]).toEqual([...parameters, t.pointer]);
  });

  test("a pass over as many rows as the last takes one for a Tensor that it returns, and no other", () => {
    const blocks = new Blocks();
    const { runtime } = blocks;
    const ln = new LayerNorm(cols, { runtime });
    for (const array of [x, manyX]) {
      const size = array.byteLength;
      const shape = [array.length / cols, cols];
      const t = new Tensor(shape, array, { runtime });
      const out = new Tensor(shape, undefined, { runtime });
      for (const operand of [array, t]) {
        ln.forward(operand);
        ln.backward(operand);
        const result = operand === t ? [size] : [];
        expect(blocks.taken(() => ln.forward(operand))).toEqual(result);
        expect(blocks.taken(() => ln.backward(operand))).toEqual(result);
      }
      expect(blocks.taken(() => ln.forward(t, { out }))).toEqual([]);
      expect(blocks.taken(() => ln.backward(t, { out }))).toEqual([]);
    }
    for (const parameter of ln.parameters()) parameter.requiresGrad = false;
    expect(blocks.taken(() => ln.backward(manyX))).toEqual([]);
  });

  test.each(["array", "Tensor"])("a call on an %s that has no room for one gives back the others", (kind) => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const operand = kind === "array" ? manyX : new Tensor([many, cols], manyX, { runtime });
    const ln = new LayerNorm(cols, { runtime });
    const { mean, rstd } = layerNormWithStats(operand, cols, ln.weight);
    for (const [ofArray, ofTensor, use] of [
      [4, 4, () => new LayerNorm(cols, { runtime })],
      [2, 2, () => ln.forward(operand)],
      [1, 2, () => ln.backward(operand)],
      [1, 3, () => layerNormWithStats(operand, cols, ln.weight)],
      [1, 4, () => layerNormBackward(operand, operand, mean, rstd, ln.weight)],
    ] as const) {
      blocks.flush();
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

  test("what a call has given stays when the next one finds no room", () => {
    const blocks = new Blocks();
    const { runtime, held } = blocks;
    const ln = new LayerNorm(cols, { runtime });
    const t = new Tensor([rows, cols], x, { runtime });
    for (const module of [ln, ln.eval()]) {
      const y = module.forward(t);
      blocks.flush();
      const before = [...held];
      blocks.room = 0;
      expect(() => module.forward(t)).toThrow(/out of memory/);
      blocks.room = Infinity;
      expect([...held]).toEqual(before);
      expect(y.data).toEqual(module.forward(x));
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
