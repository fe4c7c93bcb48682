// What threads compute, from the package as it is installed: a thread is a file of its own. In engines other than Node, by
// test/engines.

import type { Parameter } from "layernorm-wasm";
import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, RMSNorm, Runtime, Tensor } from "layernorm-wasm";
import { createThreadedRuntime, type ThreadedRuntime } from "layernorm-wasm/threads";
import { afterAll, describe, expect, test } from "vitest";
import { uniform } from "./helpers.js";
import { bits, numbers, passes, rowsOf, tensorOf, workerClasses } from "./threads-helpers.js";

const runtimes = new Map<number, Promise<ThreadedRuntime>>();

/** A runtime of so many threads, one for all tests that leave it as it is. */
function threaded(threads: number): Promise<ThreadedRuntime> {
  const runtime = runtimes.get(threads) ?? createThreadedRuntime({ threads });
  runtimes.set(threads, runtime);
  return runtime;
}

afterAll(async () => {
  for (const runtime of runtimes.values()) await (await runtime).close();
});

/** Whether a call is queued or under way. */
const isBusy = (runtime: Runtime) => (runtime as unknown as { busy: boolean }).busy;

/** Begins a call until it is seen under way: the other thread may be quick. A call after it waits until this thread has time. */
async function begin<T>(runtime: Runtime, call: () => Promise<T>): Promise<{ begun: Promise<T> }> {
  for (let tries = 0; ; tries++) {
    const begun = call();
    if (isBusy(runtime) || tries === 1000) return { begun };
    await begun;
  }
}

// To either side of what a call keeps to itself, and of chunks of forward (32768 elements) and of backward (64 rows).
const SHAPES = [
  [0, 5],
  [1, 768],
  [3, 5],
  [42, 768],
  [43, 768],
  [64, 1000],
  [65, 1000],
  [129, 768],
  [1000, 33],
  [2049, 17],
  [2113, 64],
  [7, 16384],
  [2, 40000],
] as const;

describe("gives the bits of one thread", () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])("with %i", async (threads) => {
    const runtime = await threaded(threads);
    expect(runtime.threads).toBe(threads);
    for (const [rows, cols] of SHAPES) {
      expect(passes(runtime, rows, cols), `${rows} x ${cols}`).toEqual(passes(Runtime.default, rows, cols));
    }
  });

  test.each(["LayerNorm", "RMSNorm"])(
    "in %s, blocking and not, on arrays and tensors, with and without a residual",
    async (name) => {
      const results = async (runtime: Runtime, later: boolean, asTensors: boolean, fused: boolean) => {
        const got: string[] = [];
        for (const [rows, cols] of [SHAPES[2], SHAPES[7], SHAPES[10], SHAPES[11]]) {
          const operand = (at?: number): Float32Array | Tensor =>
            asTensors ? tensorOf(runtime, rows, cols, at) : rowsOf(rows, cols, at);
          using weight = new Tensor([cols], rowsOf(1, cols, 9), { runtime });
          const options = { weight, runtime };
          using norm = name === "LayerNorm" ? new LayerNorm(cols, options) : new RMSNorm(cols, options);
          const [x, residual, dy, add, out] = [operand(1), operand(2), operand(3), operand(4), operand()];
          const forward = fused ? { residual, sum: residual, out } : { out };
          const backward = fused ? { add, out: dy } : {};
          const y = later ? await norm.forwardAsync(x, forward) : norm.forward(x, forward);
          expect(y).toBe(out);
          const dx = later ? await norm.backwardAsync(dy, backward) : norm.backward(dy, backward);
          got.push(...[y, residual, dx, norm.weight.grad].map(bits));
          for (const operand of [x, residual, dy, add, out, dx]) if (operand instanceof Tensor) operand.dispose();
        }
        return got;
      };
      for (const fused of [false, true]) {
        const expected = await results(Runtime.default, false, true, fused);
        for (const runtime of [Runtime.default, ...(await Promise.all([1, 3].map(threaded)))]) {
          for (const later of [false, true]) {
            for (const asTensors of [false, true]) {
              const got = await results(runtime, later, asTensors, fused);
              expect(got, `${runtime}, later: ${later}, tensors: ${asTensors}, fused: ${fused}`).toEqual(expected);
            }
          }
        }
      }
    },
  );

  test("in three thousand calls of random shapes on random numbers of threads, two runtimes at a time", async () => {
    const next = uniform(11);
    const any = (most: number) => Math.floor(next() * most);
    for (let calls = 0; calls < 3000; ) {
      const cols = [1, 7, 64, 100, 256, 768][any(6)]!;
      // one in five is large enough to be shared out
      const size = next() < 0.2 ? 50_000 + any(50_000) : any(4000);
      const rows = Math.max(1, Math.floor(size / cols));
      const [at, times] = [any(100_000), size < 50_000 ? 1 : 2];
      const expected = passes(Runtime.default, rows, cols, at, 1);
      for (const threads of [1 + any(8), 1 + any(8)]) {
        const got = passes(await threaded(threads), rows, cols, at, times);
        expect(got, `${rows} x ${cols} from ${at}, ${threads} threads`).toEqual(expected);
        calls += 2 * times;
      }
    }
  });

  test("in the functions, without statistics, and where a parameter requires no gradient", async () => {
    const [rows, cols] = [200, 300];
    const [got, expected] = [await threaded(3), Runtime.default].map((runtime) => {
      const [x, dy] = [tensorOf(runtime, rows, cols, 0), tensorOf(runtime, rows, cols, 9)];
      const { y, mean, rstd } = layerNormWithStats(x, cols);
      const { dx, dweight, dbias } = layerNormBackward(dy, x, mean, rstd);
      const ln = new LayerNorm(cols, { runtime, bias: false });
      ln.weight!.requiresGrad = false;
      ln.forward(x);
      const own = ln.backward(dy, { out: dy });
      const inPlace = ln.eval().forward(x, { out: x });
      return [y, mean, rstd, dx, dweight, dbias, own, inPlace].map(bits);
    });
    expect(got).toEqual(expected);
  });
});

describe("forwardAsync and backwardAsync", () => {
  test("don't block, even after blocking calls with the same operands, nor do these give other bits meanwhile", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [1000, 300];
    const ln = new LayerNorm(cols, { runtime });
    const [x, y, dx] = [tensorOf(runtime, rows, cols, 0), tensorOf(runtime, rows, cols), tensorOf(runtime, rows, cols)];
    const block = () => [ln.forward(x, { out: y }), ln.backward(x, { out: dx })];
    for (let i = 0; i < 2; i++) block();
    const expected = block().map(bits);
    let busy = 0;
    // The other thread may have been quick, where this one had to wait for a core.
    for (let i = 0; i < 20 || (busy === 0 && i < 1000); i++) {
      const promise = i % 2 === 0 ? ln.forwardAsync(x, { out: y }) : ln.backwardAsync(x, { out: dx });
      if (isBusy(runtime)) busy++;
      block();
      await promise;
      expect([y, dx].map(bits)).toEqual(expected);
    }
    expect(busy).toBeGreaterThan(0);
  });

  test("may be many at once, with calls that block in between", async () => {
    const [rows, cols] = [150, 300];
    const single = new LayerNorm(cols);
    const ln = new LayerNorm(cols, { runtime: await threaded(3) });
    const [got, expected]: (Float32Array | Promise<Float32Array>)[][] = [[], []];
    for (let i = 0; i < 12; i++) {
      const x = rowsOf(rows, cols, i);
      got!.push(i % 4 === 2 ? ln.forward(x) : ln.forwardAsync(x));
      expected!.push(single.forward(x));
      if (i % 4 !== 3) continue;
      got!.push(ln.backwardAsync(x));
      expected!.push(single.backward(x));
    }
    expect((await Promise.all(got!)).map(bits)).toEqual((await Promise.all(expected!)).map(bits));
    expect(bits(ln.weight!.grad)).toBe(bits(single.weight!.grad));
  });

  test.each(["forward", "forwardAsync"] as const)("may be chained: %s waits for those before it", async (second) => {
    const runtime = await threaded(2);
    const [rows, cols] = [1000, 300];
    const x = tensorOf(runtime, rows, cols, 0);
    const [one, two] = [new LayerNorm(cols, { runtime }).eval(), new LayerNorm(cols, { runtime }).eval()];
    two.weight!.data.fill(3);
    const last = (rows - 1) * cols;
    const row = new Tensor([1, cols], undefined, { runtime, pointer: x.pointer + 4 * last });
    one.forwardAsync(x, { out: x });
    await two[second](row, { out: row });
    const once = layerNorm(rowsOf(1, cols, last), cols);
    expect(bits(row)).toBe(bits(layerNorm(once, cols, new Float32Array(cols).fill(3))));
  });

  test("are done before parameters are handed out, set or cleared", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [400, 300];
    const x = rowsOf(rows, cols);
    const single = new LayerNorm(cols);
    const y = bits(single.forward(x));
    for (let times = 0; times < 2; times++) single.backward(x);
    const weight = new Float32Array(cols).fill(5);
    const ln = new LayerNorm(cols, { runtime });
    const forward = () => ln.forwardAsync(x);
    const backward = () => {
      ln.zeroGrad();
      return ln.backwardAsync(x);
    };
    let { begun } = await begin(runtime, forward);
    let behind = forward();
    ln.loadStateDict({ weight, bias: new Float32Array(cols) });
    expect([await begun, await behind].map(bits)).toEqual([y, y]);
    ({ begun } = await begin(runtime, forward));
    behind = forward();
    ln.resetParameters();
    expect(bits(await behind)).toBe(bits(layerNorm(x, cols, weight)));
    ({ begun } = await begin(runtime, backward));
    behind = ln.backwardAsync(x);
    const [{ grad }] = ln.parameters() as [Parameter];
    expect(bits(grad)).toBe(bits(single.weight!.grad));
    await behind;
    ({ begun } = await begin(runtime, backward));
    behind = ln.backwardAsync(x);
    ln.zeroGrad();
    await Promise.all([begun, behind]);
    expect(ln.weight!.grad.every((value) => value === 0)).toBe(true);
  });

  test("give memory back while one is always under way", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const ln = new LayerNorm(1031, { runtime }).eval();
    const x = tensorOf(runtime, 64, 1031, 0);
    const before = runtime.memory.buffer.byteLength;
    let underWay = ln.forwardAsync(x);
    for (let i = 0; i < 3000; i++) {
      const next = ln.forwardAsync(x);
      (await underWay).dispose();
      underWay = next;
    }
    (await underWay).dispose();
    // Two results are live at a time, and some wait until the calls queued before them are done.
    expect(runtime.memory.buffer.byteLength - before).toBeLessThan(16 * x.size * 4);
    await runtime.close();
  });

  test("end all, twenty thousand small ones behind a large one", async () => {
    const runtime = await threaded(2);
    const cols = 768;
    const ln = new LayerNorm(cols, { runtime }).eval();
    const [row, large] = [tensorOf(runtime, 1, cols, 0), tensorOf(runtime, 1024, cols)];
    const outs = Array.from({ length: 7 }, () => tensorOf(runtime, 1, cols));
    const calls = [ln.forwardAsync(large, { out: large })];
    for (let i = 0; i < 20_000; i++) calls.push(ln.forwardAsync(row, { out: outs[i % 7] }));
    expect((await Promise.all(calls)).length).toBe(20_001);
    for (const out of outs) expect(bits(out)).toBe(bits(layerNorm(rowsOf(1, cols), cols)));
    for (const tensor of [row, large, ...outs]) tensor.dispose();
  });

  test("are done before a call copies an array that they write to", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [500, 300];
    const ln = new LayerNorm(cols, { runtime }).eval();
    const first = layerNorm(rowsOf(rows, cols), cols);
    const second = bits(layerNorm(first, cols));
    const [x, t] = [tensorOf(runtime, rows, cols, 0), tensorOf(runtime, rows, cols)];
    for (const call of [
      () => ln.forward(t.data),
      () => layerNorm(t.data, cols, ln.weight),
      () => ln.forwardAsync(t.data),
    ]) {
      t.data.fill(0);
      const underWay = ln.forwardAsync(x, { out: t });
      expect(bits(await call())).toBe(second);
      expect(bits(await underWay)).toBe(bits(first));
    }
    for (const tensor of [x, t]) tensor.dispose();
  });

  test("keep what they have had until it is copied to their arrays, whatever comes meanwhile", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 }); // whose heap has no other room
    const cols = 300;
    for (const rows of [4, 400]) {
      const x = rowsOf(rows, cols);
      const ln = new LayerNorm(cols, { runtime });
      /** Writes to what the call has had, if that is free. */
      const overwrite = () => [1, 2].map((at) => tensorOf(runtime, rows / 2, cols, at));
      for (const later of [
        () => ln.forward(rowsOf(rows, cols, 7)) && overwrite(),
        () => ln.eval().train() && overwrite(),
      ]) {
        ln.forward(x);
        const [sum, out] = [new Float32Array(rows * cols), new Float32Array(rows * cols)];
        const { begun } = await begin(runtime, () => ln.forwardAsync(x, { residual: x, sum, out }));
        later();
        await begun;
        expect(bits(sum)).toBe(bits(x.map((value) => value + value)));
        expect(bits(out)).toBe(bits(layerNorm(sum, cols)));
      }
    }
    await runtime.close();
  });

  test("write to no block that is given back while an array of its own kind is asked for its buffer", async () => {
    const runtime = await threaded(2);
    const ln = new LayerNorm(16, { runtime });
    const later: Tensor[] = [];
    class Own extends Float32Array {
      override get buffer() {
        ln.dispose();
        for (const size of [36, 16, 16, 16, 16]) later.push(new Tensor([size], undefined, { runtime }));
        return super.buffer;
      }
    }
    await ln.forwardAsync(new Own(32).fill(7));
    expect(later.filter(({ data }) => data.some((value) => value !== 0))).toEqual([]);
  });

  test("whose array is detached meanwhile reject, and leave the runtime as it is", async () => {
    const runtime = await threaded(2);
    const ln = new LayerNorm(300, { runtime });
    const out = new Float32Array(300_000);
    const { begun } = await begin(runtime, () => ln.forwardAsync(numbers, { out }));
    structuredClone(out.buffer, { transfer: [out.buffer] });
    await expect(begun).rejects.toThrow(TypeError);
    expect(ln.forward(rowsOf(1, 300)).length).toBe(300);
  });

  test("reject with what would have been thrown", async () => {
    const ln = new LayerNorm(4, { runtime: await threaded(2) });
    const five = ln.forwardAsync(new Float32Array(5));
    await expect(five).rejects.toThrow("LayerNorm.forwardAsync: x has 5 elements, expected a multiple of 4");
    const early = ln.backwardAsync(new Float32Array(4));
    await expect(early).rejects.toThrow("LayerNorm.backwardAsync: no forward in training mode");
  });
});

describe("memory", () => {
  test("is shared: data are views of it, and stay right when it grows", async () => {
    const runtime = await threaded(2);
    const x = new Tensor([3], [1, 2, 3], { runtime });
    const { data } = x;
    expect(data.buffer).toBeInstanceOf(SharedArrayBuffer);
    const { buffer } = runtime.memory;
    new Tensor([buffer.byteLength / 4], undefined, { runtime }).dispose();
    expect(runtime.memory.buffer).not.toBe(buffer);
    x.data[0] = 7;
    expect([...data]).toEqual([7, 2, 3]);
  });

  test("is that of views from before and after it has grown: an array and its like are one", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const [rows, cols] = [30, 40];
    const ln = new LayerNorm(cols, { runtime }).eval();
    const x = tensorOf(runtime, rows, cols, 0);
    const views = [x.data];
    for (let i = 0; i < 2; i++) {
      new Tensor([runtime.memory.buffer.byteLength / 4], undefined, { runtime });
      views.push(new Float32Array(runtime.memory.buffer, x.pointer, x.size));
    }
    for (const given of views) {
      for (const out of views) {
        const expected = layerNorm(x.data.slice(), cols);
        expect(ln.forward(given, { out })).toBe(out);
        expect(x.data).toEqual(expected);
        expect(() => ln.forward(given.subarray(0, cols), { out: out.subarray(1, cols + 1) })).toThrow(/overlaps x/);
      }
    }
    await runtime.close();
  });

  test("of a tensor is reached from another worker by its handle", async () => {
    const x = new Tensor([2, 3], [1, 2, 3, 4, 5, 6], { runtime: await threaded(2) });
    const { worker, answer } = reader();
    worker.postMessage(x.handle);
    expect(await answer).toEqual({
      shape: [2, 3],
      refusal: "Runtime of another thread: only the data of its tensors can be read and written",
    });
    expect([...x.data]).toEqual([2, 3, 4, 5, 6, 7]);
    worker.terminate();
  });

  test("of a handle is the same tensor's in the same thread", async () => {
    const runtime = await threaded(2);
    const x = new Tensor([2, 3], [1, 2, 3, 4, 5, 6], { runtime });
    const same = Tensor.from(x.handle);
    expect(same.runtime).toBe(runtime);
    expect(same.pointer).toBe(x.pointer);
    same.dispose();
    expect(x.data[5]).toBe(6);
  });

  test("that isn't shared has no handles, and what is no handle no tensor", () => {
    expect(() => new Tensor([1]).handle).toThrow("Tensor: handle needs memory of createThreadedRuntime");
    for (const handle of [null, undefined, {}, new Tensor([1])]) {
      expect(() => Tensor.from(handle as never)).toThrow("expected what tensor.handle gives");
    }
  });

  test("of one runtime is refused by a module of another", async () => {
    const [a, b] = [await threaded(2), await threaded(3)];
    for (const [runtime, other] of [
      [b, a],
      [Runtime.default, a],
      [a, Runtime.default],
    ] as const) {
      const x = tensorOf(other, 1, 4);
      expect(() => new LayerNorm(4, { runtime }).forward(x)).toThrow("x belongs to another runtime");
    }
  });
});

/** test/threads-reader.mjs, running, and its first answer. */
function reader() {
  const [Worker] = workerClasses();
  const worker = new Worker!(new URL("./threads-reader.mjs", import.meta.url), { type: "module" });
  const answer = new Promise((resolve, reject) => {
    const target = worker as unknown as EventTarget & { on?: (name: string, listen: (value: never) => void) => void };
    if (target.on) {
      target.on("message", resolve);
      target.on("error", reject);
    } else {
      target.addEventListener("message", (event) => resolve((event as MessageEvent).data));
      target.addEventListener("error", (event) => reject(new Error((event as ErrorEvent).message)));
    }
  });
  return { worker, answer };
}
