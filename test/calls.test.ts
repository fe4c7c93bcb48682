// Calls of modules in any order, on operands of every kind and in every place, give what the functions give on copies.

import { describe, expect, test } from "vitest";
import type { Operand, Target } from "../src/index.js";
import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, RMSNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import { FAMILIES, type Family, floatsOf } from "./norms.js";

const rows = 3;
const cols = 35;
const size = rows * cols;
const Halves = (globalThis as unknown as { Float16Array?: Float32ArrayConstructor }).Float16Array;

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
function walk(seed: number, { name, make, withStats, backward }: Family, affine: boolean): { overwritten: number } {
  let state = seed;
  const random = (count: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const runtime = Runtime.create();
  const options = { runtime, elementwiseAffine: affine, eps: 1e-5 };
  const norm = make(cols, options);
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
      const [before, added] = [floatsOf(x), floatsOf(x)];
      if (residual) added.set(floatsOf(residual).map((value, i) => (before[i] as number) + value));
      const expected = withStats(added, cols, weight, bias, 1e-5);
      const y = norm.forward(x, { out, residual, sum } as object) as Operand;
      if (out instanceof Tensor) expect(y, log).toBe(out);
      expect(floatsOf(y), log).toEqual(as(y, expected.y));
      if (sum instanceof Tensor || sum?.length) expect(floatsOf(sum as Operand), log).toEqual(as(sum, added));
      if (norm.training) kept = { x: keptTensor instanceof Tensor ? keptTensor : added, stats: expected };
    } else {
      const dy = pick(readable);
      const add = maybe(readable);
      let out = maybe(writable);
      if (may(dy)) out = dy as Tensor;
      if (add && may(add)) out = add as Tensor;
      if (out && out === kept.x) continue;
      const sums = norm.parameters().map(({ grad }) => grad.slice());
      const [dweight, dbias] = sums.map((sum) => sum.slice());
      const more = { add: add && floatsOf(add), ...(dweight && { dweight }), ...(dbias && { dbias }) };
      const expected = backward(floatsOf(dy), floatsOf(kept.x), kept.stats, weight, more);
      const call = () => norm.backward(dy, { out, add } as object) as Operand;
      if (kept.overwritten) {
        overwritten++;
        expect(call, log).toThrow(kept.overwritten);
        continue;
      }
      const dx = call();
      if (out instanceof Tensor) expect(dx, log).toBe(out);
      expect(floatsOf(dx), log).toEqual(as(dx, expected.dx));
      for (const [i, { requiresGrad, grad }] of norm.parameters().entries()) {
        expect(grad, log).toEqual(requiresGrad ? [expected.dweight, expected.dbias][i] : sums[i]);
      }
    }
    if (random(3) === 0) {
      // Another module writes to two of the Tensors.
      const [out, sum] = [pick(tensors), pick(tensors)];
      if (out === sum) continue;
      using other = make(cols, { runtime }).eval();
      other.forward(sum, { residual: sum, sum, out });
      if (kept?.x === sum) kept.overwritten = new RegExp(`overwritten by ${name}\\.forward \\(sum\\)`);
      if (kept?.x === out) kept.overwritten = new RegExp(`overwritten by ${name}\\.forward \\(out\\)`);
    }
  }
  return { overwritten };
}

describe.each(FAMILIES)("in any order, on operands of all kinds, $name gives what its functions give", (family) => {
  test.each([true, false])("elementwiseAffine: %s", (affine) => {
    let overwritten = 0;
    for (let seed = 1; seed <= 12; seed++) overwritten += walk(seed, family, affine).overwritten;
    expect(overwritten).toBeGreaterThan(3);
  });
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
        "LayerNorm.backward: the x or sum of the last forward was overwritten by LayerNorm.forward (sum); give that call its own sum",
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
      ["RMSNorm.forwardAsync", (x, a) => new RMSNorm(cols, { runtime }).forwardAsync(a, { out: x })],
      ["layerNormWithStats", (x, a) => layerNormWithStats(a, cols, null, null, 1e-5, { out: x })],
      ["layerNormBackward", (x, a) => layerNormBackward(a, tensor(2), mean, rstd, null, { out: x })],
    ];
    for (const [name, write] of writers) {
      const [module, x] = [ln(), tensor(6)];
      module.forward(x);
      await write(x, tensor(7));
      expect(() => module.backward(tensor(8)), name).toThrow(`by ${name} (out); give that call its own out`);
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
    expect(() => module.backward(x)).toThrow(/backward: weight was overwritten by layerNorm \(out\)/);
  });

  test("was disposed is said", () => {
    const [module, x] = [ln(), tensor(1)];
    module.forward(x);
    x.dispose();
    expect(() => module.backward(tensor(2))).toThrow(/backward: the x or sum of the last forward was disposed/);
  });
});
