import { describe, expect, test } from "vitest";
import { LayerNorm, Parameter, RMSNorm, Runtime, Tensor } from "../src/index.js";
import { DISPOSE, normal } from "./helpers.js";

const NUMBERS = "expected a Float32Array or a list of numbers; Float32Array.from converts integers";

/** Makes the memory grow, so that every view of it is gone. */
function grow(runtime = Runtime.default): void {
  runtime.memory.grow(1);
}

describe("Tensor", () => {
  test("is zeros, also where memory was used before", () => {
    const runtime = Runtime.create();
    new Tensor([2, 3], [1, 2, 3, 4, 5, 6], { runtime }).dispose();
    const t = new Tensor([2, 3], undefined, { runtime });
    expect([...t.data]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(t.shape).toEqual([2, 3]);
    expect(t.size).toBe(6);
  });

  test.each([[Float32Array.of(1, 2, 3)], [[1, 2, 3]], [Float64Array.of(1, 2, 3)]])("copies %o", (source) => {
    const t = new Tensor([3], source);
    source[0] = 9;
    expect([...t.data]).toEqual([1, 2, 3]);
  });

  test("has a shape that neither the caller nor a reader can change", () => {
    const shape = [2, 3];
    const t = new Tensor(shape);
    shape[0] = 7;
    expect(t.shape).toEqual([2, 3]);
    expect(Object.isFrozen(t.shape)).toBe(true);
    for (const name of ["shape", "size", "pointer"]) {
      expect(() => Object.assign(t, { [name]: 1000 }), name).toThrow(TypeError);
    }
  });

  test.each([[[]], [[0]], [[3, 0, 2]]])("may have the shape %j", (shape) => {
    const t = new Tensor(shape);
    expect(t.data.length).toBe(shape.reduce((size: number, n) => size * n, 1));
    expect(t.pointer).toBeGreaterThan(0);
  });

  test("data is live: the same view until the memory grows, then a new one of the same elements", () => {
    const t = new Tensor([2], [1, 2]);
    const before = t.data;
    before[0] = 5;
    expect(t.data).toBe(before);
    grow();
    expect(before.length).toBe(0);
    expect([...t.data]).toEqual([5, 2]);
    expect(t.data.byteOffset).toBe(t.pointer);
  });

  test("copies from a view of its own memory, even when making room for it moves that memory", () => {
    const runtime = Runtime.create();
    const big = new Tensor([10000], normal(10000, 1), { runtime });
    const size = runtime.memory.buffer.byteLength;
    const copy = new Tensor([10000], big.data, { runtime });
    expect(runtime.memory.buffer.byteLength).toBeGreaterThan(size);
    expect(copy.data).toEqual(big.data);
  });

  test("dispose gives the memory back, twice is harmless, use afterwards is an error", () => {
    const t = new Tensor([4]);
    const pointer = t.pointer;
    expect(t.disposed).toBe(false);
    t.dispose();
    t.dispose();
    t[DISPOSE]();
    expect(t.disposed).toBe(true);
    expect(() => t.data).toThrow(new TypeError("Tensor was disposed"));
    expect(() => t.pointer).toThrow(TypeError);
    expect(new Tensor([4]).pointer).toBe(pointer);
  });

  test("a hundred thousand made and disposed leave the memory at its first size", () => {
    const runtime = Runtime.create();
    for (let i = 0; i < 1e5; i++) new Tensor([1 + (i % 1000)], undefined, { runtime }).dispose();
    expect(runtime.memory.buffer.byteLength).toBe(65536);
  });

  test("at a pointer it sees memory that is not its own", () => {
    const owner = new Tensor([4], [1, 2, 3, 4]);
    const seen = new Tensor([2], undefined, { pointer: owner.pointer + 8 });
    expect([...seen.data]).toEqual([3, 4]);
    seen.data[0] = 9;
    expect([...owner.data]).toEqual([1, 2, 9, 4]);
    seen.dispose();
    expect([...owner.data]).toEqual([1, 2, 9, 4]);
    const written = new Tensor([2], [7, 8], { pointer: owner.pointer });
    expect([...owner.data]).toEqual([7, 8, 9, 4]);
    expect(written.pointer).toBe(owner.pointer);
  });

  test.each<[message: string, Kind: ErrorConstructor, ...args: unknown[]]>([
    ["shape is 4, expected a list of integers", TypeError, 4],
    ['shape is ["2"], expected a list of integers', TypeError, ["2"]],
    ["shape is [2, -1], expected integers of 0 or more", RangeError, [2, -1]],
    ["shape is [1.5], expected integers of 0 or more", RangeError, [1.5]],
    ["data has 3 elements, expected 4 for the shape [2, 2]", RangeError, [2, 2], [1, 2, 3]],
    [`data is "1", ${NUMBERS}`, TypeError, [1], "1"],
    [`data is a BigInt64Array, ${NUMBERS}`, TypeError, [1], new BigInt64Array(1)],
    [`data is a Uint16Array, ${NUMBERS}`, TypeError, [1], new Uint16Array(1)],
    [`data is null, ${NUMBERS}`, TypeError, [1], null],
    ['data[0] is "1", expected a number', TypeError, [1], ["1"]],
    // biome-ignore lint/suspicious/noSparseArray: the hole is the point
    ["data[1] is undefined, expected a number", TypeError, [3], [1, , 3]],
    ["data[0] is [1], expected a number; list.flat(Infinity) makes a flat list", TypeError, [2], [[1], [2]]],
    ["runtime is an Object, expected a Runtime", TypeError, [1], undefined, { runtime: {} }],
    ['pointer is "8", expected a number', TypeError, [1], undefined, { pointer: "8" }],
    ["pointer is undefined, expected a number", TypeError, [1], undefined, { pointer: undefined }],
    ['"runTime" is not an option, expected runtime, pointer', TypeError, [1], undefined, { runTime: 1 }],
  ])("refuses arguments that don't fit: %s", (message, Kind, ...args) => {
    const make = () => new Tensor(...(args as unknown as ConstructorParameters<typeof Tensor>));
    expect(make).toThrow(new Kind(`Tensor: ${message}`));
  });

  test.each([{ shape: [2] }, { shape: [2], pointer: undefined }])("from %j, without a pointer, is refused", (part) => {
    const { memory } = Runtime.create();
    expect(() => Tensor.from({ memory, ...part } as never)).toThrow(/pointer/);
    expect(memory.buffer.byteLength).toBe(65536);
  });

  test.each([
    ["x".repeat(40), `"${"x".repeat(40)}"`],
    ["x".repeat(41), `"${"x".repeat(40)}..."`],
    [[1, 2, 3, 4, 5, 6, 7, "8"], '[1, 2, 3, 4, 5, 6, 7, "8"]'],
    [[1, 2, 3, 4, 5, 6, 7, 8, "9"], "[1, 2, 3, 4, 5, 6, 7, 8, ...]"],
    [[[2, 3], 5], "[[...], 5]"],
    [new Map(), "a Map"],
    [Object.create(null), "an Object"],
    [() => [2, 3], "a function"],
  ])("an error shows what came, in short: %#", (shape, shown) => {
    expect(() => new Tensor(shape as never)).toThrow(
      new TypeError(`Tensor: shape is ${shown}, expected a list of integers`),
    );
  });

  test("refuses a view of memory that has grown since", () => {
    const runtime = Runtime.create();
    const stale = new Tensor([2], [1, 2], { runtime }).data;
    grow(runtime);
    expect(() => new Tensor([2], stale)).toThrow(/Tensor: data is detached, as its memory has grown/);
    expect(() => new Tensor([0], new Float32Array(0))).not.toThrow();
  });

  test.each([0, -4, 2, 1.5, NaN, 65536, 65532])("refuses the pointer %d for 2 elements in a page", (pointer) => {
    const runtime = Runtime.create();
    const expected = "expected a multiple of 4 with room for 8 bytes in a memory of 65536";
    expect(() => new Tensor([2], undefined, { runtime, pointer })).toThrow(
      new RangeError(`Tensor: pointer is ${pointer}, ${expected}`),
    );
  });

  test("may reach to the last byte of the memory", () => {
    const runtime = Runtime.create();
    const last = new Tensor([2], [3, 4], { runtime, pointer: 65528 });
    expect([...new Float32Array(runtime.memory.buffer).subarray(-3)]).toEqual([0, 3, 4]);
    expect(last.data.length).toBe(2);
  });

  test("a shape too large for the memory is out of memory and names the bytes", () => {
    const shape = [1 << 20, 1 << 20];
    expect(() => new Tensor(shape)).toThrow(/no room for 4398046511104 bytes/);
    expect(() => new Tensor([1e200, 1e200, 0])).toThrow(/shape is .*, expected a size that can be counted/);
  });
});

describe("Parameter", () => {
  test("has a gradient of zeros, live as its data is", () => {
    const p = new Parameter([2], [1, 2]);
    expect(p).toBeInstanceOf(Tensor);
    expect(p.requiresGrad).toBe(true);
    expect([...p.grad]).toEqual([0, 0]);
    p.grad[1] = 3;
    grow();
    expect([...p.grad]).toEqual([0, 3]);
    expect([...p.data]).toEqual([1, 2]);
  });

  test("without room for its gradient it takes no memory", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    for (let i = 0; i < 5; i++) expect(() => new Parameter([10000], undefined, { runtime })).toThrow(/out of memory/);
    expect(new Tensor([12000], undefined, { runtime }).size).toBe(12000);
  });

  test("dispose gives both back", () => {
    const p = new Parameter([2]);
    p.dispose();
    expect(() => p.grad).toThrow(TypeError);
    expect(() => p.data).toThrow(TypeError);
  });
});

describe("what is shown of an object", () => {
  test.each<[string, object]>([
    ["Tensor [64, 768]", new Tensor([64, 768])],
    ["Tensor []", new Tensor([])],
    ["Parameter [3]", new Parameter([3])],
    ["LayerNorm(768, eps=1e-5)", new LayerNorm(768)],
    ["LayerNorm(3, eps=1e-5, bias=false)", new LayerNorm(3, { bias: false })],
    ["LayerNorm(3, eps=1e-5, elementwiseAffine=false)", new LayerNorm(3, { elementwiseAffine: false })],
    ["RMSNorm([4, 8], eps=0)", new RMSNorm([4, 8], { eps: 0 })],
    ["Runtime(65536 bytes)", Runtime.create()],
  ])("%s", (expected, object) => {
    expect(`${object}`).toBe(expected);
    expect(JSON.stringify({ object })).toBe(JSON.stringify({ object: expected }));
    const inspect = Symbol.for("nodejs.util.inspect.custom");
    expect((object as Record<symbol, () => string>)[inspect]?.()).toBe(expected);
  });

  test("a Tensor that was disposed says so", () => {
    const t = new Tensor([2]);
    t.dispose();
    expect(`${t}`).toBe("Tensor [2], disposed");
  });
});
