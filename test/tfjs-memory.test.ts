// The entry layernorm-wasm/tfjs and the memory of TensorFlow.js: what is kept, what is freed, the heap of the wasm backend, and what
// happens where that can't be reached.

import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { layerNorm, layerNormalization, rmsNorm } from "../src/tfjs/index.js";
import { apart, freshEntry, gradients, held, type Norm, OPS, tensorOf, values, wasm } from "./tfjs-helpers.js";

beforeAll(() => tf.setBackend("wasm"));

describe("tensors and scopes of tfjs", () => {
  test("tidy frees the result, keep holds it, and what is disposed of is an error", () => {
    const x = tensorOf([3, 4], 1);
    const before = held();
    tf.tidy(() => {
      layerNorm(x);
      layerNorm(x, null, null, 0, 1e-3, { residual: x });
    });
    expect(held()).toEqual(before);
    const kept = tf.tidy(() => {
      tf.keep(layerNorm(x));
      return rmsNorm(x);
    });
    expect(tf.memory().numTensors).toBe(before.numTensors + 2);
    kept.dispose();
    expect(() => layerNorm(kept)).toThrow(/disposed/);
  });

  test("what was given and returned may be disposed of before the gradient is computed", () => {
    const x = tensorOf([3, 4], 1);
    const [late, early] = [false, true].map((early) => {
      const f = (x: tf.Tensor) => {
        const [residual, gamma] = [tf.mul(x, 2), tf.add(tf.sum(x, 0), 1)];
        const [y, sum] = layerNorm(x, gamma, null, -1, 1e-3, { residual, returnSum: true });
        const result = tf.mul(y, tf.square(sum));
        if (early) tf.dispose([residual, gamma, y, sum]);
        return result;
      };
      return gradients(f as never, [x]);
    });
    expect(early).toEqual(late);
    // Nor does the gradient of the sum alone take dy along.
    const dy = tensorOf([3, 4], 2);
    const ofSum = (x: tf.Tensor) => layerNorm(x, null, null, -1, 1e-3, { residual: x, returnSum: true })[1];
    tf.dispose(tf.grad(ofSum)(x, dy));
    expect(dy.isDisposed).toBe(false);
  });

  test.each(Object.keys(OPS) as Norm[])("%s shows in profiles by its kernel, and copies nothing", async (norm) => {
    const kernelsOf = async (run: () => tf.TensorContainer) => (await tf.profile(run)).kernels.map(({ name }) => name);
    const [x, residual] = [tensorOf([3, 4], 1), tensorOf([3, 4], 2)];
    for (const options of [{}, { residual }, { residual, returnSum: true }]) {
      const op = (x: tf.Tensor) => [OPS[norm](x, null, null, -1, 1e-3, options)].flat();
      const names = await kernelsOf(() => op(x));
      expect(names).toContain("LayernormWasmForward");
      expect(names).not.toContain("Identity");
      // Of what the gradient needs tfjs itself makes copies: of x or the sum, and of one or two numbers for each row.
      const inGradient = await kernelsOf(() => tf.grad((x: tf.Tensor) => op(x)[0]!)(x, residual));
      expect(inGradient.filter((name) => name === "Identity").length).toBe(norm === "layerNorm" ? 3 : 2);
    }
  });
});

describe("the heap of the wasm backend", () => {
  const results = (x: tf.Tensor) => [values(layerNorm(x)), ...gradients((x) => tf.square(layerNorm(x!)), [x])];

  test("stays as it is", () => {
    const [x, gamma] = [tensorOf([4, 20000], 1), tensorOf([20000], 2)];
    const step = () => tf.tidy(() => void tf.grad((x: tf.Tensor) => tf.square(layerNorm(x, gamma)))(x));
    step();
    const before = wasm().HEAPU8.length;
    for (let i = 0; i < 300; i++) step();
    expect(wasm().HEAPU8.length).toBe(before);
  });

  test("may grow", () => {
    const x = tensorOf([20, 33], 1);
    const before = results(x);
    const bytes = wasm().HEAPU8.length;
    const large = tf.zeros([bytes / 4]);
    expect(wasm().HEAPU8.length).toBeGreaterThan(bytes);
    expect(results(x)).toEqual(before);
    large.dispose();
  });

  describe("when it is full", () => {
    let malloc: (bytes: number) => number;
    beforeEach(() => {
      malloc = wasm()._malloc;
      return () => {
        wasm()._malloc = malloc;
      };
    });

    test.each([0, 1, 2])("after %i blocks more is an error, and nothing is kept", (blocks) => {
      const x = tensorOf([3, 4], 1);
      const before = held();
      let left = blocks;
      wasm()._malloc = (bytes) => (left-- > 0 ? malloc(bytes) : 0);
      expect(() => layerNorm(x)).toThrow(/The wasm backend has no memory left for a tensor of \[3(,4)?\]/);
      expect(held()).toEqual(before);
    });

    // dx, and then the gradients of gamma and beta.
    test.each([1, 2])("a gradient that finds no room for its block %i writes nothing", (failing) => {
      const given = [tensorOf([3, 4096], 1), tensorOf([4096], 2), tensorOf([4096], 3)];
      let blocks = -1;
      const f = (x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) => {
        const y = layerNorm(x, gamma, beta);
        wasm()._malloc = (bytes) => (++blocks === failing ? 0 : malloc(bytes));
        return y;
      };
      const dy = tensorOf([3, 4096], 4);
      // Its static data lie where address 0 leads. malloc's own words, among them, may change.
      const before = wasm().HEAPU8.slice(0, 4 * 4096);
      expect(() => gradients(f as never, given, dy)).toThrow(/The wasm backend has no memory left/);
      expect(before.filter((byte, i) => byte !== wasm().HEAPU8[i]).length).toBeLessThan(100);
    });
  });
});

describe("another wasm backend", () => {
  const factory = tf.findBackendFactory("wasm");
  /** Another instance of the wasm backend. `exports` are taken for those of its module. */
  async function freshWasm(exports?: object) {
    tf.removeBackend("wasm");
    tf.registerBackend("wasm", factory, 2);
    await tf.setBackend("wasm");
    wasm().asm = { ...wasm().asm, ...exports };
  }
  const results = (norm: typeof layerNorm) => {
    const [x, dy] = [tensorOf([6, 35], 1), tensorOf([6, 35], 2)];
    return [values(norm(x)), ...gradients((x) => norm(x!), [x], dy)];
  };

  test("computes as the one before it", async () => {
    const before = results(layerNorm);
    await freshWasm();
    expect(results(layerNorm)).toEqual(before);
  });

  test("may come in the course of a training, and the cpu backend in between", async () => {
    const train = async (backends: string[]) => {
      const dense = tfl.layers.dense({ units: 1, kernelInitializer: "ones" });
      const model = tfl.sequential({ layers: [layerNormalization({ inputShape: [6] }), dense] });
      model.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.0625) });
      for (const backend of backends) {
        await tf.setBackend(backend);
        await model.fit(tensorOf([8, 6], 1), tensorOf([8, 1], 2), { verbose: 0 });
      }
      return model.getWeights().map(values);
    };
    const [changing, staying] = [await train(["wasm", "cpu", "wasm"]), await train(["wasm", "wasm", "wasm"])];
    for (const [i, weight] of changing.entries()) expect(apart(weight, staying[i]!)).toBeLessThan(5e-6);
  });

  describe("gets copies, with one warning,", () => {
    let warnings: unknown[][];
    beforeEach(() => {
      warnings = vi.spyOn(console, "warn").mockImplementation(() => {}).mock.calls;
    });
    const { Module } = WebAssembly;
    afterEach(async () => {
      WebAssembly.Module = Module;
      vi.restoreAllMocks();
      await freshWasm();
    });

    test.each([
      ["is missing", undefined],
      ["is another one", new WebAssembly.Memory({ initial: 1000 })],
    ])("as its memory %s", async (_, memory) => {
      const expected = results(layerNorm);
      await freshWasm({ memory });
      const fresh = await freshEntry();
      for (let times = 0; times < 2; times++) expect(results(fresh.layerNorm)).toEqual(expected);
      await freshWasm({ memory });
      expect(results(fresh.layerNorm)).toEqual(expected);
      const says = /^layernorm-wasm\/tfjs can't reach the memory of the wasm backend of TensorFlow.js 4\.22\.0/;
      expect(warnings).toEqual([[expect.stringMatching(says)]]);
    });

    test("where the engine doesn't compile at once, once Runtime.default is made without blocking", async () => {
      const fresh = await freshEntry();
      const { Runtime } = await import("../src/index.js");
      WebAssembly.Module = class {
        constructor() {
          throw new RangeError("WebAssembly.Compile is disallowed on the main thread");
        }
      } as never;
      const row = () => [...values(fresh.layerNorm(tf.tensor2d([[3, 5]]), null, null, -1, 0))];
      expect(row).toThrow(/Runtime.default = await Runtime.create\(\{ async: true \}\)/);
      Runtime.default = await Runtime.create({ async: true });
      expect(row()).toEqual([-1, 1]);
      expect(warnings).toEqual([[expect.stringMatching(/tensors are copied\. .*disallowed on the main thread/)]]);
    });
  });
});
