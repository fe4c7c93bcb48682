// What calls take of the memory and give back, and that none writes anywhere but to its outputs.

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
import { DISPOSE, normal, resizable } from "./helpers.js";
import { FAMILIES, gradientsOf, type Norm } from "./norms.js";
import { Watched } from "./watched.js";

const rows = 5;
const cols = 37;
const shape = [rows, cols];
const x = normal(rows * cols, 1);
const dy = normal(rows * cols, 2);

describe.each(FAMILIES)("the memory stays at its first size, $name:", ({ make }) => {
  test("a hundred modules made, used and disposed", () => {
    const runtime = Runtime.create();
    for (let i = 0; i < 100; i++) {
      using norm = make(cols, { runtime });
      norm.backward(norm.forward(x));
    }
    expect(runtime.memory.buffer.byteLength).toBe(65536);
  });
});

describe("the blocks of a runtime", () => {
  const many = 67;
  const manyX = normal(many * cols, 5);
  /** A weight and a bias in a runtime. */
  const affine = (runtime: Runtime) =>
    [3, 4].map((seed) => new Tensor([cols], normal(cols, seed), { runtime })) as [Tensor, Tensor];

  test.each([
    ["Tensor", 1, (runtime: Runtime) => new Tensor(shape, x, { runtime })],
    ["Parameter", 2, (runtime: Runtime) => new Parameter(shape, x, { runtime })],
    ["LayerNorm", 4, (runtime: Runtime) => new LayerNorm(cols, { runtime })],
    ["RMSNorm", 2, (runtime: Runtime) => new RMSNorm(cols, { runtime })],
  ])("a %s holds %i, and gives each back once", (_, count, make) => {
    const { runtime, held } = new Watched();
    const made = make(runtime);
    expect(held.size).toBe(count);
    made[DISPOSE]();
    expect(held.size).toBe(0);
    made[DISPOSE]();
    made.dispose();
  });

  test("a module over given Tensors holds their gradients alone, and gives back no more than these", () => {
    const { runtime, held } = new Watched();
    const [weight, bias] = affine(runtime);
    const parameter = new Parameter([cols], undefined, { runtime });
    const given = [...held.keys()];
    for (const [count, make] of [
      [2, () => new LayerNorm(cols, { weight, bias })],
      [3, () => new LayerNorm(cols, { weight })],
      [1, () => new LayerNorm(cols, { weight, bias: false })],
      [1, () => new RMSNorm(cols, { weight })],
      [0, () => new RMSNorm(cols, { weight: parameter })],
    ] as const) {
      const module = make();
      expect(held.size).toBe(given.length + count);
      module.dispose();
      module.dispose();
      expect([...held.keys()]).toEqual(given);
    }
  });

  test.each([0, 1])("a module over given Tensors that has room for %i of two gradients gives all back", (room) => {
    const watched = new Watched();
    const { runtime, held } = watched;
    const [weight, bias] = affine(runtime);
    watched.room = room;
    expect(() => new LayerNorm(cols, { weight, bias })).toThrow(/out of memory/);
    expect([...held.keys()]).toEqual([weight.pointer, bias.pointer]);
    expect(weight.data).toEqual(normal(cols, 3));
  });

  test("functions of arrays keep none but the memory for the next call", () => {
    const watched = new Watched();
    const { runtime, held } = watched;
    const [weight] = affine(runtime);
    const before = [...held.keys()];
    layerNorm(x, cols, weight);
    const { mean, rstd } = layerNormWithStats(manyX, cols, weight);
    layerNormBackward(manyX, manyX, mean, rstd, weight);
    expect(held.size).toBe(before.length + 1);
    watched.flush();
    expect([...held.keys()]).toEqual(before);
  });

  test("eval gives back what forward kept", () => {
    const watched = new Watched();
    const { runtime, held } = watched;
    const ln = new LayerNorm(cols, { runtime });
    const t = new Tensor(shape, x, { runtime });
    const before = [...held.keys()];
    for (const use of [() => ln.forward(x), () => ln.forward(t).dispose()]) {
      ln.train();
      use();
      ln.eval();
      watched.flush();
      expect([...held.keys()]).toEqual(before);
    }
  });

  test("a pass over as many rows as the last takes one for a Tensor that it returns, and no other", () => {
    const watched = new Watched();
    const { runtime } = watched;
    const ln = new LayerNorm(cols, { runtime });
    for (const array of [x, manyX]) {
      const t = new Tensor([array.length / cols, cols], array, { runtime });
      const out = new Tensor(t.shape, undefined, { runtime });
      for (const operand of [array, t]) {
        ln.forward(operand);
        ln.backward(operand);
        const result = operand === t ? [array.byteLength] : [];
        expect(watched.taken(() => ln.forward(operand))).toEqual(result);
        expect(watched.taken(() => ln.backward(operand))).toEqual(result);
      }
      expect(watched.taken(() => ln.forward(t, { out }))).toEqual([]);
      expect(watched.taken(() => ln.backward(t, { out }))).toEqual([]);
    }
    for (const parameter of ln.parameters()) parameter.requiresGrad = false;
    expect(watched.taken(() => ln.backward(manyX))).toEqual([]);
  });

  test.each(["array", "Tensor"])("a call on an %s that has no room for one gives back the others", (kind) => {
    const watched = new Watched();
    const { runtime, held } = watched;
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
      watched.flush();
      const before = [...held.keys()];
      const count = kind === "array" ? ofArray : ofTensor;
      for (let room = 0; room < count; room++) {
        watched.room = room;
        expect(use).toThrow(/out of memory/);
        expect([...held.keys()]).toEqual(before);
      }
      watched.room = count;
      expect(watched.taken(use).length).toBe(count);
      watched.room = Infinity;
    }
  });

  test("a call that finds its block disposed by the allocator gives back what it borrowed", () => {
    const watched = new Watched();
    const ln = new LayerNorm(cols, { runtime: watched.runtime });
    const before = [...watched.held.keys()];
    ln.forward(x);
    watched.flush();
    watched.besides = () => ln.eval();
    expect(() => ln.forward(x)).toThrow(/forward: the allocator disposed of the module/);
    watched.flush();
    expect([...watched.held.keys()]).toEqual(before);
  });

  test.each<[string, (ln: LayerNorm) => unknown, string]>([
    ["begins another forward of the module", (ln) => ln.forward(x), "the allocator called the module"],
    ["disposes of the weight", (ln) => ln.weight.dispose(), "dweight was disposed"],
    ["disposes of the bias", (ln) => ln.bias.dispose(), "dbias was disposed"],
  ])("backward is refused where its allocator %s", (_, misuse, message) => {
    const watched = new Watched();
    const ln = new LayerNorm(cols, { runtime: watched.runtime });
    ln.forward(x);
    watched.flush();
    watched.besides = () => {
      watched.besides = () => {};
      misuse(ln);
    };
    expect(() => ln.backward(dy)).toThrow(`LayerNorm.backward: ${message}`);
    expect(watched.strayWrite()).toBe(-1);
  });

  test("what a call has given, or kept, stays when the next one finds no room", () => {
    const watched = new Watched();
    const { runtime, held } = watched;
    const [ln, apart] = [new LayerNorm(cols, { runtime }), new LayerNorm(cols)];
    const t = new Tensor(shape, x, { runtime });
    const expected = apart.forward(x);
    const y = ln.forward(t);
    watched.flush();
    const before = [...held.keys()];
    watched.room = 0;
    for (const use of [() => ln.forward(t), () => ln.forward(manyX), () => ln.backward(t)]) {
      expect(use).toThrow(/out of memory/);
      expect([...held.keys()]).toEqual(before);
    }
    watched.room = Infinity;
    expect(y.data).toEqual(expected);
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
    expect(gradientsOf(ln)).toEqual(gradientsOf(apart));
  });

  test("an allocator that has no block of 0 bytes serves calls of no rows", () => {
    const { runtime, held } = new Watched();
    const ln = new LayerNorm(cols, { runtime });
    for (const none of [new Float32Array(0), new Tensor([0, cols], undefined, { runtime })]) {
      ln.backward(ln.forward(none));
      layerNormWithStats(none, cols, ln.weight);
    }
    expect(Math.min(...held.values())).toBeGreaterThan(0);
    expect(ln.weight.grad).toEqual(new Float32Array(cols));
  });
});

// An object that lies about itself may give an exception or a wrong result, but never a write outside of the outputs.
describe.each(FAMILIES)("$name writes nothing outside of its outputs, whatever it is given:", ({ make, apply }) => {
  class Lying extends Tensor {
    override get pointer() {
      return super.pointer + 32;
    }
    override get size() {
      return 50 * cols;
    }
    override get shape() {
      return [50, cols];
    }
  }
  const outOf = (shape: number[], runtime: Runtime) => new Tensor(shape, undefined, { runtime });
  const lying = (name: string, value: unknown) => Object.defineProperty(x.slice(), name, { value });
  /** Options that do something when their out is read. */
  const acting = (get: () => void) => Object.defineProperty({}, "out", { get, enumerable: true });
  const resizing = (watched: Watched, bytes: number): Given => {
    const buffer = resizable(x.byteLength);
    watched.besides = () => buffer.resize?.(bytes); // Chrome before 111 has none
    return [new Float32Array(buffer)];
  };
  const disposing = (watched: Watched, used: Norm | Tensor, when = "allocate"): Given => {
    const operand = used instanceof Tensor ? new Tensor(shape, x, { runtime: watched.runtime }) : x;
    watched.besides = (step) => void (step === when && used.dispose());
    return [operand, used instanceof Tensor ? { out: used } : {}];
  };

  type Given = [operand: unknown, options?: object];
  test.each<[string, (runtime: Runtime, norm: Norm, watched: Watched) => Given]>([
    ["an x with another pointer, size and shape", (runtime) => [new Lying(shape, x, { runtime })]],
    ["an out like that", (runtime) => [outOf(shape, runtime), { out: new Lying(shape, x, { runtime }) }]],
    ["an out with another length", () => [x, { out: lying("length", 64 * cols) }]],
    ["an x with another length", () => [lying("length", cols)]],
    ["an array with another byteOffset", () => [lying("byteOffset", 64 * cols)]],
    ["an array that says it is in the memory", ({ memory }) => [lying("buffer", memory.buffer)]],
    ["an out that disposes of the module", (_, norm) => [x, acting(() => norm.dispose())]],
    ["an out that disposes of the weight", (_, norm) => [x, acting(() => norm.weight.dispose())]],
    ["an allocator that shrinks x", (_runtime, _norm, watched) => resizing(watched, 4 * cols)],
    ["an allocator that lengthens x", (_runtime, _norm, watched) => resizing(watched, 2 * x.byteLength)],
    ["an allocator that disposes of out", (runtime, _, watched) => disposing(watched, outOf(shape, runtime))],
    ["a free that disposes of out", (runtime, _, watched) => disposing(watched, outOf(shape, runtime), "free")],
    ["an allocator that disposes of the module", (_, norm, watched) => disposing(watched, norm)],
  ])("%s", (_, given) => {
    const watched = new Watched();
    const { runtime } = watched;
    for (const training of [true, false]) {
      const norm = make(cols, { runtime }).train(training);
      norm.forward(x.subarray(cols)); // the next forward replaces what this one keeps
      const [operand, options] = given(runtime, norm, watched) as [Tensor, object?];
      for (const call of [
        () => apply(operand, cols, norm.weight, null, 1e-5, options),
        () => norm.forward(operand, options),
        () => norm.forward(operand),
        () => norm.backward(operand, options),
      ]) {
        try {
          call();
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
        expect(watched.strayWrite()).toBe(-1);
      }
    }
  });

  test("a shape of another length at the second reading", () => {
    const watched = new Watched();
    let lengths = 0;
    const lengthening = new Proxy([cols, 1000], {
      get: (target, key) => (key === "length" && lengths++ === 0 ? 1 : Reflect.get(target, key)),
    });
    make(lengthening, { runtime: watched.runtime }).resetParameters();
    expect(watched.strayWrite()).toBe(-1);
  });
});
