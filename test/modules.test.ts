// Runtime.create({ module, heap }): the modules given rather than inlined, and what is said where they can't be compiled.

import { afterEach, describe, expect, test } from "vitest";
import { LayerNorm, Runtime } from "../src/index.js";
import { readBuild } from "./builds.js";

const bytes = readBuild("release");
const heap = readBuild("heap");
const { WebAssembly: assembly } = globalThis;

const response = (body: BodyInit, status = 200, type = "application/wasm") =>
  new Response(body, { status, headers: { "content-type": type } });

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
    ["a Response", () => response(bytes)],
    ["a promise of a Response", async () => response(bytes)],
    ["a Response of another type", () => response(bytes, 200, "application/octet-stream")],
    [
      "a Response where nothing is compiled while it arrives",
      () => {
        globalThis.WebAssembly = Object.assign(Object.create(assembly), { compileStreaming: undefined });
        return response(bytes);
      },
    ],
    ["a promise of bytes", async () => bytes],
    ["a promise of a WebAssembly.Module", () => WebAssembly.compile(bytes)],
  ])("takes %s, later", async (_, module) => {
    expectWorking(await Runtime.create({ module: module() }));
    expectWorking(await Runtime.create({ module: module(), heap: response(heap) }));
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
    const kinds = "expected a WebAssembly.Module, its bytes, a Response, or a promise of one";
    expect(() => Runtime.create({ module: 5 as never })).toThrow(
      new TypeError(`Runtime.create: module is 5, ${kinds}`),
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

  test("a failed request, or a failed promise, is the reason", async () => {
    await expect(Runtime.create({ module: response("gone", 404) })).rejects.toThrow(
      /module: the request was answered with 404/,
    );
    await expect(Runtime.create({ module: Promise.reject(new Error("offline")) })).rejects.toThrow("offline");
    await expect(Runtime.create({ module: response("<!doctype html>", 200, "text/html") })).rejects.toThrow(
      /^Runtime.create: module is no WebAssembly module/,
    );
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
    expect(create).toThrow(/'wasm-unsafe-eval'/);
    expect(create).toThrow(/condition "workerd" or "edge-light"/);
    expect(create).toThrow(/"layernorm-wasm\/layernorm.wasm".* Runtime.create\(\{ module, heap \}\)/);
    let cause: unknown;
    try {
      create();
    } catch (error) {
      cause = (error as Error).cause;
    }
    expect(cause).toBeInstanceOf(assembly.CompileError);
  });

  test("that must not compile a response either: the same", async () => {
    const compileStreaming = async () => {
      throw new assembly.CompileError("Refused to compile");
    };
    replace({ compileStreaming });
    await expect(Runtime.create({ module: response(bytes) })).rejects.toThrow(
      /^Runtime.create: module was not compiled: Refused to compile; .*'wasm-unsafe-eval'/,
    );
  });

  test("without SIMD: the error says which engines have it", () => {
    replace({ Module: Refusing, validate: () => false });
    expect(() => Runtime.create()).toThrow(/needs SIMD, as Chrome 91, Firefox 90, Safari 16.4 and Node 20 have it/);
  });

  test("without WebAssembly: the error says so", () => {
    globalThis.WebAssembly = undefined as never;
    expect(() => Runtime.create()).toThrow(/no WebAssembly, or it is turned off/);
  });
});
