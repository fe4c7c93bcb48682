// x + residual and dx + add in one pass, the options of the functions, and parameters that are given.

import { describe, expect, expectTypeOf, test } from "vitest";
import {
  LayerNorm,
  type LayerNormOptions,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Parameter,
  type ResultOf,
  RMSNorm,
  Runtime,
  rmsNorm,
  rmsNormBackward,
  rmsNormWithStats,
  Tensor,
} from "../src/index.js";
import { normal } from "./helpers.js";

type Operand = Float32Array | Tensor;

const rows = 5;
const cols = 37;
const shape = [rows, cols];
const x = normal(rows * cols, 1);
const residual = normal(rows * cols, 2, 0.5, 3);
const dy = normal(rows * cols, 3);
const add = normal(rows * cols, 4);
const total = x.map((value, i) => value + (residual[i] as number));
const weight = normal(cols, 5);
const bias = normal(cols, 6);

const added = (dx: Float32Array) => dx.map((value, i) => value + (add[i] as number));
const tensor = (data: Float32Array) => new Tensor(shape, data);
const dataOf = (operand: Operand) => (operand instanceof Tensor ? operand.data.slice() : operand);

const NORMS = {
  LayerNorm: () => {
    const norm = new LayerNorm(cols);
    norm.loadStateDict({ weight, bias });
    return norm as LayerNorm | RMSNorm;
  },
  RMSNorm: () => {
    const norm = new RMSNorm(cols);
    norm.loadStateDict({ weight });
    return norm as LayerNorm | RMSNorm;
  },
};
const KINDS = {
  arrays: (data: Float32Array): Operand => data.slice(),
  Tensors: (data: Float32Array): Operand => tensor(data),
};

const cases = (["LayerNorm", "RMSNorm"] as const).flatMap((name) =>
  (["arrays", "Tensors"] as const).map((kind) => [name, kind] as const),
);

describe.each(cases)("%s.forward with a residual, on %s", (name, kind) => {
  const of = KINDS[kind];
  const expected = NORMS[name]().forward(total);

  test.each([true, false])("gives the bits of an addition and then the norm, training: %s", (training) => {
    const norm = NORMS[name]().train(training);
    const [a, b] = [of(x), of(residual)];
    expect(dataOf(norm.forward(a, { residual: b }))).toEqual(expected);
    const [sum, out] = [of(dy), of(dy)];
    expect(norm.forward(a, { residual: b, sum, out })).toBe(out);
    expect(dataOf(out)).toEqual(expected);
    expect(dataOf(sum)).toEqual(total);
    expect([dataOf(a), dataOf(b)]).toEqual([x, residual]);
  });

  test.each([true, false])("writes the sum over x or residual, training: %s", (training) => {
    const norm = NORMS[name]().train(training);
    for (const over of ["x", "residual"] as const) {
      const given = { x: of(x), residual: of(residual) };
      const y = norm.forward(given.x, { residual: given.residual, sum: given[over] });
      expect(dataOf(y)).toEqual(expected);
      expect(dataOf(given[over])).toEqual(total);
      const other = over === "x" ? "residual" : "x";
      expect(dataOf(given[other])).toEqual(other === "x" ? x : residual);
    }
  });

  test("writes out over x or residual in eval mode, with and without a sum", () => {
    const norm = NORMS[name]().eval();
    for (const over of ["x", "residual"] as const) {
      for (const sum of [undefined, of(dy)]) {
        const given = { x: of(x), residual: of(residual) };
        expect(norm.forward(given.x, { residual: given.residual, out: given[over], sum })).toBe(given[over]);
        expect(dataOf(given[over])).toEqual(expected);
        if (sum) expect(dataOf(sum)).toEqual(total);
      }
    }
  });

  test("writes the sum over one and out over the other in eval mode", () => {
    const [a, b] = [of(x), of(residual)];
    NORMS[name]().eval().forward(a, { residual: b, sum: b, out: a });
    expect([dataOf(a), dataOf(b)]).toEqual([expected, total]);
  });

  test("keeps the sum for backward", () => {
    const plain = NORMS[name]();
    plain.forward(total);
    const dx = plain.backward(dy);
    for (const sum of [undefined, of(x)]) {
      const norm = NORMS[name]();
      norm.forward(of(x), { residual: of(residual), sum });
      expect(dataOf(norm.backward(of(dy)))).toEqual(dx);
      expect(norm.weight.grad).toEqual(plain.weight.grad);
    }
  });

  test("takes no rows", () => {
    const none = new Float32Array(0);
    const of = (): Operand => (kind === "arrays" ? none : new Tensor([0, cols]));
    expect(dataOf(NORMS[name]().forward(of(), { residual: of(), sum: of() })).length).toBe(0);
  });

  test("refuses what doesn't fit, before anything is written", () => {
    const norm = NORMS[name]();
    const [a, b] = [of(x), of(residual)];
    const short = kind === "arrays" ? x.slice(cols) : new Tensor([rows - 1, cols]);
    const other = kind === "arrays" ? tensor(x) : x;
    const wrong: [object, RegExp][] = [
      [{ residual: short }, /residual has .* expected .*x/],
      [{ residual: other }, /residual is .*, expected a .*, as x is/],
      [{ residual: b, sum: short }, /sum has .*/],
      [{ residual: b, sum: other }, /sum is .*, expected a .*, as x is/],
      [{ residual: null }, /residual is null/],
      [{ sum: of(x) }, /sum is given without a residual/],
      [{ residual: b, sum: a, out: a }, /out overlaps sum/],
    ];
    if (kind === "Tensors") {
      wrong.push([{ out: a }, /out is x, which backward will need/]);
      wrong.push([{ residual: b, sum: norm.weight }, /sum has the shape/]);
    }
    for (const [options, message] of wrong) {
      expect(() => norm.forward(a, options as never), String(message)).toThrow(message);
    }
    expect([dataOf(a), dataOf(b)]).toEqual([x, residual]);
    expect(() => norm.backward(dy)).toThrow(/there was no forward/);
  });
});

describe.each(cases)("%s.backward with add, on %s", (name, kind) => {
  const of = KINDS[kind];
  const norm = NORMS[name]();
  norm.forward(x);
  const plain = norm.backward(dy);

  test("gives the bits of backward and then an addition, and the same gradients", () => {
    const once = norm.weight.grad.slice();
    const [a, b] = [of(dy), of(add)];
    norm.zeroGrad();
    expect(dataOf(norm.backward(a, { add: b }))).toEqual(added(plain));
    expect(norm.weight.grad).toEqual(once);
    expect([dataOf(a), dataOf(b)]).toEqual([dy, add]);
  });

  test("writes to out, which may be dy or add", () => {
    for (const over of ["dy", "add", "out"] as const) {
      const given = { dy: of(dy), add: of(add), out: of(x) };
      expect(norm.backward(given.dy, { add: given.add, out: given[over] })).toBe(given[over]);
      expect(dataOf(given[over])).toEqual(added(plain));
    }
  });

  test("refuses an add that doesn't fit", () => {
    const short = kind === "arrays" ? x.slice(cols) : new Tensor([rows - 1, cols]);
    const other = kind === "arrays" ? tensor(x) : x;
    expect(() => norm.backward(of(dy), { add: short as never })).toThrow(/add has .* expected .*dy/);
    expect(() => norm.backward(of(dy), { add: other as never })).toThrow(/add is .*, expected a .*, as dy is/);
  });
});

describe.each(["arrays", "Tensors"] as const)("the functions' options, on %s", (kind) => {
  const of = KINDS[kind];
  const w = normal(cols, 5);

  test("out, residual and sum are those of the modules", () => {
    for (const [name, call] of [
      ["LayerNorm", (a: Operand, options: object) => layerNorm(a, cols, weight, bias, 1e-5, options)],
      ["RMSNorm", (a: Operand, options: object) => rmsNorm(a, cols, weight, undefined, options)],
    ] as const) {
      const expected = NORMS[name]().forward(total);
      const [a, b, out] = [of(x), of(residual), of(dy)];
      expect(dataOf(call(a, { residual: b }))).toEqual(expected);
      expect(call(a, { residual: b, sum: b, out })).toBe(out);
      expect([dataOf(out), dataOf(b)]).toEqual([expected, total]);
      expect(call(a, { out: a })).toBe(a);
      expect(dataOf(a)).toEqual(NORMS[name]().forward(x));
    }
  });

  test("statistics with a residual are those of the sum", () => {
    const layer = layerNormWithStats(of(x), cols, w, null, 1e-5, { residual: of(residual) });
    const expectedLayer = layerNormWithStats(total, cols, w);
    expect([layer.y, layer.mean, layer.rstd].map(dataOf)).toEqual(Object.values({ ...expectedLayer }));
    const rms = rmsNormWithStats(of(x), cols, w, 1e-6, { residual: of(residual) });
    const expectedRms = rmsNormWithStats(total, cols, w, 1e-6);
    expect([rms.y, rms.rstd].map(dataOf)).toEqual([expectedRms.y, expectedRms.rstd]);
  });

  test("dweight and dbias that are given are added to and returned", () => {
    const { mean, rstd } = layerNormWithStats(x, cols, w);
    const fresh = layerNormBackward(dy, x, mean, rstd, w);
    const ofCols = (value: number) =>
      kind === "arrays" ? new Float32Array(cols).fill(value) : new Tensor([cols], new Float32Array(cols).fill(value));
    const [dweight, dbias, out] = [ofCols(2), ofCols(-3), of(x)];
    const result = layerNormBackward(of(dy), of(x), mean, rstd, w, { dweight, dbias, out, add: of(add), eps: 1e-5 });
    expect(result.dweight).toBe(dweight);
    expect(result.dbias).toBe(dbias);
    expect(result.dx).toBe(out);
    expect(dataOf(out)).toEqual(added(fresh.dx));
    expect(dataOf(dweight)).toEqual(fresh.dweight.map((value) => value + 2));
    expect(dataOf(dbias)).toEqual(fresh.dbias.map((value) => value - 3));
    const rms = rmsNormWithStats(x, cols, w);
    const freshRms = rmsNormBackward(dy, x, rms.rstd, w);
    const sum = ofCols(4);
    expect(rmsNormBackward(of(dy), of(x), rms.rstd, w, { dweight: sum }).dweight).toBe(sum);
    expect(dataOf(sum)).toEqual(freshRms.dweight.map((value) => value + 4));
  });

  test("an unknown one is an error", () => {
    const { mean, rstd } = layerNormWithStats(x, cols);
    const options = { dbais: 1 } as never;
    expect(() => layerNorm(of(x), cols, null, null, 1e-5, options)).toThrow(/"dbais" is not an option/);
    expect(() => layerNormBackward(of(dy), of(x), mean, rstd, null, options)).toThrow(/"dbais" is not an option/);
    expect(() => rmsNorm(of(x), cols, null, 1e-5, options)).toThrow(/"dbais" is not an option/);
    expect(() => rmsNormBackward(of(dy), of(x), rstd, null, { dbias: of(x) } as never)).toThrow(/"dbias" is not an/);
  });
});

describe("a weight and bias that are Tensors", () => {
  test("are used where they lie, and not freed by the module", () => {
    const [w, b] = [new Tensor([cols], weight), new Tensor([cols], bias)];
    const ln = new LayerNorm(cols, { weight: w, bias: b });
    expect([ln.weight.pointer, ln.bias.pointer]).toEqual([w.pointer, b.pointer]);
    expect(ln.forward(x)).toEqual(NORMS.LayerNorm().forward(x));
    w.data.fill(2);
    expect(ln.weight.data).toEqual(new Float32Array(cols).fill(2));
    ln.backward(dy);
    ln.dispose();
    expect([...w.data]).toEqual(new Array(cols).fill(2));
    expect(b.data).toEqual(bias);
    const rms = new RMSNorm(cols, { weight: w });
    expect(rms.forward(x)).toEqual(rmsNorm(x, cols, w));
    rms.dispose();
    expect(w.data.length).toBe(cols);
  });

  test("may be the Parameters of another module", () => {
    const { weight: shared } = NORMS.RMSNorm();
    const tied = new RMSNorm(cols, { weight: shared });
    expect(tied.weight).toBe(shared);
    tied.forward(x);
    tied.backward(dy);
    const grad = shared.grad.slice();
    tied.dispose();
    expect(shared.grad).toEqual(grad);
  });

  test("are of the module's runtime and shape", () => {
    const runtime = Runtime.create();
    const elsewhere = new Tensor([cols], weight, { runtime });
    expect(new LayerNorm(cols, { weight: elsewhere }).weight.runtime).toBe(runtime);
    expect(() => new LayerNorm(cols, { weight: elsewhere, bias: new Tensor([cols]) })).toThrow(/another runtime/);
    expect(() => new LayerNorm(cols, { weight: new Tensor([cols, 1]) })).toThrow(RangeError);
    expect(() => new LayerNorm(cols, { weight: weight as never })).toThrow(
      /weight is a Float32Array, expected a Tensor/,
    );
    for (const odd of [true, false, null, 1]) {
      expect(() => new LayerNorm(cols, { weight: odd as never })).toThrow(`weight is ${odd}, expected a Tensor`);
    }
    const none = { weight: new Tensor([cols]), elementwiseAffine: false };
    expect(() => new LayerNorm(cols, none)).toThrow(/elementwiseAffine/);
  });
});

test("the types tell which parameters there are, and what a call returns", () => {
  expectTypeOf(new LayerNorm(7).weight).toEqualTypeOf<Parameter>();
  expectTypeOf(new LayerNorm(7).bias).toEqualTypeOf<Parameter>();
  expectTypeOf(new LayerNorm(7, { bias: false }).bias).toEqualTypeOf<null>();
  expectTypeOf(new LayerNorm(7, { elementwiseAffine: false }).weight).toEqualTypeOf<null>();
  const options: { elementwiseAffine: boolean } = { elementwiseAffine: false };
  expectTypeOf(new LayerNorm(7, options).bias).toEqualTypeOf<Parameter | null>();
  const any: LayerNorm<LayerNormOptions>[] = [new LayerNorm(7), new LayerNorm(7, { bias: false })];
  expectTypeOf(any.map(({ bias }) => bias)).toEqualTypeOf<(Parameter | null)[]>();
  expectTypeOf(new RMSNorm(7).weight).toEqualTypeOf<Parameter>();
  expectTypeOf(new RMSNorm(7, { elementwiseAffine: false }).weight).toEqualTypeOf<null>();
  const generic = <T extends Operand>(norm: LayerNorm, operand: T): ResultOf<T> => norm.forward(operand);
  const y = generic(new LayerNorm(cols), x);
  expectTypeOf(y).toEqualTypeOf<typeof x>();
  expect(y).toEqual(new LayerNorm(cols).forward(x));
  expect(new LayerNorm(7).weight).toBeInstanceOf(Parameter);
  expect(new LayerNorm(7, { bias: false }).bias).toBeNull();
});
