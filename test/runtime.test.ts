import { describe, expect, test } from "vitest";
import { LayerNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";

const page = 65536;
const memoryOf = (initial: number, maximum = initial) => new WebAssembly.Memory({ initial, maximum });

describe("Runtime", () => {
  test("default is one and the same", () => {
    expect(Runtime.default).toBe(Runtime.default);
    expect(new Tensor([1]).runtime).toBe(Runtime.default);
  });

  test("create makes a memory of its own", () => {
    const runtime = Runtime.create();
    expect(runtime.memory).not.toBe(Runtime.default.memory);
    expect(runtime.memory.buffer.byteLength).toBe(page);
    expect(new LayerNorm(4, { runtime }).weight!.runtime).toBe(runtime);
  });

  test("starts large blocks at different places in 4 KiB, which processors need to tell them apart, and takes them back", () => {
    const runtime = Runtime.create();
    const bytes = [page - 1, page, page + 4, 3 * page, 1 << 20, 1 << 20];
    const places = bytes.map((size) => runtime.allocate(size)).map((pointer) => pointer % 4096);
    expect(places.slice(1)).toEqual([0, 768, 1536, 2304, 3072]);
    const own = Runtime.create();
    let grown = 0;
    for (let i = 0; i < 1000; i++) {
      const blocks = [1 << 20, 100, page].map((size) => own.allocate(size));
      for (const [k, size] of [1 << 20, 100, page].entries()) {
        new Uint8Array(own.memory.buffer, blocks[k], size).fill(255); // all of it, and nothing of the heap's
      }
      for (const block of blocks) own.free(block);
      if (i === 4) grown = own.memory.buffer.byteLength;
    }
    expect(own.memory.buffer.byteLength).toBe(grown);
  });

  test("takes an unused memory and manages it", () => {
    const memory = memoryOf(0, 2);
    const runtime = Runtime.create({ memory });
    expect(runtime.memory).toBe(memory);
    expect(new LayerNorm(2, { runtime }).forward(new Float32Array([1, 2]))[1]).toBeCloseTo(1, 4);
  });

  test("computes in the memory of another module, with that module's allocator", () => {
    const memory = memoryOf(2);
    const bytes = new Uint8Array(memory.buffer).fill(0x5a);
    let next = page;
    const freed: number[] = [];
    const runtime: Runtime = Runtime.create({
      memory,
      allocate: (size): number => {
        const pointer = next;
        next += Math.ceil(size / 4) * 4;
        return pointer;
      },
      free: (pointer) => freed.push(pointer),
    });
    const ln = new LayerNorm(17, { runtime });
    const x = normal(34, 1);
    expect(ln.forward(x)).toEqual(new LayerNorm(17).forward(x));
    ln.dispose();
    expect(freed.length).toBeGreaterThan(4);
    expect(new Set(freed).size).toBe(freed.length);
    expect(bytes.subarray(0, page).every((byte) => byte === 0x5a)).toBe(true);
    expect(bytes.subarray(next).every((byte) => byte === 0x5a)).toBe(true);
  });

  test("computes on a tensor that another module placed in its memory", () => {
    const memory = memoryOf(1);
    new Float32Array(memory.buffer, 4096, 4).set([1, 2, 3, 4]);
    const runtime = Runtime.create({ memory, allocate: () => 8192, free: () => {} });
    const x = new Tensor([4], undefined, { runtime, pointer: 4096 });
    const out = new Tensor([4], undefined, { runtime, pointer: 4116 });
    const ln = new LayerNorm(4, { runtime, elementwiseAffine: false }).eval();
    expect(ln.forward(x, { out })).toBe(out);
    expect(new Float32Array(memory.buffer, 4116, 4)).toEqual(new LayerNorm(4).forward([1, 2, 3, 4]));
  });

  test("takes an allocator's pointers as unsigned", () => {
    // As WebAssembly exports return them, i32: 0x80000000 is negative.
    const runtime = Runtime.create({ memory: memoryOf(32769), allocate: () => -0x80000000, free: () => {} });
    expect(runtime.allocate(4)).toBe(0x80000000);
  });

  const [allocate, free] = [() => 16, () => {}];
  const shared = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const TOGETHER = "must be given together, with their memory";
  const OPTIONS = "memory, allocate, free, module, heap, async";
  test.each<[message: string, options: unknown]>([
    ["memory is 1, expected a WebAssembly.Memory", { memory: 1 }],
    [`allocate and free ${TOGETHER}`, { memory: memoryOf(1), allocate }],
    [`allocate and free ${TOGETHER}`, { allocate, free }],
    ["allocate is 5, expected a function", { memory: memoryOf(1), allocate: 5, free }],
    ['free is "free", expected a function', { memory: memoryOf(1), allocate, free: "free" }],
    ["memory is shared; use createThreadedRuntime", { memory: shared }],
    [`"memmory" is not an option, expected ${OPTIONS}`, { memmory: memoryOf(1) }],
    ["options is null, expected an object", null],
  ])("refuses options that don't fit: %s", (message, options) => {
    expect(() => Runtime.create(options as object)).toThrow(new TypeError(`Runtime.create: ${message}`));
  });

  test("refuses a memory in use without the allocator it belongs to, and leaves it alone", () => {
    const memory = memoryOf(1);
    new Uint8Array(memory.buffer)[page - 1] = 1;
    expect(() => Runtime.create({ memory })).toThrow(TypeError);
    expect(() => Runtime.create({ memory })).toThrow(/in use .* allocate and free/);
    expect(new Uint8Array(memory.buffer).subarray(0, page - 1).every((byte) => byte === 0)).toBe(true);
  });

  test("manages a memory once", () => {
    const memory = memoryOf(1);
    Runtime.create({ memory });
    expect(() => Runtime.create({ memory })).toThrow(/^Runtime.create: memory belongs to another runtime$/);
    const foreign = memoryOf(1);
    const allocator = { memory: foreign, allocate: () => 16, free: () => {} };
    Runtime.create(allocator);
    expect(() => Runtime.create({ memory: foreign })).toThrow(/belongs to another/);
    expect(Runtime.create(allocator).allocate(4)).toBe(16);
  });

  test("calls an allocator as the method it may be, and the one that it was given", () => {
    const options = {
      memory: memoryOf(1),
      allocate(bytes: number) {
        return this.memory.buffer.byteLength - bytes;
      },
      free() {},
    };
    const runtime = Runtime.create(options);
    options.allocate = () => 0;
    expect(runtime.allocate(8)).toBe(page - 8);
  });

  const ODD = [2, 65532, NaN, Infinity, -Infinity, 0.25, -0.5, 4.5, -4, 2 ** 32, 2 ** 32 + 16, 16 - 2 ** 32];
  test.each([...ODD, undefined, null, "16", 16n])("refuses the address %s from an allocator", (address) => {
    const memory = memoryOf(1);
    const runtime = Runtime.create({ memory, allocate: () => address as never, free: () => {} });
    const message = /what allocate.8. returned is .*, expected a (number|multiple of 4 with room for 8)/;
    expect(() => runtime.allocate(8)).toThrow(TypeError);
    expect(() => runtime.allocate(8)).toThrow(message);
    expect(() => new Tensor([2], [1, 2], { runtime })).toThrow(message);
    expect(new Uint8Array(memory.buffer).every((byte) => byte === 0)).toBe(true);
  });

  test("allocate refuses what is not a size", () => {
    for (const bytes of [-1, 1.5, NaN]) {
      expect(() => Runtime.default.allocate(bytes)).toThrow(
        new RangeError(`Runtime.allocate: bytes is ${bytes}, expected an integer of 0 or more`),
      );
    }
  });

  test.each([page * 4, 2 ** 30 - 4, 2 ** 30, 2 ** 31, 2 ** 32, 2 ** 40])("says no room for %i bytes", (bytes) => {
    const runtime = Runtime.create({ memory: memoryOf(1, 2) });
    const kept = new Tensor([4], [1, 2, 3, 4], { runtime });
    const cure = bytes < 2 ** 30 ? "dispose() of what is no longer needed" : "a block is smaller than 1 GiB";
    expect(() => runtime.allocate(bytes)).toThrow(
      new RangeError(`Runtime.allocate: out of memory, no room for ${bytes} bytes; ${cure}`),
    );
    expect([...kept.data]).toEqual([1, 2, 3, 4]);
    expect(new Tensor([4], kept.data, { runtime }).data).toEqual(kept.data);
  });

  test("an allocator that returns 0 or traps is out of memory, any other error is its own", () => {
    const memory = memoryOf(1);
    expect(() => Runtime.create({ memory, allocate: () => 0, free: () => {} }).allocate(12)).toThrow(
      /no room for 12 bytes/,
    );
    const allocate = () => {
      throw new Error("mine");
    };
    expect(() => Runtime.create({ memory, allocate, free: () => {} }).allocate(12)).toThrow("mine");
  });
});
