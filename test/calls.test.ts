// Calls of modules in any order, on operands of every kind and in every place, give what the functions give on copies.

import { describe, expect, test } from "vitest";
import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  type Operand,
  RMSNorm,
  Runtime,
  rmsNormBackward,
  rmsNormWithStats,
  type Target,
  Tensor,
} from "../src/index.js";
import { normal } from "./helpers.js";

const rows = 3;
const cols = 35;
const size = rows * cols;
const Halves = (globalThis as unknown as { Float16Array?: Float32ArrayConstructor }).Float16Array;

const values = (operand: Operand) => Float32Array.from(operand instanceof Tensor ? operand.data : operand);
/** What floats are as an operand of the kind of another: those of a Float16Array are rounded. */
const as = (operand: Operand, floats: Float32Array) =>
  Halves && operand instanceof Halves ? Float32Array.from(Halves.from(floats)) : floats;

/** What a module keeps for backward, and what has overwritten it. */
interface Kept {
  x: Tensor | Float32Array;
  stats: { mean?: Float32Array; rstd: Float32Array };
  overwritten?: RegExp;
}

/** Calls a module in all ways, and compares each result with the functions'. */
function walk(seed: number, rms: boolean, affine: boolean): { overwritten: number } {
  let state = seed;
  const random = (count: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const runtime = Runtime.create();
  const options = { runtime, elementwiseAffine: affine, eps: 1e-5 };
  const name = rms ? "RMSNorm" : "LayerNorm";
  const norm: LayerNorm | RMSNorm = rms ? new RMSNorm(cols, options) : new LayerNorm(cols, options);
  const numbers = (i: number) => normal(size, seed + i);
  const tensors = [1, 2, 3, 4].map((i) => new Tensor([rows, cols], numbers(i), { runtime }));
  const outside = [5, 6, 7, 8].map(numbers);
  const doubles = [9, 10].map((i) => Float64Array.from(numbers(i)));
  const halves = Halves ? [11, 12].map((i) => Halves.from(numbers(i))) : [];
  const lists = [13, 14].map((i) => [...numbers(i)]);
  const block = new Tensor([4 * size], normal(4 * size, seed), { runtime });
  const inside = () => [0, 1, 2, 3].map((i) => block.data.subarray(i * size, (i + 1) * size));
  const pick = <T>(list: readonly T[]) => list[random(list.length)] as T;
  let kept: Kept | null = null;
  let overwritten = 0;

  for (let step = 0; step < 100; step++) {
    const log = `seed ${seed}, step ${step}`;
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
        pick(tensors).data[random(size)] = random(100);
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
    if (random(2)) pick(changes)();
    const [weight, bias] = norm.parameters().map(({ data }) => data.slice());
    const onTensors = random(2) === 1;
    const writable: Target<Operand>[] = onTensors ? tensors : [...outside, ...doubles, ...halves, ...inside()];
    const readable: Operand[] = onTensors ? tensors : [...writable, ...lists];
    const maybe = <T>(list: readonly T[]) => (random(2) ? pick(list) : undefined);
    const may = (operand: Operand | undefined) => operand && writable.includes(operand as Tensor) && random(2);

    if (kept === null || random(2)) {
      const x = pick(readable);
      const residual = maybe(readable);
      let sum = residual && maybe(writable);
      if (residual && may(random(2) ? x : residual)) sum = pick([x, residual] as Target<Operand>[]);
      if (sum && !writable.includes(sum)) sum = undefined;
      let out = maybe(writable);
      if (may(x)) out = x as Tensor;
      if (residual && may(residual)) out = residual as Tensor;
      const keptTensor = onTensors ? (residual ? sum : x) : undefined;
      if (out && (out === sum || (norm.training && out === keptTensor))) continue;
      const [before, added] = [values(x), values(x)];
      if (residual) added.set(values(residual).map((value, i) => (before[i] as number) + value));
      const expected = rms
        ? rmsNormWithStats(added, cols, weight, 1e-5)
        : layerNormWithStats(added, cols, weight, bias, 1e-5);
      const y = norm.forward(x, { out, residual, sum } as object) as Operand;
      if (out instanceof Tensor) expect(y, log).toBe(out);
      expect(values(y), log).toEqual(as(y, expected.y));
      if (sum instanceof Tensor || sum?.length) expect(values(sum as Operand), log).toEqual(as(sum, added));
      if (norm.training) kept = { x: keptTensor instanceof Tensor ? keptTensor : added, stats: expected };
    } else {
      const dy = pick(readable);
      const add = maybe(readable);
      let out = maybe(writable);
      if (may(dy)) out = dy as Tensor;
      if (add && may(add)) out = add as Tensor;
      if (out && out === kept.x) continue;
      const sums = norm.parameters().map(({ grad }) => grad.slice());
      const { mean, rstd } = kept.stats;
      const more = { add: add && values(add), eps: 1e-5, dweight: sums[0]?.slice() };
      const args = [values(dy), values(kept.x)] as const;
      const expected = rms
        ? rmsNormBackward(...args, rstd, weight, more)
        : layerNormBackward(...args, mean!, rstd, weight, { ...more, dbias: sums[1]?.slice() });
      const backward = () => norm.backward(dy, { out, add } as object) as Operand;
      if (kept.overwritten) {
        overwritten++;
        expect(backward, log).toThrow(kept.overwritten);
        continue;
      }
      const dx = backward();
      if (out instanceof Tensor) expect(dx, log).toBe(out);
      expect(values(dx), log).toEqual(as(dx, expected.dx));
      for (const [name, parameter] of norm.namedParameters()) {
        const i = name === "weight" ? 0 : 1;
        const { dweight, dbias } = expected as { dweight: Float32Array; dbias?: Float32Array };
        expect(parameter.grad, `${log}: ${name}`).toEqual(parameter.requiresGrad ? [dweight, dbias][i] : sums[i]);
      }
    }
    if (random(3) === 0) {
      // Another module writes to two of the Tensors.
      const [out, sum] = [pick(tensors), pick(tensors)];
      if (out === sum) continue;
      const other = (rms ? new RMSNorm(cols, { runtime }) : new LayerNorm(cols, { runtime })).eval();
      other.forward(sum, { residual: sum, sum, out });
      other.dispose();
      if (kept?.x === sum) kept.overwritten = new RegExp(`overwritten since, by sum of ${name}\\.forward`);
      if (kept?.x === out) kept.overwritten = new RegExp(`overwritten since, by out of ${name}\\.forward`);
    }
  }
  return { overwritten };
}

describe("in any order, on operands of all kinds, modules give what the functions give", () => {
  for (const rms of [false, true]) {
    for (const affine of [true, false]) {
      test(`${rms ? "RMSNorm" : "LayerNorm"}, elementwiseAffine: ${affine}`, () => {
        let overwritten = 0;
        for (let seed = 1; seed <= 12; seed++) overwritten += walk(seed, rms, affine).overwritten;
        expect(overwritten).toBeGreaterThan(3);
      });
    }
  }
});

describe("a Tensor that backward needs", () => {
  const runtime = Runtime.create();
  const tensor = (seed: number) => new Tensor([rows, cols], normal(size, seed), { runtime });
  const ln = () => new LayerNorm(cols, { runtime });

  test("and a later call has overwritten is an error that names the argument, the call and the cure", () => {
    const [n1, n2] = [ln(), ln()];
    const [x1, x2, h, d] = [tensor(1), tensor(2), tensor(3), tensor(4)];
    n1.forward(x1, { residual: h, sum: h });
    n2.forward(x2, { residual: h, sum: h });
    n1.zeroGrad();
    expect(() => n1.backward(n2.backward(d))).toThrow(
      new TypeError(
        "LayerNorm.backward: the x or sum of the last forward was overwritten since, by sum of LayerNorm.forward; give that call a sum of its own",
      ),
    );
    expect([...n1.weight.grad]).toEqual([...new Float32Array(cols)]);
    const sum = tensor(5);
    n1.forward(x1, { residual: h, sum });
    n2.forward(x2, { residual: sum, sum: h });
    expect(n1.backward(n2.backward(d)).size).toBe(size);
  });

  test("is noticed to be overwritten by functions, by backward and by calls without blocking", async () => {
    const { mean, rstd } = layerNormWithStats(tensor(1), cols);
    const writers: [string, (x: Tensor, other: Tensor) => unknown][] = [
      ["out of RMSNorm.forwardAsync", (x, a) => new RMSNorm(cols, { runtime }).forwardAsync(a, { out: x })],
      ["out of layerNormWithStats", (x, a) => layerNormWithStats(a, cols, null, null, 1e-5, { out: x })],
      ["out of layerNormBackward", (x, a) => layerNormBackward(a, tensor(2), mean, rstd, null, { out: x })],
    ];
    for (const [name, write] of writers) {
      const [module, x] = [ln(), tensor(6)];
      module.forward(x);
      await write(x, tensor(7));
      expect(() => module.backward(tensor(8)), name).toThrow(
        new RegExp(`by ${name}; give that call an out of its own`),
      );
      module.forward(x);
      expect(module.backward(tensor(8)).size).toBe(size);
    }
  });

  test("stays as it was where the call that would have written to it was refused", () => {
    const [module, x] = [ln(), tensor(1)];
    module.forward(x);
    expect(() => ln().forward(tensor(2), { out: x, residual: new Tensor([1], [1], { runtime }) })).toThrow(RangeError);
    expect(() => layerNorm(tensor(2), cols, null, null, -1, { out: x })).toThrow(RangeError);
    expect(module.backward(tensor(3)).size).toBe(size);
  });

  test("may be the weight, too", () => {
    const weight = new Tensor([cols], normal(cols, 1), { runtime });
    const module = new LayerNorm(cols, { weight });
    const x = normal(size, 2);
    module.forward(x);
    layerNorm(new Tensor([cols], normal(cols, 3), { runtime }), cols, null, null, 1e-5, { out: weight });
    expect(() => module.backward(x)).toThrow(/backward: weight was overwritten since, by out of layerNorm/);
  });

  test("is not x where a sum is kept: out may be x or residual", () => {
    for (const over of ["x", "residual"] as const) {
      const operands = { x: tensor(1), residual: tensor(2) };
      const [module, plain, sum] = [ln(), ln(), tensor(3)];
      const total = operands.x.data.map((value, i) => value + operands.residual.data[i]!);
      const y = module.forward(operands.x, { residual: operands.residual, sum, out: operands[over] });
      expect(y).toBe(operands[over]);
      expect(y.data).toEqual(plain.forward(total));
      expect(module.backward(tensor(4)).data).toEqual(plain.backward(normal(size, 4)));
    }
  });

  test("was disposed is said", () => {
    const [module, x] = [ln(), tensor(1)];
    module.forward(x);
    x.dispose();
    expect(() => module.backward(tensor(2))).toThrow(/backward: the x or sum of the last forward was disposed/);
  });
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

const ROW = [1, 2, 3, 4, 5, 6, 7, 9];
const DY = [2, -1, 0.5, 3, 1, -2, 4, 0];

/** dx of one row, where an operand of backward lies apart from the gradients. */
function expected(options: { add?: boolean } = {}): Float32Array {
  const norm = new LayerNorm(8);
  norm.forward(ROW);
  return norm.backward(DY, options.add ? { add: DY } : {});
}

/** Either an error before anything is written, or the right gradient. */
function refusedOr(right: Float32Array, compute: () => ArrayLike<number>): void {
  let got: ArrayLike<number> | undefined;
  try {
    got = compute();
  } catch (error) {
    expect(error).toBeInstanceOf(RangeError);
    return;
  }
  expect([...Float32Array.from(got)]).toEqual([...right]);
}

describe("backward of one row, whose operand lies in the gradient of a parameter", () => {
  test("dy in bias.grad", () => {
    const norm = new LayerNorm(8);
    norm.bias.grad.set(DY);
    norm.forward(ROW);
    refusedOr(expected(), () => norm.backward(norm.bias.grad));
  });

  test("dy in weight.grad", () => {
    const norm = new LayerNorm(8);
    norm.weight.grad.set(DY);
    norm.forward(ROW);
    refusedOr(expected(), () => norm.backward(norm.weight.grad));
  });

  test("add in bias.grad", () => {
    const norm = new LayerNorm(8);
    norm.bias.grad.set(DY);
    norm.forward(ROW);
    refusedOr(expected({ add: true }), () => norm.backward(Float32Array.from(DY), { add: norm.bias.grad }));
  });

  test("x, a Tensor over weight.grad", () => {
    const norm = new LayerNorm(8);
    norm.weight.grad.set(ROW);
    norm.forward(new Tensor([8], undefined, { pointer: norm.weight.grad.byteOffset }));
    refusedOr(expected(), () => norm.backward(new Tensor([8], DY)).data);
  });
});
