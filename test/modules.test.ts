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

/** A memory with an allocator that has to be called as its method. */
function bumpAllocator() {
  const memory = new WebAssembly.Memory({ initial: 1 });
  let next = 16;
  return {
    memory,
    allocate(size: number): number {
      expect(this.memory).toBe(memory);
      next += size;
      return next - size;
    },
    free: () => {},
  };
}

/** The error that something throws. */
function errorOf(use: () => unknown): Error {
  try {
    use();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
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
    ["bytes", async () => bytes],
    ["a WebAssembly.Module", () => WebAssembly.compile(bytes)],
  ])("takes a promise of %s, later", async (_, module) => {
    expectWorking(await Runtime.create({ module: module() }));
    expectWorking(await Runtime.create({ module: module(), heap: WebAssembly.compile(heap) }));
    expectWorking(await Runtime.create({ heap: (async () => heap)() }));
  });

  test("takes it for a memory with an allocator of its own, without a heap", () => {
    expectWorking(Runtime.create({ module: bytes, ...bumpAllocator() }));
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

  const KINDS = "expected a WebAssembly.Module, its bytes, or a promise, as of WebAssembly.compileStreaming";
  // A module that imports a function, "m" "f".
  const other = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 109, 1, 102, 0, 0);
  test.each<[string, object]>([
    ["module is 5, expected a WebAssembly.Module, its bytes", { module: 5 }],
    ["module is [1], expected a WebAssembly.Module, its bytes", { module: [1] }],
    ['module is "x", expected a WebAssembly.Module, its bytes', { module: "x" }],
    ["heap is an Object, expected a WebAssembly.Module, its bytes", { heap: {} }],
    [`module is a Response, ${KINDS}`, { module: new Response(bytes) }],
    ["module is not layernorm.wasm", { module: heap }],
    ["heap is not heap.wasm", { heap: bytes }],
    ["module is no module of this package, ", { module: other }],
    ["module is no WebAssembly module to this engine, ", { module: bytes.subarray(0, 100) }],
    ['"memmory" is not an option', { memmory: 5 }],
    ["memory is 5, expected a WebAssembly.Memory", { memory: 5 }],
    ["allocate and free must be given together", { allocate: () => 16 }],
  ])("refuses at once, or with async later: %s", async (message, options) => {
    expect(() => Runtime.create(options)).toThrow(`Runtime.create: ${message}`);
    const later = Runtime.create({ ...options, async: true });
    await expect(later).rejects.toThrow(`Runtime.create: ${message}`);
    if (!("module" in options)) return;
    const promised = Runtime.create({ module: Promise.resolve(options.module as object) });
    await expect(promised).rejects.toThrow(`Runtime.create: ${message}`);
  });

  test("says of bytes that are none what may be wrong", () => {
    expect(() => Runtime.create({ module: bytes.subarray(0, 100) })).toThrow(
      /; if it is the right file, .* needs SIMD/,
    );
  });

  test("refuses other options at once, whatever is still to come, and lets that fail in silence", async () => {
    const failing = () => Promise.reject(new Error("late"));
    const never = new Promise<object>(() => {});
    expect(() => Runtime.create({ moduel: 5, heap: failing() } as never)).toThrow(/"moduel" is not an option/);
    expect(() => Runtime.create({ module: "/layernorm.wasm" as never, heap: never })).toThrow(/module is "\/layernorm/);
    expect(() => Runtime.create({ memory: 5 as never, heap: failing() })).toThrow(/memory is 5/);
    expect(() => Runtime.create({ allocate: () => 16, module: never })).toThrow(/allocate and free must be given/);
    await new Promise((resolve) => setTimeout(resolve, 5));
  });

  test("a failed promise is the reason", async () => {
    await expect(Runtime.create({ module: Promise.reject(new Error("offline")) })).rejects.toThrow("offline");
  });
});

describe("Runtime.create with async", () => {
  test("gives a promise of a runtime, whatever else is given", async () => {
    const own = new WebAssembly.Memory({ initial: 1 });
    const allocator = bumpAllocator();
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

  test("rejects with the error of a promise, and where async is neither true nor false", async () => {
    const failing = () => Promise.reject(new Error("offline"));
    await expect(Runtime.create({ async: true, module: failing(), heap: failing() })).rejects.toThrow("offline");
    for (const odd of [1, "true"]) {
      await expect(Runtime.create({ async: odd as unknown as true })).rejects.toThrow("expected true or false");
    }
    expect(() => Runtime.create({ async: null as unknown as boolean })).toThrow(
      new TypeError("Runtime.create: async is null, expected true or false"),
    );
  });

  test("gives a memory to one of two that ask for it", async () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const both = [1, 2].map(() => Runtime.create({ memory, async: true }).catch((error: Error) => error));
    const results = await Promise.all(both);
    expectWorking(results.find((result) => result instanceof Runtime) as Runtime);
    expect(results).toContainEqual(new TypeError("Runtime.create: memory belongs to another runtime"));
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
    const { message, cause } = errorOf(() => Runtime.create());
    expect(message).toMatch(/may not be compiled here, Wasm code generation disallowed by embedder; /);
    expect(message).toMatch(/'wasm-unsafe-eval'.*condition "workerd" or "edge-light"/);
    expect(message).toMatch(/"layernorm-wasm\/layernorm.wasm".* Runtime.create\(\{ module, heap \}\)/);
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
        const { message, cause } = errorOf(() => Runtime.create(options));
        expect(message).toContain(`Runtime.create: module was not compiled, WebAssembly.${what} ${limit}; `);
        expect(message).toMatch(/needs Runtime.default = await Runtime.create\(\{ async: true \}\)/);
        expect(message).not.toMatch(/Content-Security-Policy/);
        if (KNOWS_CAUSE) expect(cause).toBeInstanceOf(RangeError);
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
    expect(() => Runtime.create()).toThrow(/needs SIMD \(Chrome 91, Firefox 90, Safari 16.4, Node 20\)$/);
  });

  test("without WebAssembly: the error says so", async () => {
    globalThis.WebAssembly = undefined as never;
    expect(() => Runtime.create()).toThrow(/WebAssembly is missing or turned off/);
    await expect(Runtime.create({ async: true })).rejects.toThrow(/WebAssembly is missing or turned off/);
  });
});
