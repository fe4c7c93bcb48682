// The life of a runtime of threads: its options, where threads can't be started, its end, and threads that end by themselves.

import { LayerNorm, Runtime, Tensor } from "layernorm-wasm";
import type { AnyWorker, ThreadedRuntime, ThreadsOptions } from "layernorm-wasm/threads";
import { createThreadedRuntime } from "layernorm-wasm/threads";
import { describe, expect, test } from "vitest";
import { bits, passes, rowsOf, tensorOf, type WorkerClass, workerClasses } from "./threads-helpers.js";

const CLOSED = "ThreadedRuntime: used after it was closed; create another";

/** That a runtime computes what one thread does. */
function expectRight(runtime: Runtime): void {
  expect(passes(runtime, 100, 1000)).toEqual(passes(Runtime.default, 100, 1000));
}

describe("createThreadedRuntime", () => {
  test("takes as many threads as the machine runs at a time", async () => {
    const runtime = await createThreadedRuntime();
    expect(runtime.threads).toBeGreaterThanOrEqual(1);
    await runtime.close();
  });

  test.each([
    [{ threads: 0 }, "threads is 0, expected an integer from 1 to 256"],
    [{ threads: 1.5 }, "threads is 1.5, expected an integer from 1 to 256"],
    [{ threads: 257 }, "threads is 257, expected an integer from 1 to 256"],
    [{ threads: "2" }, 'threads is "2", expected a number'],
    [{ fallback: "none" }, 'fallback is "none", expected "single"'],
    [{ thread: 2 }, '"thread" is not an option, expected threads, fallback, worker'],
    [{ worker: 5 }, "worker is 5, expected a URL or a function that makes a Worker"],
    [{ worker: {} }, "worker is an Object, expected a URL or a function that makes a Worker"],
    [null, "options is null, expected an object"],
  ])("refuses the options %j", async (options, message) => {
    await expect(createThreadedRuntime(options as never)).rejects.toThrow(`createThreadedRuntime: ${message}`);
  });

  test("gives a memory to one of two that ask for it", async () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 100, shared: true });
    const both = await Promise.allSettled([1, 2].map(() => createThreadedRuntime({ threads: 2, memory })));
    const [given] = both.filter((result) => result.status === "fulfilled");
    const refusals = both.filter((result) => result.status === "rejected").map(({ reason }) => reason);
    expect(refusals).toEqual([new TypeError("createThreadedRuntime: memory belongs to another runtime")]);
    await given!.value.close();
  });

  test.each([1, 2])(
    "has no reason for a fallback where threads run, nor where one was asked for: %i",
    async (threads) => {
      const runtime = await createThreadedRuntime({ threads, fallback: "single" });
      expect([runtime.threads, runtime.fallbackReason]).toEqual([threads, undefined]);
      await runtime.close();
    },
  );

  test("takes a worker: where its file is, or a function that makes one", async () => {
    const made: string[] = [];
    const recording = (Own: WorkerClass) =>
      class extends Own {
        constructor(...args: [URL, { type: "module" }]) {
          made.push(String(args[0]));
          super(...args);
        }
      };
    const check = async (worker?: URL | string | (() => AnyWorker)) => {
      const runtime = await createThreadedRuntime({ threads: 3, worker });
      expect(runtime.threads).toBe(3);
      expectRight(runtime);
      await runtime.close();
    };
    await withWorkers(recording, async () => {
      await check();
      const file = new URL(made[0]!);
      await check(file);
      await check(file.href);
      const [Worker] = workerClasses();
      await check(() => new Worker!(file, { type: "module", execArgv: [] } as { type: "module" }));
      expect(made).toEqual(new Array(8).fill(file.href));
    });
  });
});

describe("where threads can't be started, says why, and gives one thread instead if asked to:", () => {
  const failing = (message: string) => (): never => {
    throw new Error(message);
  };
  const throwing = () =>
    class {
      constructor() {
        throw new Error("no workers here");
      }
    };
  const unposted = {
    postMessage: failing("#<Memory> could not be cloned"),
    terminate: () => {},
    addEventListener: () => {},
  };
  const missing = new URL("./no-such-file.js", import.meta.url);

  test.each([
    ["a Worker can't be made", { replacement: throwing }, "no workers here"],
    ["a function doesn't make one", { worker: failing("no workers of mine") }, "no workers of mine"],
    [
      "a function gives something else",
      { worker: () => ({}) },
      "the function worker gave an Object, expected a Worker",
    ],
    ["worker.js isn't found", { worker: missing }, /^a thread did not start: .*(no-such-file|worker\.js)/i],
    ["memory can't be posted", { worker: () => unposted }, "#<Memory> could not be cloned"],
  ] as [string, { replacement?: (Own: WorkerClass) => unknown; worker?: ThreadsOptions["worker"] }, string | RegExp][])(
    "%s",
    async (_, { worker, replacement = (Own) => Own }, reason) => {
      const why = typeof reason === "string" ? `a thread did not start: ${reason}` : reason;
      await withWorkers(replacement, async () => {
        await expectNoThreads({ worker }, why);
        const memory = new WebAssembly.Memory({ initial: 1, maximum: 1000, shared: true });
        const single = await createThreadedRuntime({ threads: 2, fallback: "single", worker, memory });
        expect(single.threads).toBe(1);
        expect(single.memory).toBe(memory);
        expect(single.fallbackReason).toMatch(why);
        expectRight(single);
      });
    },
  );

  test("there is no room for a shared memory", async () => {
    const { Memory } = WebAssembly;
    WebAssembly.Memory = class extends Memory {
      constructor(descriptor: WebAssembly.MemoryDescriptor) {
        if (descriptor.shared) throw new RangeError("could not allocate memory");
        super(descriptor);
      }
    };
    try {
      const reason = "out of memory, no room for a shared memory, could not allocate memory";
      for (const threads of [1, 2]) await expectNoThreads({ threads }, reason, RangeError);
    } finally {
      WebAssembly.Memory = Memory;
    }
  });

  test("a page isn't isolated: the headers that it needs", async () => {
    const was = Object.getOwnPropertyDescriptor(globalThis, "crossOriginIsolated");
    Object.defineProperty(globalThis, "crossOriginIsolated", { value: false, configurable: true });
    try {
      await expectNoThreads({}, '"Cross-Origin-Opener-Policy: same-origin"');
      await expectNoThreads({}, '"Cross-Origin-Embedder-Policy: require-corp"');
    } finally {
      delete (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
      if (was) Object.defineProperty(globalThis, "crossOriginIsolated", was);
    }
  });

  /** That there are no threads, for a reason: the error's without a fallback, the runtime's with it. */
  async function expectNoThreads(options: ThreadsOptions, reason: string | RegExp, kind = Error): Promise<void> {
    const failed = createThreadedRuntime({ threads: 2, ...options });
    const error: Error = await failed.then(
      () => expect.unreachable(),
      (error) => error,
    );
    expect(error).toBeInstanceOf(kind);
    const [, why] = /^createThreadedRuntime: (.*); \{ fallback: "single" \} gives/s.exec(error.message) ?? [];
    expect(why).toMatch(reason);
    const single = await createThreadedRuntime({ threads: 2, ...options, fallback: "single" });
    expect([single.threads, single.fallbackReason]).toEqual([1, why]);
    expect(single.memory.buffer).toBeInstanceOf(ArrayBuffer);
    expectRight(single);
    await single.close();
    expect(() => new Tensor([1], undefined, { runtime: single })).toThrow(CLOSED);
  }
});

describe("close", () => {
  test.each([1, 2])(
    "makes any later use an error, and leaves tensors to be read, with threads: %i",
    async (threads) => {
      const runtime = await createThreadedRuntime({ threads });
      const ln = new LayerNorm(2, { runtime });
      const x = new Tensor([1, 2], [1, 2], { runtime });
      for (let times = 0; times < 2; times++) await runtime.close();
      expect(() => ln.forward(x)).toThrow(CLOSED);
      await expect(ln.forwardAsync(x)).rejects.toThrow(CLOSED);
      expect(() => new Tensor([1], undefined, { runtime })).toThrow(CLOSED);
      expect([...x.data]).toEqual([1, 2]);
      x.dispose();
      ln.dispose();
    },
  );

  test("is what await using calls", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
    await runtime[asyncDispose]();
    expect(() => new Tensor([1], undefined, { runtime })).toThrow(CLOSED);
  });

  test("comes after the calls under way", async () => {
    const runtime = await createThreadedRuntime({ threads: 3 });
    const ln = new LayerNorm(300, { runtime });
    const x = rowsOf(300, 300);
    const results = [ln.forwardAsync(x), ln.forwardAsync(x)];
    await runtime.close();
    const expected = bits(new LayerNorm(300).forward(x));
    expect((await Promise.all(results)).map(bits)).toEqual([expected, expected]);
  });
});

describe("a thread that is terminated", () => {
  test.each([true, false])(
    "in the middle of work makes the call fail, or is done first; blocking: %o",
    async (blocking) => {
      const { runtime, workers } = await catchingWorkers();
      expect(workers.length).toBe(1);
      // Two chunks, each of which takes so long that the thread is in the middle of one.
      const cols = 1 << 23;
      const ln = new LayerNorm(cols, { runtime, elementwiseAffine: false }).eval();
      const x = tensorOf(runtime, 2, cols);
      for (const row of [x.data.subarray(0, cols), x.data.subarray(cols)]) {
        row.fill(1e30).fill(-1e30, cols / 2); // whose squares overflow: the slow way, to ones and minus ones
      }
      /** What became of a call. */
      const outcome = async (call: () => Tensor | Promise<Tensor>) => {
        try {
          const { data } = await call();
          return data.every((value, i) => value === (i % cols < cols / 2 ? 1 : -1)) ? "right" : "wrong";
        } catch (error) {
          return /the runtime is broken/.test((error as Error).message) ? "broken" : String(error);
        }
      };
      const [block, start] = [() => ln.forward(x), () => ln.forwardAsync(x)];
      const under = outcome(start);
      await new Promise((resolve) => setTimeout(resolve, 5));
      const ended = workers[0]!.terminate();
      const then = blocking ? await outcome(block) : "broken";
      const first = await under;
      await ended;
      const later = [first, await outcome(block), await outcome(start)];
      for (const result of [then, ...later]) expect(["right", "broken"]).toContain(result);
      if ("crossOriginIsolated" in globalThis) {
        // A page's worker may finish what takes less than seconds, and nothing is said of its end: it is missed when work is left to it.
        await new Promise((resolve) => setTimeout(resolve, 3000));
        expect(await outcome(start)).toBe("broken");
      } else expect(later).toEqual(["broken", "broken", "broken"]);
      await runtime.close();
    },
  );
});

/** Has `use` run with another class in place of each class of workers. */
async function withWorkers(replacement: (Own: WorkerClass) => unknown, use: () => Promise<void>): Promise<void> {
  const { Worker, process } = globalThis as { Worker?: WorkerClass; process?: NodeJS.Process };
  if (Worker) Object.assign(globalThis, { Worker: replacement(Worker) });
  const own = process?.getBuiltinModule;
  if (own) {
    process.getBuiltinModule = ((name: string) => {
      const builtin = own.call(process, name) as { Worker: WorkerClass };
      return name === "node:worker_threads" ? { ...builtin, Worker: replacement(builtin.Worker) } : builtin;
    }) as never;
  }
  try {
    await use();
  } finally {
    if (Worker) Object.assign(globalThis, { Worker });
    if (own) process.getBuiltinModule = own;
  }
}

/** A runtime of two threads, and the workers that it posted to. */
async function catchingWorkers(): Promise<{ runtime: ThreadedRuntime; workers: AnyWorker[] }> {
  const workers: AnyWorker[] = [];
  const originals = workerClasses().map(({ prototype }) => ({ prototype, postMessage: prototype.postMessage }));
  for (const { prototype, postMessage } of originals) {
    prototype.postMessage = function (this: AnyWorker, message) {
      workers.push(this);
      postMessage.call(this, message);
    };
  }
  try {
    return { runtime: await createThreadedRuntime({ threads: 2 }), workers };
  } finally {
    for (const { prototype, postMessage } of originals) prototype.postMessage = postMessage;
  }
}
