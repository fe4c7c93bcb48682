// Runtime.create({ module, heap }): the modules given rather than inlined, and what is said where they can't be compiled.

import { afterEach, describe, expect, test } from "vitest";
import { LayerNorm, Runtime } from "../src/index.js";
import { readBuild } from "./builds.js";

const bytes = readBuild("release");
const heap = readBuild("heap");
const { WebAssembly: assembly } = globalThis;
/** Chrome 92 doesn't. */
const KNOWS_CAUSE = new Error("", { cause: 1 }).cause === 1;

function expectWorking(runtime: Runtime): void {
  expect(runtime).toBeInstanceOf(Runtime);
  const y = new LayerNorm(2, { runtime, eps: 0 }).forward(new Float32Array([3, 5]));
  expect([...y]).toEqual([-1, 1]);
}

afterEach(() => {
  globalThis.WebAssembly = assembly;
});

describe("Runtime.create with a module", () => {
  test.each([
    ["a WebAssembly.Module", new WebAssembly.Module(bytes)],
    ["a Uint8Array", bytes],
    ["an ArrayBuffer", bytes.buffer],
    ["a DataView", new DataView(bytes.buffer)],
  ])("takes %s, at once", (_, module) => {
    expectWorking(Runtime.create({ module }));
    expectWorking(Runtime.create({ module, heap }));
  });

  test.each([
    ["a promise of bytes", async () => bytes],
    ["a promise of a WebAssembly.Module", () => WebAssembly.compile(bytes)],
  ])("takes %s, later", async (_, module) => {
    expectWorking(await Runtime.create({ module: module() }));
    expectWorking(await Runtime.create({ module: module(), heap: Promise.resolve(heap) }));
    expectWorking(await Runtime.create({ heap: (async () => heap)() }));
  });

  test("takes it for a memory with an allocator of its own, without a heap", () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    let next = 16;
    const allocate = (size: number) => {
      next += size;
      return next - size;
    };
    expectWorking(Runtime.create({ module: bytes, memory, allocate, free: () => {} }));
  });

  test("can be the default from then on", () => {
    const before = Runtime.default;
    const runtime = Runtime.create({ module: bytes });
    Runtime.default = runtime;
    expect(new LayerNorm(3).weight?.runtime).toBe(runtime);
    expect(() => {
      Runtime.default = {} as never;
    }).toThrow(new TypeError("Runtime.default is an Object, expected a Runtime"));
    Runtime.default = before;
  });

  test("refuses what is none", async () => {
    const kinds = "expected a WebAssembly.Module, its bytes, or a promise of one";
    expect(() => Runtime.create({ module: 5 as never })).toThrow(
      new TypeError(`Runtime.create: module is 5, ${kinds}`),
    );
    await expect(Runtime.create({ module: Promise.resolve(new Response(bytes)) })).rejects.toThrow(
      new TypeError(`Runtime.create: module is a Response, ${kinds}; WebAssembly.compileStreaming makes one of it`),
    );
    expect(() => Runtime.create({ heap: {} })).toThrow(new TypeError(`Runtime.create: heap is an Object, ${kinds}`));
    await expect(Runtime.create({ module: Promise.resolve([1]) })).rejects.toThrow(
      new TypeError(`Runtime.create: module is [1], ${kinds}`),
    );
    expect(() => Runtime.create({ module: heap })).toThrow(
      new TypeError("Runtime.create: module is another than layernorm.wasm"),
    );
    expect(() => Runtime.create({ heap: bytes })).toThrow(
      new TypeError("Runtime.create: heap is another than heap.wasm"),
    );
    // A module that imports a function, "m" "f".
    const other = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 109, 1, 102, 0, 0);
    expect(() => Runtime.create({ module: other })).toThrow(/^Runtime.create: module is no module of this package, .+/);
  });

  test("refuses it at once, whatever is still to come, and lets that fail in silence", async () => {
    const failing = () => Promise.reject(new Error("late"));
    const never = new Promise<object>(() => {});
    expect(() => Runtime.create({ moduel: 5, heap: failing() } as never)).toThrow(/"moduel" is not an option/);
    expect(() => Runtime.create({ module: "/layernorm.wasm" as never, heap: never })).toThrow(
      /module is "\/layernorm.wasm", expected a WebAssembly.Module/,
    );
    expect(() => Runtime.create({ memory: 5 as never, heap: failing() })).toThrow(/memory is 5/);
    expect(() => Runtime.create({ allocate: () => 16, module: never })).toThrow(/allocate and free must be given/);
    await expect(Runtime.create({ module: Promise.resolve("x" as never) })).rejects.toThrow(/module is "x", expected/);
    await new Promise((resolve) => setTimeout(resolve, 5));
  });

  test("refuses a memory that was taken while it waited", async () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const waiting = Runtime.create({ memory, module: Promise.resolve(bytes) });
    Runtime.create({ memory });
    await expect(waiting).rejects.toThrow(new TypeError("Runtime.create: memory is managed by another Runtime"));
  });

  test("says so when bytes are no module", () => {
    expect(() => Runtime.create({ module: bytes.subarray(0, 100) })).toThrow(
      /^Runtime.create: module is no WebAssembly module to this engine, .+; if it is the right file, .* needs SIMD/,
    );
  });

  test("a failed promise is the reason", async () => {
    await expect(Runtime.create({ module: Promise.reject(new Error("offline")) })).rejects.toThrow("offline");
    const html = new TextEncoder().encode("<!doctype html>");
    await expect(Runtime.create({ module: Promise.resolve(html) })).rejects.toThrow(
      /^Runtime.create: module is no WebAssembly module/,
    );
  });
});

describe("Runtime.create with async", () => {
  test("gives a promise of a runtime, whatever else is given", async () => {
    const own = new WebAssembly.Memory({ initial: 1 });
    const foreign = new WebAssembly.Memory({ initial: 1 });
    let next = 16;
    const allocator = {
      memory: foreign,
      allocate(size: number) {
        expect(this.memory).toBe(foreign);
        next += size;
        return next - size;
      },
      free: () => {},
    };
    for (const options of [
      {},
      { module: bytes },
      { module: new WebAssembly.Module(bytes), heap },
      { module: Promise.resolve(bytes), heap: new DataView(heap.buffer) },
      { memory: own },
      allocator,
    ]) {
      const promise = Runtime.create(Object.assign(options, { async: true as const }));
      expect(promise).toBeInstanceOf(Promise);
      const runtime = await promise;
      expectWorking(runtime);
      if ("memory" in options) expect(runtime.memory).toBe(options.memory);
    }
    expectWorking(Runtime.create({ async: false }));
  });

  test("rejects with what would have been thrown", async () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    for (const [options, message] of [
      [{ memmory: memory }, '"memmory" is not an option'],
      [{ memory: 5 }, "memory is 5, expected a WebAssembly.Memory"],
      [{ module: 5 }, "module is 5, expected a WebAssembly.Module"],
      [{ module: heap }, "module is another than layernorm.wasm"],
      [{ heap: bytes }, "heap is another than heap.wasm"],
      [{ allocate: () => 16 }, "allocate and free must be given together"],
      [{ module: bytes.subarray(0, 100) }, "module is no WebAssembly module to this engine"],
    ] as const) {
      await expect(Runtime.create({ ...options, async: true } as { async: true })).rejects.toThrow(message);
    }
    const failing = () => Promise.reject(new Error("offline"));
    await expect(Runtime.create({ async: true, module: failing(), heap: failing() })).rejects.toThrow("offline");
    const refusals = [1, "true", null].map((async) => () => Runtime.create({ async: async as unknown as boolean }));
    expect(refusals[2]).toThrow(new TypeError("Runtime.create: async is null, expected true or false"));
    for (const refusal of refusals.slice(0, 2)) await expect(refusal()).rejects.toThrow("expected true or false");
  });

  test("gives a memory to one of two that ask for it", async () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const both = [1, 2].map(() => Runtime.create({ memory, async: true }).catch((error: Error) => error));
    const results = await Promise.all(both);
    expectWorking(results.find((result) => result instanceof Runtime) as Runtime);
    expect(results).toContainEqual(new TypeError("Runtime.create: memory is managed by another Runtime"));
  });
});

describe("an engine", () => {
  const replace = (changes: object) => {
    globalThis.WebAssembly = Object.assign(Object.create(assembly), changes) as typeof WebAssembly;
  };
  class Refusing {
    constructor() {
      throw new assembly.CompileError("Wasm code generation disallowed by embedder");
    }
  }

  test("that must not compile: the error says what to allow or to import", () => {
    replace({ Module: Refusing });
    const create = () => Runtime.create();
    expect(create).toThrow(/may not be compiled here, Wasm code generation disallowed by embedder; /);
    expect(create).toThrow(/'wasm-unsafe-eval'/);
    expect(create).toThrow(/condition "workerd" or "edge-light"/);
    expect(create).toThrow(/"layernorm-wasm\/layernorm.wasm".* Runtime.create\(\{ module, heap \}\)/);
    let cause: unknown;
    try {
      create();
    } catch (error) {
      cause = (error as Error).cause;
    }
    if (KNOWS_CAUSE) expect(cause).toBeInstanceOf(assembly.CompileError);
  });

  test("that must not compile without blocking either: the same", async () => {
    const compile = async () => {
      throw new assembly.CompileError("Refused to compile");
    };
    replace({ compile });
    const message =
      /^Runtime.create: (module|heap) may not be compiled here, Refused to compile; .*'wasm-unsafe-eval'.*"workerd"/;
    await expect(Runtime.create({ module: Promise.resolve(bytes) })).rejects.toThrow(message);
    await expect(Runtime.create({ async: true })).rejects.toThrow(message);
  });

  describe("that neither compiles nor links a module of more than 4 KB at once, as Chrome 107 in a page,", () => {
    const limit = "is disallowed on the main thread, if the buffer size is larger than 4KB";
    class NoModule extends assembly.Module {
      constructor(bytes: BufferSource) {
        if (bytes.byteLength > 4096) throw new RangeError(`WebAssembly.Compile ${limit}`);
        super(bytes);
      }
    }
    class NoInstance extends assembly.Instance {
      constructor(module: WebAssembly.Module, imports: WebAssembly.Imports) {
        if (assembly.Module.exports(module).length > 3) throw new RangeError(`WebAssembly.Instance ${limit}`);
        super(module, imports);
      }
    }

    test("is told what to call before, in the words of the engine and ours", () => {
      const module = new assembly.Module(bytes);
      replace({ Module: NoModule, Instance: NoInstance });
      for (const [options, what] of [
        [{}, "Compile"],
        [{ module }, "Instance"],
      ] as const) {
        let error: Error | undefined;
        try {
          Runtime.create(options);
        } catch (thrown) {
          error = thrown as Error;
        }
        expect(error?.message).toContain(`Runtime.create: module was not compiled, WebAssembly.${what} ${limit}; `);
        expect(error?.message).toMatch(/needs Runtime.default = await Runtime.create\(\{ async: true \}\)/);
        expect(error?.message).not.toMatch(/Content-Security-Policy/);
        if (KNOWS_CAUSE) expect(error?.cause).toBeInstanceOf(RangeError);
      }
    });

    test("has runtimes of Runtime.create with async, and of promises", async () => {
      replace({ Module: NoModule, Instance: NoInstance });
      expectWorking(await Runtime.create({ async: true }));
      expectWorking(await Runtime.create({ module: Promise.resolve(bytes) }));
    });
  });

  test("without SIMD: the error says which engines have it", () => {
    replace({ Module: Refusing, validate: () => false });
    expect(() => Runtime.create()).toThrow(/needs SIMD, as Chrome 91, Firefox 90, Safari 16.4 and Node 20 have it/);
  });

  test("without WebAssembly: the error says so", async () => {
    globalThis.WebAssembly = undefined as never;
    expect(() => Runtime.create()).toThrow(/no WebAssembly, or it is turned off/);
    await expect(Runtime.create({ async: true })).rejects.toThrow(/no WebAssembly, or it is turned off/);
  });
});
