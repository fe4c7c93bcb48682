// The memory of modules that are not ours: a C library by Emscripten and a Rust one by wasm-bindgen, both as published on npm, and
// test/fixtures/pthreads, which has threads and a shared memory. docs/guides/own-memory.md has programs for each.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { LayerNorm, layerNorm, RMSNorm, Runtime, Tensor } from "layernorm-wasm";
import { createThreadedRuntime, type ThreadsOptions } from "layernorm-wasm/threads";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference, normal } from "./helpers.js";

const NORMS: readonly (new (cols: number, options: { runtime: Runtime }) => LayerNorm | RMSNorm)[] = [
  LayerNorm,
  RMSNorm,
];

/** An allocator that knows which of its blocks are taken, and refuses to take back any other. */
function counted(allocate: (bytes: number) => number, free: (pointer: number) => void) {
  const held = new Set<number>();
  return {
    held,
    allocator: {
      allocate: (bytes: number) => {
        const pointer = allocate(bytes) >>> 0;
        if (pointer) held.add(pointer);
        return pointer;
      },
      free: (pointer: number) => {
        if (!held.delete(pointer)) throw new Error(`${pointer} is not held`);
        free(pointer);
      },
    },
  };
}

/** Functions of C, which take and give numbers. */
type C<Name extends string> = Record<`_${"malloc" | "free" | Name}`, (...args: number[]) => number>;
type Pffft = C<`pffft_${"aligned_malloc" | "aligned_free" | "new_setup" | "transform_ordered"}`> & {
  HEAPF32: Float32Array;
};

describe("PFFFT, C by Emscripten", async () => {
  const size = 1024;
  const rows = 5;
  const entry = "@echogarden/pffft-wasm/simd";
  const { default: create } = (await import(entry)) as { default: (options: object) => Promise<Pffft> };
  let memory!: WebAssembly.Memory;
  const pffft = await create({
    instantiateWasm(imports: WebAssembly.Imports, done: (instance: WebAssembly.Instance) => void) {
      const bytes = readFileSync(new URL("pffft.wasm", import.meta.resolve(entry)));
      const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), imports);
      memory = Object.values(instance.exports).find((value) => value instanceof WebAssembly.Memory)!;
      done(instance);
      return instance.exports;
    },
  });
  const { _pffft_aligned_malloc: allocate, _pffft_aligned_free: free } = pffft;
  const runtime = Runtime.create({ memory, allocate, free });
  const setup = pffft._pffft_new_setup(size, 0);
  const transform = (from: number, to: number, backwards: 0 | 1 = 0) => {
    for (let row = 0; row < rows; row++) {
      const start = row * size * 4;
      pffft._pffft_transform_ordered(setup, from + start, to + start, 0, backwards);
    }
  };

  test("what it computes is normalized where it lies, with the bits of any other memory, and it reads the result", () => {
    const pointer = allocate(rows * size * 4) >>> 0;
    const spectra = new Tensor([rows, size], undefined, { runtime, pointer });
    spectra.data.set(normal(rows * size, 1));
    transform(pointer, pointer);
    const expected = new LayerNorm(size).forward(spectra.data.slice());
    const ln = new LayerNorm(size, { runtime }).eval();
    ln.forward(spectra, { out: spectra });
    expect(pffft.HEAPF32.slice(pointer / 4, pointer / 4 + rows * size)).toEqual(expected);
    transform(pointer, pointer, 1);
    transform(pointer, pointer);
    // There and back is a multiplication by the size, with roundings of one part in 2^23 each at some 2 * log2(size) steps.
    const off = expected.map((value, i) => Math.abs(spectra.data[i]! / size - value));
    expect(Math.max(...off)).toBeLessThan(2 * Math.log2(size) * 2 ** -23 * Math.max(...expected.map(Math.abs)));
    ln.dispose();
    spectra.dispose();
    free(pointer);
  });

  test("either side grows the memory, and the other goes on", () => {
    const x = new Tensor([rows, size], normal(rows * size, 2), { runtime });
    const before = x.data;
    const taken: number[] = [];
    for (const { byteLength } = memory.buffer; memory.buffer.byteLength === byteLength; ) {
      taken.push(pffft._malloc(1 << 20));
    }
    expect(before.length).toBe(0);
    expect(x.data).toEqual(normal(rows * size, 2));
    const heap = pffft.HEAPF32;
    const large = new Tensor([memory.buffer.byteLength / 4], undefined, { runtime });
    expect(heap.length).toBe(0);
    expect(pffft.HEAPF32.length).toBe(memory.buffer.byteLength / 4);
    large.dispose();
    transform(x.pointer, x.pointer);
    const y = layerNorm(x, size);
    expect(y.data).toEqual(layerNorm(x.data.slice(), size));
    for (const pointer of taken) pffft._free(pointer);
    x.dispose();
    y.dispose();
  });
});

describe("Voy, Rust by wasm-bindgen", async () => {
  const dimensions = 48;
  const count = 40;
  const glue = "voy-search/voy_search_bg.js";
  const voy = (await import(glue)) as typeof import("voy-search") & { __wbg_set_wasm(exports: object): void };
  const file = createRequire(import.meta.url).resolve("voy-search/voy_search_bg.wasm");
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(file)), {
    "./voy_search_bg.js": voy as unknown as WebAssembly.ModuleImports,
  });
  const { memory, __wbindgen_malloc, __wbindgen_free } = exports as unknown as {
    memory: WebAssembly.Memory;
    __wbindgen_malloc(bytes: number, alignment: number): number;
    __wbindgen_free(pointer: number, bytes: number, alignment: number): void;
  };
  voy.__wbg_set_wasm(exports);
  const sizes = new Map();
  const runtime = Runtime.create({
    memory,
    allocate(bytes) {
      const pointer = __wbindgen_malloc(bytes, 4) >>> 0;
      sizes.set(pointer, bytes);
      return pointer;
    },
    free(pointer) {
      __wbindgen_free(pointer, sizes.get(pointer), 4);
      sizes.delete(pointer);
    },
  });

  test("its allocator serves both, while its memory grows, and neither disturbs the other", () => {
    const x = new Tensor([count, dimensions], normal(count * dimensions, 5), { runtime });
    const expected = layerNorm(x.data.slice(), dimensions);
    const embeddings = layerNorm(x, dimensions);
    const row = (i: number) => embeddings.data.slice(i * dimensions, (i + 1) * dimensions);
    const entries = Array.from({ length: count }, (_, i) => ({
      id: `${i}`,
      title: `${i}`,
      url: `/${i}`,
      embeddings: [...row(i)],
    }));
    const { byteLength } = memory.buffer;
    const engines = [];
    do engines.push(new voy.Voy({ embeddings: entries }));
    while (memory.buffer.byteLength === byteLength);
    expect(embeddings.data).toEqual(expected);
    for (let i = 0; i < count; i++) {
      // A query is the nearest to itself, wherever the tensors of the search before have left their blocks.
      using again = layerNorm(x, dimensions);
      expect(again.data).toEqual(expected);
      expect(engines[i % engines.length]!.search(row(i), 1).neighbors.map(({ id }) => id)).toEqual([`${i}`]);
    }
    for (const engine of engines) engine.free();
    x.dispose();
    embeddings.dispose();
    expect(sizes.size).toBe(0);
  });
});

type Threads = C<"affine" | `grow_${"start" | "count" | "stop"}`> & {
  wasmMemory: WebAssembly.Memory;
  PThread: { terminateAllThreads(): void };
};

describe("C by Emscripten, with threads", () => {
  const create = createRequire(import.meta.url)("./fixtures/pthreads/pthreads.js") as () => Promise<Threads>;
  const [rows, cols] = [300, 400];
  const numbers = normal(rows * cols, 6);
  let c: Threads;
  let memory: WebAssembly.Memory;
  beforeAll(async () => {
    c = await create();
    memory = c.wasmMemory;
  });
  afterAll(() => c.PThread.terminateAllThreads());

  const runtimeOf = (threads: number, options?: ThreadsOptions) =>
    createThreadedRuntime({ threads, memory, allocate: c._malloc, free: c._free, ...options });

  describe.each([1, 2, 3])("%i of our threads", (threads) => {
    test("compute what its thread has written, both passes, with the bits of any other memory", async () => {
      const runtime = await runtimeOf(threads);
      expect(runtime.threads).toBe(threads);
      const scaled = numbers.map((value) => Math.fround(Math.fround(value * 2) - 1));
      const expected = new LayerNorm(cols);
      const [y, dx] = [expected.forward(scaled), expected.backward(numbers)];
      const ln = new LayerNorm(cols, { runtime });
      const x = new Tensor([rows, cols], numbers, { runtime });
      const dy = new Tensor([rows, cols], numbers, { runtime });
      c._affine(x.pointer, x.size, 2, -1);
      expect(difference((await ln.forwardAsync(x)).data, y)).toBe(-1);
      expect(difference((await ln.backwardAsync(dy)).data, dx)).toBe(-1);
      expect(difference(ln.weight.grad, expected.weight.grad)).toBe(-1);
      await runtime.close();
    });

    test("go on while a thread of its own grows the memory", async () => {
      const runtime = await runtimeOf(threads);
      const ln = new LayerNorm(cols, { runtime }).eval();
      const expected = new LayerNorm(cols).forward(numbers);
      const { byteLength } = memory.buffer;
      c._grow_start();
      for (let call = 0; call < 60 || (c._grow_count() < 50 && call < 10_000); call++) {
        using x = new Tensor([rows, cols], numbers, { runtime });
        using out = new Tensor([rows, cols], undefined, { runtime });
        const y = call % 2 ? ln.forward(x, { out }) : await ln.forwardAsync(x, { out });
        if (call % 10 < 2) expect(difference(y.data, expected)).toBe(-1);
        if (call % 10 === 2) expect(difference(ln.forward(numbers), expected)).toBe(-1);
      }
      expect(c._grow_count()).toBeGreaterThanOrEqual(50);
      expect(c._grow_stop()).toBe(1); // all that it wrote to its own blocks is there
      if (threads === 1) expect(memory.buffer.byteLength).toBeGreaterThan(byteLength + 50 * 2 ** 20);
      ln.dispose();
      await runtime.close();
    });

    test("give back all blocks but that of the threads, in whatever order things end", async () => {
      const { held, allocator } = counted(c._malloc, c._free);
      const runtime = await runtimeOf(threads, allocator);
      const own = held.size; // the words that threads look at
      expect(own).toBe(threads > 1 ? 1 : 0);
      const ln = new LayerNorm(cols, { runtime });
      const x = new Tensor([rows, cols], numbers, { runtime });
      const under = ln.forwardAsync(x);
      x.dispose(); // which waits for the call
      const y = await under;
      ln.forward(numbers); // which keeps memory for the next call on arrays
      y.dispose();
      const last = ln.forwardAsync(numbers);
      await runtime.close(); // after that call
      await last;
      ln.dispose();
      ln.dispose();
      x.dispose();
      await runtime.close();
      expect(held.size).toBe(own);
    });
  });

  test.each([1, 2, 3])("with %i of our threads, what was left in a block has no effect", async (threads) => {
    const garbage = (bytes: number) => {
      const pointer = c._malloc(bytes) >>> 0;
      new Uint8Array(memory.buffer, pointer, bytes).fill(255); // as floats, NaN
      return pointer;
    };
    const runtime = await runtimeOf(threads, { allocate: garbage });
    const own = Runtime.create();
    for (const many of [1, 3, 70, rows]) {
      const given = numbers.subarray(0, many * cols);
      for (const Norm of NORMS) {
        const [here, there] = [runtime, own].map((runtime) => {
          const norm = new Norm(cols, { runtime });
          const x = new Tensor([many, cols], given, { runtime });
          const sum = new Tensor([many, cols], undefined, { runtime });
          const y = norm.forward(x, { residual: x, sum });
          const dx = norm.backward(x, { add: x });
          const results = [y.data, sum.data, dx.data, norm.forward(given), norm.backward(given)];
          return [...results, ...norm.parameters().map(({ grad }) => grad)];
        }) as [Float32Array[], Float32Array[]];
        for (const [i, result] of here.entries()) expect(difference(result, there[i]!)).toBe(-1);
      }
    }
    await runtime.close();
  });

  test("two runtimes over its memory do their work at the same time", async () => {
    const runtimes = await Promise.all([runtimeOf(2), runtimeOf(3), runtimeOf(1)]);
    const expected = new LayerNorm(cols).forward(numbers);
    const modules = runtimes.map((runtime) => new LayerNorm(cols, { runtime }).eval());
    const tensors = runtimes.map((runtime) => new Tensor([rows, cols], numbers, { runtime }));
    for (let round = 0; round < 20; round++) {
      const results = await Promise.all(modules.map((ln, i) => ln.forwardAsync(tensors[i]!)));
      for (const y of results) {
        expect(difference(y.data, expected)).toBe(-1);
        y.dispose();
      }
    }
    // One tensor, seen by both.
    const [first, second] = runtimes;
    const { pointer } = tensors[0]!;
    const seen = new Tensor([rows, cols], undefined, { runtime: second, pointer });
    expect(difference(modules[1]!.forward(seen).data, expected)).toBe(-1);
    expect(() => modules[1]!.forward(tensors[0]!)).toThrow("x belongs to another runtime");
    await first!.close();
    expect(difference((await modules[1]!.forwardAsync(seen)).data, expected)).toBe(-1);
    await Promise.all(runtimes.map((runtime) => runtime.close()));
  });

  test("memory that another thread has just grown is seen", async () => {
    const runtime = await runtimeOf(1);
    // Words 0 and 1 of this block: how often the thread was asked to grow the memory, and how often it has.
    const words = new Int32Array(memory.buffer, c._malloc(8), 2).fill(0);
    const thread = new Worker(
      `const { memory, pointer } = require("node:worker_threads").workerData;
      const words = new Int32Array(memory.buffer, pointer, 2);
      for (;;) {
        Atomics.wait(words, 0, Atomics.load(words, 1));
        memory.grow(1);
        Atomics.add(words, 1, 1);
        Atomics.notify(words, 1);
      }`,
      { eval: true, workerData: { memory, pointer: words.byteOffset } },
    );
    let end = memory.buffer.byteLength;
    for (let i = 0; i < 500; i++, end += 65536) {
      Atomics.add(words, 0, 1);
      Atomics.notify(words, 0);
      Atomics.wait(words, 1, i);
      const pointer = end + 65536 - 16;
      const tensor = new Tensor([4], undefined, { runtime, pointer });
      if (tensor.data.length !== 4) throw new Error("no view of it");
    }
    await thread.terminate();
    await runtime.close();
  });

  test.each<[string, (c: Threads) => number, string]>([
    ["that has no room", () => 0, "out of memory, no room for"],
    ["whose blocks are not aligned", (c) => c._malloc(1 << 16) + 2, "expected a multiple of 4"],
    ["whose blocks end beyond the memory", ({ wasmMemory }) => wasmMemory.buffer.byteLength - 8, "with room for"],
    ["that returns nothing", () => undefined as never, "returned is undefined"],
  ])("an allocator %s is an error at the first block, and nothing is written", async (_, allocate, message) => {
    const fresh = await create(); // with no tensors that are still to be collected
    const { wasmMemory: memory, _free: free } = fresh;
    const options = { memory, allocate: () => allocate(fresh), free };
    const before = new Uint8Array(memory.buffer).slice();
    await expect(createThreadedRuntime({ ...options, threads: 2 })).rejects.toThrow(message);
    const runtime = await createThreadedRuntime({ ...options, threads: 1 });
    expect(() => new Tensor([6], undefined, { runtime })).toThrow(message);
    // What malloc itself writes lies in its own words, which only the second case has it do.
    if (!message.includes("multiple")) expect(Buffer.compare(before, new Uint8Array(memory.buffer))).toBe(0);
    await runtime.close();
    fresh.PThread.terminateAllThreads();
  });
});
