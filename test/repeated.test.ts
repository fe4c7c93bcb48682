// A module that is given the same operands as the last time runs its last call again. Nobody may notice.

import { describe, expect, test } from "vitest";
import {
  LayerNorm,
  layerNormBackward,
  layerNormWithStats,
  RMSNorm,
  Runtime,
  rmsNormBackward,
  rmsNormWithStats,
  Tensor,
} from "../src/index.js";
import { normal, resizable } from "./helpers.js";

type Operand = Float32Array | Tensor;

const rows = 3;
const cols = 35;
const size = rows * cols;

const values = (operand: Operand) => (operand instanceof Tensor ? operand.data : operand);

/** What a module keeps for backward. */
interface Kept {
  x: Operand;
  stats: { mean?: Float32Array; rstd: Float32Array };
}

/** Calls a module in all ways, often with the operands of the last time, and compares each result with the functions'. */
function walk(seed: number, rms: boolean, affine: boolean): number {
  let state = seed;
  const random = (count: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const runtime = Runtime.create();
  const options = { runtime, elementwiseAffine: affine, eps: 1e-5 };
  const norm: LayerNorm | RMSNorm = rms ? new RMSNorm(cols, options) : new LayerNorm(cols, options);
  const tensors = Array.from({ length: 4 }, (_, i) => new Tensor([rows, cols], normal(size, seed + i), { runtime }));
  const arrays = Array.from({ length: 4 }, (_, i) => normal(size, seed + 10 + i));
  const pick = () => ({ pool: random(2) ? tensors : arrays, first: random(2), second: random(4), third: random(5) });
  let choice = { forward: pick(), backward: pick() };
  let kept: Kept | null = null;
  let repeated = 0;

  for (let step = 0; step < 100; step++) {
    const log = `seed ${seed}, step ${step}`;
    const before = choice;
    if (random(3) === 0) choice = { forward: pick(), backward: pick() };
    if (choice === before) repeated++;
    const changes = [
      () => {
        norm.train(random(2) === 1);
        if (!norm.training) kept = null;
      },
      () => {
        for (const parameter of norm.parameters()) parameter.requiresGrad = random(2) === 1;
      },
      () => norm.weight?.data.set(normal(cols, step, 1)),
      () => norm.zeroGrad(),
      () => runtime.flush(),
      () => new Tensor([10_000], undefined, { runtime }), // the memory may grow
      () => {
        values(choice.forward.pool[random(4)]!)[random(size)] = random(100);
      },
      () => {
        const i = random(4);
        if (kept?.x === tensors[i]) {
          kept = null;
          norm.eval().train();
        }
        tensors[i]!.dispose();
        tensors[i] = new Tensor([rows, cols], normal(size, step), { runtime });
      },
    ];
    if (random(2)) changes[random(changes.length)]!();
    const [weight, bias] = norm.parameters().map(({ data }) => data.slice());

    if (kept === null || random(2)) {
      const { pool, first, second, third } = choice.forward;
      const x = pool[first]!;
      const residual = pool[[0, 1][second]!];
      const sum = residual && pool[[2, first][third]!];
      // Backward needs the Tensors.
      const mayBeX = !norm.training || pool === arrays;
      const out = mayBeX && random(4) === 0 && sum !== x ? x : random(4) ? pool[3] : undefined;
      const added = values(x).map((value, i) => value + (residual ? values(residual)[i]! : 0));
      const keptTensor = sum ?? (residual ? undefined : x);
      const expected = rms
        ? rmsNormWithStats(added, cols, weight, 1e-5)
        : layerNormWithStats(added, cols, weight, bias, 1e-5);
      const y = norm.forward(x, { out, residual, sum });
      if (out) expect(y, log).toBe(out);
      expect(values(y), log).toEqual(expected.y);
      if (sum) expect(values(sum), log).toEqual(added);
      if (norm.training) kept = { x: keptTensor instanceof Tensor ? keptTensor : added, stats: expected };
    } else {
      const { pool, first, second, third } = choice.backward;
      const dy = pool[first]!;
      const add = pool[[0, 1][second]!];
      const out = [pool[2], pool[3], dy, add][third];
      if (out && out === kept.x) continue;
      const sums = norm.parameters().map(({ grad }) => grad.slice());
      const { mean, rstd } = kept.stats;
      const more = { add: add && values(add).slice(), eps: 1e-5, dweight: sums[0]?.slice() };
      const args = [values(dy).slice(), values(kept.x).slice()] as const;
      const expected = rms
        ? rmsNormBackward(...args, rstd, weight, more)
        : layerNormBackward(...args, mean!, rstd, weight, { ...more, dbias: sums[1]?.slice() });
      const dx = norm.backward(dy, { out, add });
      if (out) expect(dx, log).toBe(out);
      expect(values(dx), log).toEqual(expected.dx);
      for (const [name, parameter] of norm.namedParameters()) {
        const i = name === "weight" ? 0 : 1;
        const { dweight, dbias } = expected as { dweight: Float32Array; dbias?: Float32Array };
        expect(parameter.grad, `${log}: ${name}`).toEqual(parameter.requiresGrad ? [dweight, dbias][i] : sums[i]);
      }
    }
  }
  return repeated;
}

describe("in any order, all calls give what the functions give", () => {
  for (const rms of [false, true]) {
    for (const affine of [true, false]) {
      test(`${rms ? "RMSNorm" : "LayerNorm"}, elementwiseAffine: ${affine}`, () => {
        let repeated = 0;
        for (let seed = 1; seed <= 6; seed++) repeated += walk(seed, rms, affine);
        expect(repeated).toBeGreaterThan(250);
      });
    }
  }
});

describe("an allocator that calls the module", () => {
  /** A runtime whose allocator does something else first, once. It gives each block once, and takes back no other. */
  function calledBack() {
    const memory = new WebAssembly.Memory({ initial: 16 });
    const live = new Set<number>();
    const strays: number[] = [];
    const first: { allocate?: (() => unknown) | undefined; free?: (() => unknown) | undefined } = {};
    let next = 1024;
    const once = (name: "allocate" | "free") => {
      const act = first[name];
      first[name] = undefined;
      return act?.();
    };
    const allocate = (bytes: number) => {
      if (once("allocate") === 0) return 0;
      const pointer = next;
      next += Math.ceil(bytes / 16) * 16;
      live.add(pointer);
      return pointer;
    };
    const free = (pointer: number) => {
      if (!live.delete(pointer)) strays.push(pointer);
      once("free");
    };
    const runtime = Runtime.create({ memory, allocate, free });
    const ln = new LayerNorm(cols, { runtime });
    const tensor = (seed: number) => new Tensor([rows, cols], normal(size, seed), { runtime });
    return { runtime, ln, first, strays, x1: tensor(1), x2: tensor(2), dy: tensor(3), y: tensor(4), dx: tensor(5) };
  }

  /** dx at x. */
  function expected(x: Tensor, dy: Tensor): Float32Array {
    const ln = new LayerNorm(cols);
    ln.forward(x.data.slice());
    return ln.backward(dy.data.slice());
  }

  test("during backward, with another x: the next backward is of that", () => {
    const { ln, first, x1, x2, dy, y, dx } = calledBack();
    ln.forward(x1, { out: y });
    first.allocate = () => ln.forward(x2, { out: y });
    ln.backward(dy, { out: dx });
    expect(first.allocate).toBeUndefined();
    expect(ln.backward(dy, { out: dx }).data).toEqual(expected(x2, dy));
    expect(ln.backward(dy, { out: dx }).data).toEqual(expected(x2, dy));
  });

  test("during forward, with another x, or to switch modes: the next forward is kept for backward", () => {
    for (const what of ["forward", "eval"] as const) {
      const { ln, first, x1, x2, dy, y, dx } = calledBack();
      ln.forward(x2.data.slice());
      first.free = () => (what === "eval" ? ln.eval().train() : ln.forward(x2, { out: y }));
      ln.forward(x1, { out: y });
      expect(first.free).toBeUndefined();
      for (let i = 0; i < 2; i++) {
        ln.forward(x1, { out: y });
        expect(ln.backward(dy, { out: dx }).data, what).toEqual(expected(x1, dy));
      }
    }
  });

  test("while the memory for calls is given back: that is freed once, and not used meanwhile", () => {
    for (const factor of [1, 2]) {
      const { runtime, ln, first, strays, x1 } = calledBack();
      const x = x1.data.slice();
      ln.eval().forward(x);
      const more = normal(size * factor, 6);
      let y: Float32Array | undefined;
      first.allocate = () => 0;
      first.free = () => {
        y = ln.forward(more);
      };
      new Tensor([1000], undefined, { runtime });
      expect(y).toEqual(new LayerNorm(cols).forward(more));
      expect(ln.forward(x)).toEqual(new LayerNorm(cols).forward(x));
      runtime.flush();
      expect(strays).toEqual([]);
    }
  });
});

describe("the same operands again", () => {
  const x = normal(size, 1);

  /** A module that has had these operands, and expects to be given them again. */
  function repeating(runtime = Runtime.create()) {
    const ln = new LayerNorm(cols, { runtime });
    const t = new Tensor([rows, cols], x, { runtime });
    const out = new Tensor([rows, cols], undefined, { runtime });
    for (let i = 0; i < 3; i++) ln.forward(t, { out });
    return { runtime, ln, t, out };
  }

  test("of which one was disposed, are refused", () => {
    for (const name of ["t", "out"] as const) {
      const { runtime, ln, ...operands } = repeating();
      const other = new LayerNorm(cols, { runtime }).eval();
      for (let i = 0; i < 3; i++) other.forward(operands.t, { out: operands.out });
      for (let i = 0; i < 3; i++) ln.backward(operands.t, { out: operands.out });
      operands[name].dispose();
      expect(() => ln.forward(operands.t, { out: operands.out })).toThrow(/disposed/);
      expect(() => other.forward(operands.t, { out: operands.out })).toThrow(/disposed/);
      expect(() => ln.backward(operands.t, { out: operands.out })).toThrow(/disposed/);
    }
  });

  test("of which one was detached, or has another size now, are refused", () => {
    const buffer = resizable(size * 4);
    const shrunk = new Float32Array(buffer);
    const detached = new Float32Array(size);
    const cases: [Float32Array, () => void][] = [
      [shrunk, () => buffer.resize((size - cols) * 4)],
      [detached, () => structuredClone(detached.buffer, { transfer: [detached.buffer] })],
    ];
    for (const [array, change] of cases) {
      const ln = new LayerNorm(cols);
      const spare = new Float32Array(size);
      for (let i = 0; i < 3; i++) {
        ln.forward(array, { out: spare });
        ln.backward(spare, { out: array });
      }
      const out = new LayerNorm(cols);
      for (let i = 0; i < 3; i++) out.forward(spare, { out: array });
      const before = spare.slice();
      change();
      const wrong = /detached|elements/;
      expect(() => ln.forward(array, { out: spare })).toThrow(wrong);
      expect(() => ln.backward(spare, { out: array })).toThrow(wrong);
      expect(() => out.forward(spare, { out: array })).toThrow(wrong);
      expect(spare).toEqual(before);
    }
  });

  test("with an option that there isn't are refused", () => {
    const { ln, t, out } = repeating();
    expect(() => ln.forward(t, { out, resdual: t } as object)).toThrow(/"resdual" is not an option/);
    ln.backward(t, { out });
    expect(() => ln.backward(t, { out, ad: t } as object)).toThrow(/"ad" is not an option/);
  });

  test("undefined is not the operand of a call without any", () => {
    const ln = new LayerNorm(cols);
    ln.forward(x);
    ln.backward(x);
    expect(() => ln.forward(undefined as never)).toThrow(/x is undefined, expected a Float32Array or a Tensor/);
    expect(() => ln.backward(undefined as never)).toThrow(/dy is undefined, expected a Float32Array or a Tensor/);
  });

  test("after a call that found no room for them find none", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 2, maximum: 2 }) });
    const ln = new LayerNorm(cols, { runtime }).eval();
    for (let i = 0; i < 2; i++) ln.forward(x, { out: new Float32Array(size) });
    const large = new Float32Array(cols * 1000);
    const out = new Float32Array(cols * 1000);
    const before = new Uint8Array(runtime.memory.buffer).slice(0, 1024);
    for (let i = 0; i < 2; i++) expect(() => ln.forward(large, { out })).toThrow(/out of memory/);
    expect(new Uint8Array(runtime.memory.buffer).slice(0, 1024)).toEqual(before);
    expect(ln.forward(x)).toEqual(new LayerNorm(cols).forward(x));
  });

  test("after calls without blocking give what these left", async () => {
    const { ln, t, out, runtime } = repeating();
    const other = new Tensor([rows, cols], normal(size, 3), { runtime });
    const fresh = new LayerNorm(cols, { runtime });
    const expected = fresh.forward(other).data.slice();
    const dx = fresh.backward(t).data.slice();
    ln.backward(t, { out });
    expect((await ln.forwardAsync(other, { out })).data).toEqual(expected);
    expect((await ln.forwardAsync(other, { out })).data).toEqual(expected);
    expect(ln.backward(t, { out }).data).toEqual(dx);
    expect((await ln.backwardAsync(t, { out })).data).toEqual(dx);
  });

  test("are those of an out over the same memory, which is then returned", () => {
    const { ln, t, out } = repeating();
    const { weight } = new LayerNorm([rows, cols], { weight: out, runtime: ln.weight.runtime });
    expect(ln.forward(t, { out: weight })).toBe(weight);
    expect(ln.forward(t, { out })).toBe(out);
  });
});
