// What can only be seen with Node's means: another realm, and the garbage collector.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { LayerNorm, Runtime, Tensor } from "../src/index.js";
import { readBuild } from "./builds.js";

describe("Tensor", () => {
  test("takes a Float32Array of another realm", () => {
    const foreign = runInNewContext("new Float32Array([1, 2])") as Float32Array;
    expect(foreign instanceof Float32Array).toBe(false);
    expect([...new Tensor([2], foreign).data]).toEqual([1, 2]);
  });

  test("dropped without dispose, it is given back when it is collected", async () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    const fill = () => {
      for (let i = 0; i < 10; i++) new Tensor([1000], undefined, { runtime });
    };
    fill();
    expect(fill).toThrow(/out of memory/);
    await collected();
    expect(fill).not.toThrow();
  });
});

test("a module holds no array that it has made or was given, nor a Tensor", async () => {
  const runtime = Runtime.create();
  const ln = new LayerNorm(100, { runtime }).eval();
  const array = () => new Float32Array(1_000_000);
  const tensor = () => new Tensor([60, 100], undefined, { runtime });
  const overlapping = () => {
    const both = array();
    return ln.forward(both.subarray(100), { out: both.subarray(0, 999_900) }).buffer;
  };
  for (const use of [
    () => ln.forward(array()),
    () => ln.forward(array(), { out: array() }),
    () => ln.forward(new Float32Array(100), { out: array().subarray(0, 100) }).buffer,
    () => ln.forward(tensor()),
    () => ln.forward(tensor(), { out: tensor() }),
    overlapping,
  ]) {
    const held = new WeakRef(use());
    await collected();
    expect(held.deref()).toBeUndefined();
  }
});

/** Waits until what nobody holds is collected, and its memory given back. */
async function collected(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let i = 0; i < 10; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("Runtime.create takes modules and an unshared memory of another realm, whose ArrayBuffer is another", () => {
  const compile = runInNewContext("(bytes) => new WebAssembly.Module(bytes)") as (bytes: Uint8Array) => object;
  const memory = runInNewContext("new WebAssembly.Memory({ initial: 1 })") as WebAssembly.Memory;
  const [module, heap] = [compile(readBuild("release")), compile(readBuild("heap"))];
  expect([module instanceof WebAssembly.Module, memory.buffer instanceof ArrayBuffer]).toEqual([false, false]);
  for (const options of [{ module, heap }, { memory }]) {
    const runtime = Runtime.create(options);
    expect([...new LayerNorm(2, { runtime, eps: 0 }).forward([3, 5])]).toEqual([-1, 1]);
  }
});

/** What a program prints. It imports the package as it is built. */
function print(program: string, ...options: string[]): string {
  const args = [...options, "--input-type=module", "--eval", program];
  return execFileSync(process.execPath, args, {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    encoding: "utf8",
    timeout: 50_000,
  });
}

test("an engine without FinalizationRegistry runs it: tensors are freed by dispose alone", () => {
  const printed = print(`
    delete globalThis.FinalizationRegistry;
    const { LayerNorm, Tensor } = await import("layernorm-wasm");
    const x = new Tensor([1, 2], new Float32Array([3, 5]));
    console.log(...new LayerNorm(2, { eps: 0 }).forward(x).data);
    x.dispose();
  `);
  expect(printed).toBe("-1 1\n");
});

describe("createThreadedRuntime, in a process whose program is on its command line,", () => {
  test("starts threads that don't take its options", () => {
    const printed = print(`
      import { LayerNorm } from "layernorm-wasm";
      import { createThreadedRuntime } from "layernorm-wasm/threads";
      const runtime = await createThreadedRuntime({ threads: 2 });
      const y = await new LayerNorm(2, { runtime, eps: 0 }).forwardAsync(new Float32Array([3, 5]));
      console.log(runtime.threads, ...y);
      await runtime.close();
    `);
    expect(printed).toBe("2 -1 1\n");
  });

  test("says so where there is no WebAssembly", () => {
    const printed = print(`
      delete globalThis.WebAssembly;
      const { createThreadedRuntime } = await import("layernorm-wasm/threads");
      await createThreadedRuntime({ threads: 2 }).catch(({ message }) => console.log(message));
    `);
    expect(printed).toMatch(/^createThreadedRuntime: WebAssembly is missing or turned off/);
  });

  test("says why the permission model of Node leaves no threads, or goes on with one", () => {
    const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    const program = `
      import { LayerNorm } from "layernorm-wasm";
      import { createThreadedRuntime } from "layernorm-wasm/threads";
      await createThreadedRuntime({ threads: 2 }).catch(({ message }) => console.log(message));
      const runtime = await createThreadedRuntime({ threads: 2, fallback: "single" });
      const y = await new LayerNorm(2, { runtime, eps: 0 }).forwardAsync(new Float32Array([3, 5]));
      console.log(runtime.fallbackReason, runtime.threads, ...y);
    `;
    const why = "a thread did not start: Access to this API has been restricted";
    const [error, fallback] = print(program, flag, "--allow-fs-read=*").split("\n");
    expect(error).toContain(`createThreadedRuntime: ${why}`);
    expect(fallback).toMatch(new RegExp(`^${why}.* 1 -1 1$`));
    expect(print(program, flag, "--allow-fs-read=*", "--allow-worker")).toBe("undefined 2 -1 1\n");
  });

  test("takes the Worker of a page where that of Node can't be made, as in a renderer of Electron", () => {
    // Only the shape of that place: a Worker with listeners, here over Node's own, which is out of reach.
    const printed = print(`
      import { LayerNorm } from "layernorm-wasm";
      import { createThreadedRuntime } from "layernorm-wasm/threads";
      const { getBuiltinModule } = process;
      const own = getBuiltinModule("node:worker_threads");
      const opened = [];
      globalThis.Worker = class {
        constructor(url, { type }) {
          opened.push(url.protocol + url.pathname.replace(/.*\\//, "") + " " + type);
          this.own = new own.Worker(url, { execArgv: [] });
          this.own.unref();
        }
        addEventListener(name, listen) {
          this.own.on(name, (data) => listen({ data, message: String(data), preventDefault() {} }));
        }
        postMessage(message) {
          this.own.postMessage(message);
        }
        terminate() {
          return this.own.terminate();
        }
      };
      class Worker {
        constructor() {
          throw new Error("The V8 platform used by this instance of Node does not support creating Workers");
        }
      }
      process.getBuiltinModule = (name) =>
        name === "node:worker_threads" ? { ...own, Worker } : getBuiltinModule(name);
      const runtime = await createThreadedRuntime({ threads: 2, fallback: "single" });
      const y = await new LayerNorm(2, { runtime, eps: 0 }).forwardAsync(new Float32Array([3, 5]));
      console.log(runtime.fallbackReason, runtime.threads, ...y, ...opened);
      await runtime.close();
      delete globalThis.Worker;
      const { fallbackReason } = await createThreadedRuntime({ threads: 2, fallback: "single" });
      console.log(fallbackReason);
    `);
    expect(printed).toBe(
      "undefined 2 -1 1 file:worker.js module\n" +
        "a thread did not start: The V8 platform used by this instance of Node does not support creating Workers\n",
    );
  });
});
