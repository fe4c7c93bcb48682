// Threads, from the package as it is installed: a thread is a file of its own. In engines other than Node, by test/engines.

import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, RMSNorm, Runtime, Tensor } from "layernorm-wasm";
import {
  type AnyWorker,
  createThreadedRuntime,
  type ThreadedRuntime,
  type ThreadsOptions,
} from "layernorm-wasm/threads";
import { afterAll, describe, expect, test } from "vitest";
import { normal, uniform } from "./helpers.js";

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

const numbers = normal(300_000, 1);

/** The bits of an array, as few words as tell it from another. */
function bits(values: Float32Array): string {
  const words = new Uint32Array(values.slice().buffer);
  let a = 1;
  let b = 0;
  for (const word of words) {
    a = (Math.imul(a, 31) + word) | 0;
    b = (b + a) | 0;
  }
  return `${words.length} ${a} ${b}`;
}

/**
 * The bits of all that a module's two passes give. They are called again at once: threads that sleep are woken for middling work only
 * where one call follows another.
 */
function passes(runtime: Runtime, rows: number, cols: number): string[] {
  const from = (at: number, length: number) => numbers.subarray(at, at + length);
  using ln = new LayerNorm(cols, { runtime });
  ln.weight!.data.set(from(1, cols));
  ln.bias!.data.set(from(2, cols));
  using x = new Tensor([rows, cols], from(4, rows * cols), { runtime });
  using dy = new Tensor([rows, cols], from(5, rows * cols), { runtime });
  using y = new Tensor([rows, cols], undefined, { runtime });
  using dx = new Tensor([rows, cols], undefined, { runtime });
  for (let i = 0; i < 3; i++) {
    ln.weight!.grad.set(from(3, cols));
    ln.bias!.grad.fill(0);
    ln.forward(x, { out: y });
    ln.backward(dy, { out: dx });
  }
  return [y.data, dx.data, ln.weight!.grad, ln.bias!.grad].map(bits);
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
  for (let threads = 1; threads <= 8; threads++) {
    test(`with ${threads}`, async () => {
      const runtime = await threaded(threads);
      expect(runtime.threads).toBe(threads);
      for (const [rows, cols] of SHAPES) {
        expect(passes(runtime, rows, cols), `${rows} x ${cols}`).toEqual(passes(Runtime.default, rows, cols));
      }
    });
  }

  test("with a residual, a sum, what is added to dx and given weights, in either norm", async () => {
    const passes = async (runtime: Runtime, name: string, later: boolean, kind: string) => {
      const got: string[] = [];
      for (const [rows, cols] of [
        [129, 768],
        [2113, 64],
        [7, 16384],
      ] as const) {
        const of = (at: number): Float32Array | Tensor => {
          const data = numbers.slice(at, at + rows * cols);
          return kind === "array" ? data : new Tensor([rows, cols], data, { runtime });
        };
        const data = (operand: Float32Array | Tensor) => (operand instanceof Tensor ? operand.data : operand);
        using weight = new Tensor([cols], numbers.subarray(9, 9 + cols), { runtime });
        const options = { weight, runtime };
        using norm = name === "RMSNorm" ? new RMSNorm(cols, options) : new LayerNorm(cols, options);
        const [x, residual, dy, add] = [of(1), of(2), of(3), of(4)];
        const y = later
          ? await norm.forwardAsync(x, { residual, sum: residual })
          : norm.forward(x, { residual, sum: residual });
        const dx = later ? await norm.backwardAsync(dy, { add, out: dy }) : norm.backward(dy, { add, out: dy });
        got.push(...[data(y), data(residual), data(dx), norm.weight.grad].map(bits));
        for (const operand of [x, residual, dy, add, y]) if (operand instanceof Tensor) operand.dispose();
      }
      return got;
    };
    for (const name of ["LayerNorm", "RMSNorm"]) {
      const expected = await passes(Runtime.default, name, false, "Tensor");
      for (const threads of [2, 3]) {
        for (const later of [false, true]) {
          for (const kind of ["array", "Tensor"]) {
            const got = await passes(await threaded(threads), name, later, kind);
            expect(got, `${name}, ${threads} threads, ${kind}, later: ${later}`).toEqual(expected);
          }
        }
      }
    }
  });

  test("in three thousand calls of random shapes on random numbers of threads, two runtimes at a time", async () => {
    const next = uniform(11);
    const any = (most: number) => Math.floor(next() * most);
    const outs = new Map<Runtime, { modules: Map<number, LayerNorm>; tensors: Tensor[] }>();
    const of = (runtime: Runtime) => {
      const tensors = () => Array.from({ length: 3 }, () => new Tensor([100_000], undefined, { runtime }));
      const made = outs.get(runtime) ?? { modules: new Map(), tensors: tensors() };
      outs.set(runtime, made);
      return made;
    };
    /** The bits of one pass of random numbers, called `times` in a row. */
    const call = (runtime: Runtime, rows: number, cols: number, start: number, backward: boolean, times: number) => {
      const { modules, tensors } = of(runtime);
      const ln = modules.get(cols) ?? new LayerNorm(cols, { runtime });
      modules.set(cols, ln);
      tensors[0]!.data.set(numbers.subarray(start, start + rows * cols));
      const view = ({ pointer }: Tensor) => new Tensor([rows, cols], undefined, { runtime, pointer });
      const [x, y, dx] = tensors.map(view) as [Tensor, Tensor, Tensor];
      for (let i = 0; i < times; i++) ln.forward(x, { out: y });
      if (!backward) return bits(y.data);
      for (let i = 0; i < times; i++) {
        ln.zeroGrad();
        ln.backward(y, { out: dx });
      }
      return [y.data, dx.data, ln.weight!.grad, ln.bias!.grad].map(bits).join();
    };
    const cols = [1, 7, 64, 100, 256, 768];
    for (let calls = 0; calls < 3000; ) {
      const width = cols[any(cols.length)]!;
      // one in five is large enough to be shared out
      const size = next() < 0.2 ? 50_000 + any(50_000) : any(4000);
      const rows = Math.max(1, Math.floor(size / width));
      const start = any(100_000);
      const backward = next() < 0.5;
      const expected = call(Runtime.default, rows, width, start, backward, 1);
      for (const threads of [1 + any(8), 1 + any(8)]) {
        const times = size < 50_000 ? 1 : 2;
        const got = call(await threaded(threads), rows, width, start, backward, times);
        if (got !== expected)
          throw new Error(`${rows} x ${width} from ${start}, backward ${backward}, ${threads} threads`);
        calls += backward ? 2 * times : times;
      }
    }
  });

  test("in the functions, without statistics, and where a parameter requires no gradient", async () => {
    const runtime = await threaded(3);
    const [rows, cols] = [200, 300];
    const [a, b] = [runtime, Runtime.default].map((runtime) => {
      const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
      const dy = new Tensor([rows, cols], numbers.subarray(9, 9 + rows * cols), { runtime });
      const { y, mean, rstd } = layerNormWithStats(x, cols);
      const { dx, dweight, dbias } = layerNormBackward(dy, x, mean, rstd);
      const ln = new LayerNorm(cols, { runtime, bias: false });
      ln.weight!.requiresGrad = false;
      ln.forward(x);
      const own = ln.backward(dy, { out: dy });
      const inPlace = ln.eval().forward(x, { out: x });
      return [y, mean, rstd, dx, dweight, dbias, own, inPlace].map(({ data }) => bits(data));
    });
    expect(a).toEqual(b);
  });
});

describe("forwardAsync and backwardAsync", () => {
  for (const threads of [1, 2, 4]) {
    test(`give the same, on tensors and arrays, large and small, with ${threads} threads`, async () => {
      for (const runtime of [await threaded(threads), Runtime.default]) {
        for (const [rows, cols] of [
          [3, 5],
          [200, 300],
          [64, 1000],
        ] as const) {
          const values = numbers.slice(0, rows * cols);
          const seed = numbers.slice(9, 9 + rows * cols);
          const blocking = new LayerNorm(cols);
          const ln = new LayerNorm(cols, { runtime });
          const out = new Float32Array(rows * cols);
          expect(await ln.forwardAsync(values, { out })).toBe(out);
          expect(bits(out)).toBe(bits(blocking.forward(values)));
          expect(bits(await ln.backwardAsync(seed))).toBe(bits(blocking.backward(seed)));
          expect(bits(ln.weight!.grad)).toBe(bits(blocking.weight!.grad));
          const x = new Tensor([rows, cols], values, { runtime });
          const y = new Tensor([rows, cols], undefined, { runtime });
          expect(await ln.forwardAsync(x, { out: y })).toBe(y);
          expect(bits(y.data)).toBe(bits(out));
          const dx = await ln.backwardAsync(new Tensor([rows, cols], seed, { runtime }));
          expect(bits(dx.data)).toBe(bits(blocking.backward(seed)));
          expect(bits(ln.weight!.grad)).toBe(bits(blocking.weight!.grad));
        }
      }
    });
  }

  test("don't block, even after blocking calls with the same operands, nor do these give other bits meanwhile", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [200, 300];
    const ln = new LayerNorm(cols, { runtime });
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
    const [y, dx] = [
      new Tensor([rows, cols], undefined, { runtime }),
      new Tensor([rows, cols], undefined, { runtime }),
    ];
    for (let i = 0; i < 3; i++) {
      ln.forward(x, { out: y });
      ln.backward(x, { out: dx });
    }
    const expected = [y, dx].map(({ data }) => bits(data));
    let busy = 0;
    for (let i = 0; i < 20; i++) {
      const promise = i % 2 === 0 ? ln.forwardAsync(x, { out: y }) : ln.backwardAsync(x, { out: dx });
      if ((runtime as unknown as { busy: boolean }).busy) busy++; // the other thread may have been quick
      ln.forward(x, { out: y });
      ln.backward(x, { out: dx });
      await promise;
      expect([y, dx].map(({ data }) => bits(data))).toEqual(expected);
    }
    expect(busy).toBeGreaterThan(0);
  });

  test("may be many at once, with calls that block in between", async () => {
    const runtime = await threaded(3);
    const [rows, cols] = [150, 300];
    const inputs = Array.from({ length: 12 }, (_, i) => numbers.slice(i, i + rows * cols));
    const single = new LayerNorm(cols);
    const ln = new LayerNorm(cols, { runtime });
    const got: Promise<Float32Array>[] = [];
    for (const [i, x] of inputs.entries()) {
      got.push(i % 4 === 2 ? Promise.resolve(ln.forward(x)) : ln.forwardAsync(x));
      if (i % 4 === 3) got.push(ln.backwardAsync(x));
    }
    const expected = inputs.flatMap((x, i) => [single.forward(x), ...(i % 4 === 3 ? [single.backward(x)] : [])]);
    expect((await Promise.all(got)).map(bits)).toEqual(expected.map(bits));
    expect(bits(ln.weight!.grad)).toBe(bits(single.weight!.grad));
  });

  test("may be chained: each call waits for those before it", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [200, 300];
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
    const one = new LayerNorm(cols, { runtime }).eval();
    const two = new LayerNorm(cols, { runtime }).eval();
    two.weight!.data.fill(3);
    one.forwardAsync(x, { out: x });
    const row = new Tensor([1, cols], undefined, { runtime, pointer: x.pointer });
    const small = two.forwardAsync(row, { out: row });
    await small;
    const single = new LayerNorm(cols).eval();
    const first = single.forward(numbers.slice(0, cols));
    single.weight!.data.fill(3);
    expect(bits(row.data)).toBe(bits(single.forward(first)));
  });

  test("keep what is disposed meanwhile until they are done", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [300, 300];
    const ln = new LayerNorm(cols, { runtime });
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
    const expected = bits(new LayerNorm(cols).forward(numbers.slice(0, rows * cols)));
    for (let i = 0; i < 20; i++) {
      const promise = ln.forwardAsync(x);
      const dropped = ln.forwardAsync(x);
      const other = new Tensor([rows, cols], undefined, { runtime });
      other.dispose();
      const again = new Tensor([rows, cols], undefined, { runtime });
      const y = await promise;
      expect(bits(y.data)).toBe(expected);
      y.dispose();
      (await dropped).dispose();
      expect(again.data.every((value) => value === 0)).toBe(true);
      again.dispose();
    }
  });

  test("are done before parameters are handed out, set or cleared", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [400, 300];
    const x = numbers.slice(0, rows * cols);
    const single = new LayerNorm(cols);
    single.forward(x);
    single.backward(x);
    const ln = new LayerNorm(cols, { runtime });
    const y = ln.forwardAsync(x);
    ln.loadStateDict({ weight: new Float32Array(cols).fill(5), bias: new Float32Array(cols) });
    expect(bits(await y)).toBe(bits(new LayerNorm(cols).forward(x)));
    ln.resetParameters();
    const dx = ln.backwardAsync(x);
    const [weight] = ln.parameters();
    expect(bits(weight!.grad)).toBe(bits(single.weight!.grad));
    const again = ln.backwardAsync(x);
    ln.zeroGrad();
    await Promise.all([dx, again]);
    expect(weight!.grad.every((value) => value === 0)).toBe(true);
    const last = ln.forwardAsync(x);
    ln.resetParameters();
    expect(bits(await last)).toBe(bits(new LayerNorm(cols).forward(x)));
  });

  test("give memory back while one is always under way", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const [rows, cols] = [64, 1031];
    const ln = new LayerNorm(cols, { runtime }).eval();
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
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
    const row = new Tensor([1, cols], numbers.subarray(0, cols), { runtime });
    const large = new Tensor([1024, cols], undefined, { runtime });
    const outs = Array.from({ length: 7 }, () => new Tensor([1, cols], undefined, { runtime }));
    const calls = [ln.forwardAsync(large, { out: large })];
    for (let i = 0; i < 20_000; i++) calls.push(ln.forwardAsync(row, { out: outs[i % 7] }));
    expect((await Promise.all(calls)).length).toBe(20_001);
    for (const out of outs) expect(bits(out.data)).toBe(bits(ln.forward(numbers.slice(0, cols))));
    for (const tensor of [row, large, ...outs]) tensor.dispose();
  });

  test("are done before a call copies an array that they write to", async () => {
    const runtime = await threaded(2);
    const [rows, cols] = [500, 300];
    const single = new LayerNorm(cols).eval();
    const ln = new LayerNorm(cols, { runtime }).eval();
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
    const first = single.forward(numbers.slice(0, rows * cols));
    const second = bits(single.forward(first));
    const t = new Tensor([rows, cols], undefined, { runtime });
    const { weight } = ln;
    for (const call of [
      () => ln.forward(t.data),
      () => layerNorm(t.data, cols, weight),
      () => ln.forwardAsync(t.data),
    ]) {
      t.data.fill(0);
      const underWay = ln.forwardAsync(x, { out: t });
      const again = await call();
      expect(bits(again)).toBe(second);
      expect(bits((await underWay).data)).toBe(bits(first));
    }
    for (const tensor of [x, t]) tensor.dispose();
  });

  test("are copied to their arrays before a later call computes", async () => {
    const runtime = await threaded(2);
    const cols = 300;
    for (const rows of [4, 400]) {
      const x = numbers.slice(0, rows * cols);
      const ln = new LayerNorm(cols, { runtime });
      for (const later of [
        () => ln.forward(numbers.slice(7, 7 + rows * cols)),
        () => {
          ln.eval().train();
          new Tensor([rows, cols], numbers.slice(9, 9 + rows * cols), { runtime });
        },
      ]) {
        ln.forward(x);
        const [sum, out] = [new Float32Array(rows * cols), new Float32Array(rows * cols)];
        const promise = ln.forwardAsync(x, { residual: x, sum, out });
        later();
        await promise;
        expect(bits(sum)).toBe(bits(x.map((value) => value + value)));
        expect(bits(out)).toBe(bits(new LayerNorm(cols).forward(sum)));
      }
    }
  });

  test("whose array is detached meanwhile reject, and leave the runtime as it is", async () => {
    const runtime = await threaded(2);
    const ln = new LayerNorm(300, { runtime });
    const out = new Float32Array(300_000);
    let promise = ln.forwardAsync(numbers, { out });
    // The other thread may have been quick.
    for (let i = 0; i < 100 && !(runtime as unknown as { busy: boolean }).busy; i++) {
      await promise;
      promise = ln.forwardAsync(numbers, { out });
    }
    structuredClone(out.buffer, { transfer: [out.buffer] });
    await expect(promise).rejects.toThrow(TypeError);
    expect(ln.forward(numbers.slice(0, 300)).length).toBe(300);
  });

  test("reject with what would have been thrown", async () => {
    const ln = new LayerNorm(4, { runtime: await threaded(2) });
    await expect(ln.forwardAsync(new Float32Array(5))).rejects.toThrow(
      "LayerNorm.forwardAsync: x has 5 elements, expected a multiple of 4",
    );
    await expect(ln.backwardAsync(new Float32Array(4))).rejects.toThrow(
      "LayerNorm.backwardAsync: there was no forward in training mode before it",
    );
  });
});

describe("memory", () => {
  test("is shared: data are views of it, and stay right when it grows", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const x = new Tensor([3], [1, 2, 3], { runtime });
    const before = x.data;
    expect(before.buffer).toBeInstanceOf(SharedArrayBuffer);
    using big = new Tensor([1 << 20], undefined, { runtime });
    expect(big.size).toBe(1 << 20);
    x.data[0] = 7;
    expect([...before]).toEqual([7, 2, 3]);
    await runtime.close();
  });

  test("is that of views from before and after it has grown: an array and its like are one", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const [rows, cols] = [30, 40];
    const ln = new LayerNorm(cols, { runtime }).eval();
    const x = new Tensor([rows, cols], numbers.subarray(0, rows * cols), { runtime });
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

  test("that has grown is that of its old views, too", async () => {
    const runtime = await threaded(1);
    const [rows, cols] = [4096, 64];
    const big = new Tensor([rows, cols], undefined, { runtime });
    const weight = new Tensor([cols], undefined, { runtime, pointer: big.pointer });
    const out = big.data;
    const { buffer } = runtime.memory;
    new Tensor([1 << 24], undefined, { runtime });
    expect(runtime.memory.buffer).not.toBe(buffer);
    weight.data.set(numbers.subarray(0, cols));
    const x = normal(rows * cols, 3);
    const ln = new LayerNorm(cols, { runtime, weight, bias: false }).eval();
    expect(() => ln.forward(x, { out })).toThrow(/forward: out overlaps weight/);
    expect(bits(weight.data)).toBe(bits(numbers.subarray(0, cols)));
    expect(bits(ln.forward(x.subarray(cols), { out: out.subarray(cols) }))).toBe(
      bits(layerNorm(x.subarray(cols), cols, numbers.slice(0, cols))),
    );
  });

  test("of a tensor is reached from another worker by its handle", async () => {
    const runtime = await threaded(2);
    const x = new Tensor([2, 3], [1, 2, 3, 4, 5, 6], { runtime });
    const { worker, answer } = reader();
    worker.postMessage(x.handle);
    const { shape, refusal } = await answer;
    expect(shape).toEqual([2, 3]);
    expect(refusal).toBe("Runtime: that of another thread; here only the data of its tensors can be read and written");
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
    expect(() => new Tensor([1]).handle).toThrow(
      "Tensor: handle of a memory that isn't shared, as that of a runtime of createThreadedRuntime is",
    );
    for (const handle of [null, undefined, {}, new Tensor([1])]) {
      expect(() => Tensor.from(handle as never)).toThrow("expected what tensor.handle gives");
    }
  });

  test("of one runtime is refused by a module of another", async () => {
    const [a, b] = [await threaded(2), await threaded(3)];
    const x = new Tensor([1, 4], undefined, { runtime: a });
    expect(() => new LayerNorm(4, { runtime: b }).forward(x)).toThrow("x belongs to another runtime");
    expect(() => new LayerNorm(4).forward(x)).toThrow("x belongs to another runtime");
    expect(() => new LayerNorm(4, { runtime: a }).forward(new Tensor([1, 4]))).toThrow("x belongs to another runtime");
  });
});

describe("createThreadedRuntime", () => {
  test("takes as many threads as the machine runs at a time", async () => {
    const runtime = await createThreadedRuntime();
    expect(runtime.threads).toBeGreaterThanOrEqual(1);
    await runtime.close();
  });

  test("refuses options that don't fit", async () => {
    for (const [options, message] of [
      [{ threads: 0 }, "createThreadedRuntime: threads is 0, expected an integer from 1 to 256"],
      [{ threads: 1.5 }, "createThreadedRuntime: threads is 1.5, expected an integer from 1 to 256"],
      [{ threads: 257 }, "createThreadedRuntime: threads is 257, expected an integer from 1 to 256"],
      [{ threads: "2" }, 'createThreadedRuntime: threads is "2", expected a number'],
      [{ fallback: "none" }, 'createThreadedRuntime: fallback is "none", expected "single"'],
      [{ thread: 2 }, 'createThreadedRuntime: "thread" is not an option, expected threads, fallback, worker'],
      [{ worker: 5 }, "createThreadedRuntime: worker is 5, expected a URL or a function that makes a Worker"],
      [{ worker: {} }, "createThreadedRuntime: worker is an Object, expected a URL or a function that makes a Worker"],
      [null, "createThreadedRuntime: options is null, expected an object"],
    ] as const) {
      await expect(createThreadedRuntime(options as never)).rejects.toThrow(message);
    }
  });

  test("reads each option once", async () => {
    for (const [name, value] of [
      ["threads", 2],
      ["fallback", "single"],
      ["worker", undefined],
      ["memory", undefined],
      ["allocate", undefined],
      ["free", undefined],
    ] as const) {
      let reads = 0;
      const get = () => (reads++ === 0 ? value : 0);
      const options = Object.defineProperty({}, name, { get, enumerable: true });
      await (await createThreadedRuntime(options)).close();
      expect(reads, name).toBe(1);
    }
  });

  test("gives a memory to one of two that ask for it", async () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 100, shared: true });
    const both = [1, 2].map(() => createThreadedRuntime({ threads: 2, memory }));
    const [first, ...others] = await settled(both);
    expect(others).toEqual([new TypeError("createThreadedRuntime: memory is managed by another Runtime")]);
    await (first as ThreadedRuntime).close();
  });

  test("has no reason for a fallback where threads run, nor where one was asked for", async () => {
    for (const threads of [1, 2]) {
      const runtime = await createThreadedRuntime({ threads, fallback: "single" });
      expect(runtime.threads).toBe(threads);
      expect(runtime.fallbackReason).toBe(undefined);
      await runtime.close();
    }
  });

  test("takes a worker: where its file is, or a function that makes one", async () => {
    const made: [URL, { type: "module" }][] = [];
    const recording = (Own: WorkerClass) =>
      class extends Own {
        constructor(...args: [URL, { type: "module" }]) {
          made.push(args);
          super(...args);
        }
      };
    const restore = replaceWorkers(recording);
    const working = async (worker?: URL | string | (() => AnyWorker)) => {
      const runtime = await createThreadedRuntime({ threads: 3, worker });
      expect(runtime.threads).toBe(3);
      expect(passes(runtime, 100, 1000)).toEqual(passes(Runtime.default, 100, 1000));
      await runtime.close();
    };
    try {
      await working();
      const [file] = made[0]!;
      await working(new URL(file));
      await working(file.href);
      expect(made.map(([made]) => String(made))).toEqual(new Array(6).fill(file.href));
      const [Worker] = workerClasses() as [WorkerClass];
      await working(() => new Worker(file, { type: "module", execArgv: [] } as { type: "module" }));
      expect(made.length).toBe(8);
    } finally {
      restore();
    }
  });

  describe("says why there are no threads, and gives a runtime of one instead if asked to,", () => {
    const throwing = (message: string) => () =>
      class {
        constructor() {
          throw new Error(message);
        }
      };
    const unposted = () => {
      throw new Error("#<Memory> could not be cloned");
    };

    test.each([
      [
        "where a Worker can't be made",
        undefined,
        throwing("no workers here"),
        "a thread did not start: no workers here",
      ],
      [
        "where a function doesn't make one",
        (): never => {
          throw new Error("no workers of mine");
        },
        undefined,
        "a thread did not start: no workers of mine",
      ],
      [
        "where a function gives something else",
        (() => ({})) as unknown as () => AnyWorker,
        undefined,
        "a thread did not start: the function worker gave an Object, expected a Worker",
      ],
      [
        "where worker.js isn't found",
        new URL("./no-such-file.js", import.meta.url),
        undefined,
        /^a thread did not start: .*(no-such-file|worker\.js)/i,
      ],
      [
        "where memory can't be posted",
        () => ({ postMessage: unposted, terminate: () => {}, addEventListener: () => {} }),
        undefined,
        "a thread did not start: #<Memory> could not be cloned",
      ],
    ] as const)("%s", async (_, worker, replacement, reason) => {
      const restore = replacement ? replaceWorkers(replacement) : () => {};
      try {
        await expectNoThreads({ worker }, reason);
        const memory = new WebAssembly.Memory({ initial: 1, maximum: 1000, shared: true });
        const single = await createThreadedRuntime({ threads: 2, fallback: "single", worker, memory });
        expect([single.threads, single.memory]).toEqual([1, memory]);
        expect(single.fallbackReason).toMatch(reason);
        expect(passes(single, 100, 400)).toEqual(passes(Runtime.default, 100, 400));
      } finally {
        restore();
      }
    });

    test("where there is no room for a shared memory", async () => {
      const { Memory } = WebAssembly;
      WebAssembly.Memory = class extends Memory {
        constructor(descriptor: WebAssembly.MemoryDescriptor) {
          if (descriptor.shared) throw new RangeError("could not allocate memory");
          super(descriptor);
        }
      };
      try {
        await expectNoThreads({}, "out of memory, no room for a shared memory, could not allocate memory", RangeError);
        await expectNoThreads({ threads: 1 }, "out of memory, no room for a shared memory", RangeError);
      } finally {
        WebAssembly.Memory = Memory;
      }
    });
  });

  test("says which headers a page needs that isn't isolated, or gives a runtime of one thread if asked to", async () => {
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
});

describe("close", () => {
  test("makes any later use an error, and leaves tensors to be read", async () => {
    for (const threads of [1, 2]) {
      const runtime = await createThreadedRuntime({ threads });
      const ln = new LayerNorm(2, { runtime });
      const x = new Tensor([1, 2], [1, 2], { runtime });
      await runtime.close();
      await runtime.close();
      const message = "ThreadedRuntime: used after it was closed";
      expect(() => ln.forward(x)).toThrow(message);
      await expect(ln.forwardAsync(x)).rejects.toThrow(message);
      expect(() => new Tensor([1], undefined, { runtime })).toThrow(message);
      expect([...x.data]).toEqual([1, 2]);
      x.dispose();
      ln.dispose();
    }
  });

  test("is what await using calls", async () => {
    const runtime = await createThreadedRuntime({ threads: 2 });
    const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
    await runtime[asyncDispose]();
    expect(() => new Tensor([1], undefined, { runtime })).toThrow("used after it was closed; create another");
  });

  test("comes after the calls under way", async () => {
    const runtime = await createThreadedRuntime({ threads: 3 });
    const ln = new LayerNorm(300, { runtime });
    const x = numbers.slice(0, 300 * 300);
    const results = [ln.forwardAsync(x), ln.forwardAsync(x)];
    await runtime.close();
    const expected = bits(new LayerNorm(300).forward(x));
    expect((await Promise.all(results)).map(bits)).toEqual([expected, expected]);
  });
});

describe("a thread that is terminated", () => {
  test("in the middle of work makes the call fail, or is done first; nothing hangs", async () => {
    for (const blocking of [true, false]) {
      const { result: runtime, workers } = await catchingWorkers(() => createThreadedRuntime({ threads: 2 }));
      expect(workers.length).toBe(1);
      // Two chunks, each of which takes so long that the thread is in the middle of one.
      const cols = 1 << 23;
      const ln = new LayerNorm(cols, { runtime, elementwiseAffine: false }).eval();
      const x = new Tensor([2, cols], undefined, { runtime });
      for (const half of [x.data.subarray(0, cols), x.data.subarray(cols)]) {
        half.fill(1e30).fill(-1e30, cols / 2); // whose squares overflow: the slow way, to ones and minus ones
      }
      const under = outcome(ln.forwardAsync(x));
      await new Promise((resolve) => setTimeout(resolve, 5));
      const ended = workers[0]!.terminate();
      const then = blocking ? await outcome(async () => ln.forward(x)) : "";
      const first = await under;
      await ended;
      const later = [await outcome(async () => ln.forward(x)), await outcome(ln.forwardAsync(x))];
      for (const result of [then, first, ...later]) expect(["", "right", "broken"]).toContain(result);
      if ("crossOriginIsolated" in globalThis) {
        // A page's worker may finish what takes less than seconds, and nothing is said of its end: it is missed when work is left to it.
        await new Promise((resolve) => setTimeout(resolve, 3000));
        expect(await outcome(ln.forwardAsync(x))).toBe("broken");
      } else expect([first, ...later]).toEqual(["broken", "broken", "broken"]);
      await runtime.close();
    }
  });

  /** What became of a call. */
  async function outcome(call: Promise<Tensor> | (() => Promise<Tensor>)): Promise<string> {
    try {
      const { data } = await (typeof call === "function" ? call() : call);
      return data.every((value, i) => value === (i % (1 << 23) < 1 << 22 ? 1 : -1)) ? "right" : "wrong";
    } catch (error) {
      return /the runtime is broken/.test((error as Error).message) ? "broken" : String(error);
    }
  }
});

/** That there are no threads, for a reason: the error's without a fallback, the runtime's with it. */
async function expectNoThreads(options: ThreadsOptions, reason: string | RegExp, kind = Error): Promise<void> {
  const error: Error = await createThreadedRuntime({ threads: 2, ...options }).then(
    () => expect.unreachable(),
    (error) => error,
  );
  expect(error).toBeInstanceOf(kind);
  const [, why] = /^createThreadedRuntime: (.*); \{ fallback: "single" \} gives/s.exec(error.message) ?? [];
  expect(why).toMatch(reason);
  const single = await createThreadedRuntime({ threads: 2, ...options, fallback: "single" });
  expect(single.threads).toBe(1);
  expect(single.fallbackReason).toBe(why);
  expect(passes(single, 100, 400)).toEqual(passes(Runtime.default, 100, 400));
  expect(single.memory.buffer).toBeInstanceOf(ArrayBuffer);
  await single.close();
  expect(() => new Tensor([1], undefined, { runtime: single })).toThrow("used after it was closed");
}

type WorkerClass = { new (url: URL, options?: { type: "module" }): AnyWorker; prototype: AnyWorker };

/** Those there are: `Worker`, Node's, or both. */
function workerClasses(): WorkerClass[] {
  const { Worker, process } = globalThis as { Worker?: WorkerClass; process?: NodeJS.Process };
  const own = process?.getBuiltinModule?.("node:worker_threads").Worker as unknown as WorkerClass | undefined;
  return [Worker, own].filter((found) => found !== undefined);
}

/** What became of promises, the errors last. */
async function settled<T>(promises: Promise<T>[]): Promise<unknown[]> {
  const results = await Promise.all(promises.map((promise) => promise.catch((error: Error) => error)));
  return results.sort((a, b) => Number(a instanceof Error) - Number(b instanceof Error));
}

/** Puts another class in place of each class of workers. The function that is returned takes that back. */
function replaceWorkers(replacement: (Own: WorkerClass) => unknown): () => void {
  const { Worker, process } = globalThis as { Worker?: WorkerClass; process?: NodeJS.Process };
  if (Worker) Object.assign(globalThis, { Worker: replacement(Worker) });
  const own = process?.getBuiltinModule;
  if (own) {
    process.getBuiltinModule = ((name: string) => {
      const builtin = own.call(process, name) as { Worker: WorkerClass };
      return name === "node:worker_threads" ? { ...builtin, Worker: replacement(builtin.Worker) } : builtin;
    }) as never;
  }
  return () => {
    if (Worker) Object.assign(globalThis, { Worker });
    if (own) process.getBuiltinModule = own;
  };
}

/** What `make` gives, and the workers that it posted to. */
async function catchingWorkers<T>(make: () => Promise<T>): Promise<{ result: T; workers: AnyWorker[] }> {
  const workers: AnyWorker[] = [];
  const restore = workerClasses().map(({ prototype }) => {
    const original = prototype.postMessage;
    prototype.postMessage = function (this: AnyWorker, message) {
      workers.push(this);
      original.call(this, message);
    };
    return () => {
      prototype.postMessage = original;
    };
  });
  try {
    return { result: await make(), workers };
  } finally {
    for (const put of restore) put();
  }
}

/** test/threads-reader.mjs, running, and its first answer. */
function reader() {
  const [Worker] = workerClasses() as [WorkerClass];
  const worker = new Worker(new URL("./threads-reader.mjs", import.meta.url), { type: "module" });
  const answer = new Promise<{ shape: number[]; refusal: string }>((resolve, reject) => {
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
