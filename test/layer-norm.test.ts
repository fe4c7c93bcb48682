import { describe, expect, expectTypeOf, test } from "vitest";
import { LayerNorm, layerNorm, Parameter, Runtime, Tensor } from "../src/index.js";
import { DISPOSE, normal } from "./helpers.js";
import { expectWithin } from "./within.js";

const rows = 6;
const cols = 35;
const x = normal(rows * cols, 1, 0.3, 2);
const dy = normal(rows * cols, 2);
const weight = normal(cols, 3);
const bias = normal(cols, 4);
const input = { x, dy, weight, bias, rows, cols, eps: 1e-5 };

function make(options = {}): LayerNorm {
  const ln = new LayerNorm(cols, options);
  ln.loadStateDict({ weight, bias });
  return ln;
}

describe("new LayerNorm", () => {
  test("is ready at once, as PyTorch's: weight 1, bias 0, eps 1e-5, training", () => {
    const ln = new LayerNorm(3);
    expect(ln.normalizedShape).toEqual([3]);
    expect(ln.eps).toBe(1e-5);
    expect(ln.training).toBe(true);
    expect(ln.weight).toBeInstanceOf(Parameter);
    expect([...ln.weight!.data]).toEqual([1, 1, 1]);
    expect([...ln.bias!.data]).toEqual([0, 0, 0]);
    expect([...ln.weight!.grad]).toEqual([0, 0, 0]);
  });

  test("takes a list of dimensions, and options", () => {
    expect(new LayerNorm([5, 7]).weight!.shape).toEqual([5, 7]);
    const plain = new LayerNorm([7], { elementwiseAffine: false });
    expect([plain.weight, plain.bias]).toEqual([null, null]);
    const noBias = new LayerNorm(7, { bias: false, eps: 0 });
    expect(noBias.weight!.size).toBe(7);
    expect(noBias.bias).toBeNull();
    expect(noBias.eps).toBe(0);
  });

  test.each([
    [["8" as never], TypeError, 'LayerNorm: normalizedShape is "8", expected a positive integer or a list of them'],
    [
      [undefined as never],
      TypeError,
      "LayerNorm: normalizedShape is undefined, expected a positive integer or a list of them",
    ],
    [[0], RangeError, "LayerNorm: normalizedShape is [0], expected integers of 1 or more"],
    [[[]], RangeError, "LayerNorm: normalizedShape is [], expected at least one dimension"],
    [[[2, 1.5]], RangeError, "LayerNorm: normalizedShape is [2, 1.5], expected integers of 1 or more"],
    [[[2, null as never]], TypeError, "LayerNorm: normalizedShape is [2, null], expected a list of integers"],
    [[3, { eps: -1 }], RangeError, "LayerNorm: eps is -1, expected a finite number of 0 or more"],
    [[3, { eps: Infinity }], RangeError, "LayerNorm: eps is Infinity, expected a finite number of 0 or more"],
    [[3, { eps: NaN }], RangeError, "LayerNorm: eps is NaN, expected a finite number of 0 or more"],
    [[3, { eps: "1e-5" as never }], TypeError, 'LayerNorm: eps is "1e-5", expected a number'],
    [[3, { elementwiseAffine: 0 as never }], TypeError, "LayerNorm: elementwiseAffine is 0, expected true or false"],
    [[3, { bias: null as never }], TypeError, "LayerNorm: bias is null, expected true or false"],
    [[3, { runtime: null as never }], TypeError, "LayerNorm: runtime is null, expected a Runtime"],
  ] as const)("refuses arguments that don't fit: %#", (args, kind, message) => {
    expect(() => new LayerNorm(...(args as unknown as ConstructorParameters<typeof LayerNorm>))).toThrow(
      new kind(message),
    );
  });

  test("without room takes no memory", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    for (let i = 0; i < 5; i++) expect(() => new LayerNorm(5000, { runtime })).toThrow(/no room for 20000 bytes/);
    expect(new Tensor([12000], undefined, { runtime }).size).toBe(12000);
  });
});

describe("forward", () => {
  test("gives a new array for an array", () => {
    const y = make().forward(x);
    expectTypeOf(y).toExtend<Float32Array>();
    expect(y).toBeInstanceOf(Float32Array);
    expectWithin({ y }, input);
    expect(x).toEqual(normal(rows * cols, 1, 0.3, 2));
  });

  test("gives a new Tensor of the same shape for a Tensor, with the same bits", () => {
    const ln = make();
    const t = new Tensor([2, 3, 35], x);
    const y = ln.forward(t);
    expectTypeOf(y).toEqualTypeOf<Tensor>();
    expect(y).not.toBe(t);
    expect(y.shape).toEqual([2, 3, 35]);
    expect(y.data).toEqual(ln.forward(x));
    expect(new LayerNorm([3, 35]).forward(t).data).toEqual(new LayerNorm(105).forward(x));
  });

  test("gives the same bits in training and in eval mode", () => {
    const ln = make();
    expect(ln.forward(x)).toEqual(make().eval().forward(x));
  });

  test("takes a batch without rows", () => {
    const ln = make();
    expect(ln.forward(new Float32Array(0)).length).toBe(0);
    expect(ln.backward(new Float32Array(0)).length).toBe(0);
    expect(ln.forward(new Tensor([2, 0, 35])).shape).toEqual([2, 0, 35]);
    expect(ln.backward(new Tensor([2, 0, 35])).shape).toEqual([2, 0, 35]);
    expect([...ln.weight!.grad]).toEqual([...new Float32Array(cols)]);
  });

  test("writes to out and returns it", () => {
    const ln = make();
    const expected = ln.forward(x);
    const array = new Float32Array(x.length);
    expect(ln.forward(x, { out: array })).toBe(array);
    expect(array).toEqual(expected);
    const t = new Tensor([6, 35], x);
    const out = new Tensor([6, 35]);
    expect(ln.forward(t, { out })).toBe(out);
    expect(out.data).toEqual(expected);
    const view = new Tensor([7, 30]).data;
    expect(ln.forward(x, { out: view })).toBe(view);
    expect(view).toEqual(expected);
  });

  test("writes in place in eval mode", () => {
    const ln = make().eval();
    const expected = ln.forward(x);
    const array = x.slice();
    expect(ln.forward(array, { out: array })).toBe(array);
    expect(array).toEqual(expected);
    const t = new Tensor([6, 35], x);
    expect(ln.forward(t, { out: t })).toBe(t);
    expect(t.data).toEqual(expected);
  });

  test("writes in place over an array in training mode too: backward has its own copy", () => {
    const ln = make();
    const apart = make();
    apart.forward(x);
    const array = x.slice();
    ln.forward(array, { out: array });
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
  });

  test("takes views of its own memory, for x and for out, while the memory grows", () => {
    const runtime = Runtime.create();
    const ln = new LayerNorm(1000, { runtime });
    const t = new Tensor([400, 1000], normal(400_000, 5), { runtime });
    const target = new Tensor([400, 1000], undefined, { runtime });
    const expected = new LayerNorm(1000).forward(t.data);
    const before = runtime.memory.buffer;
    const y = ln.forward(t.data, { out: target.data });
    expect(runtime.memory.buffer).not.toBe(before);
    // toEqual takes seconds for so many.
    expect([y, target.data].map((got) => got.findIndex((value, i) => value !== expected[i]))).toEqual([-1, -1]);
  });

  test.each([
    [[["1"] as never], TypeError, 'LayerNorm.forward: x has "1" at 0, expected a flat list of numbers'],
    [[x, { out: [0] as never }], TypeError, "LayerNorm.forward: out is [0], expected a Float32Array or a Tensor"],
    [[new Float32Array(1000)], RangeError, "LayerNorm.forward: x has 1000 elements, expected a multiple of 35"],
    [[new Tensor([35, 6])], RangeError, "LayerNorm.forward: x has the shape [35, 6], expected [..., 35]"],
    [[new Tensor([])], RangeError, "LayerNorm.forward: x has the shape [], expected [..., 35]"],
    [[x, { out: new Float32Array(35) }], RangeError, "LayerNorm.forward: out has 35 elements, expected 210, as x has"],
    [
      [x, { out: new Tensor([6, 35]) as never }],
      TypeError,
      "LayerNorm.forward: out is a Tensor, expected a Float32Array, as x is",
    ],
    [[x, { out: 1 as never }], TypeError, "LayerNorm.forward: out is 1, expected a Float32Array or a Tensor"],
    [
      [new Tensor([6, 35]), { out: new Tensor([2, 3, 35]) }],
      RangeError,
      "LayerNorm.forward: out has the shape [2, 3, 35], expected that of x, [6, 35]",
    ],
    [
      [new Tensor([35], undefined, { runtime: Runtime.create() })],
      TypeError,
      "LayerNorm.forward: x belongs to another runtime",
    ],
  ] as const)("refuses arguments that don't fit, and changes nothing: %#", (args, kind, message) => {
    const ln = make();
    ln.forward(x);
    expect(() => (ln.forward as (...args: unknown[]) => unknown)(...args)).toThrow(new kind(message));
    const apart = make();
    apart.forward(x);
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
    expect(ln.stateDict()).toEqual({ weight, bias });
  });

  test("may be called by a getter among its own options", () => {
    for (const ln of [new LayerNorm(cols), new LayerNorm(cols).eval()]) {
      const inner = ln.forward(x.map((value) => -value));
      let again: Float32Array | undefined;
      const y = ln.forward(x, {
        get out() {
          again = ln.forward(x.map((value) => -value));
          return new Float32Array(x.length);
        },
      });
      expect(again).toEqual(inner);
      expect(y).toEqual(new LayerNorm(cols).forward(x));
    }
  });

  test("after a call that failed is as before", () => {
    for (const ln of [new LayerNorm(cols), new LayerNorm(cols).eval()]) {
      const t = new Tensor([rows, cols], x);
      const y = ln.forward(t);
      const expected = y.data.slice();
      expect(() => ln.forward(x, { residual: x, sum: x.subarray(1), out: x })).toThrow(RangeError);
      expect(() => ln.forward(t, { residual: t, out: new Tensor([1]) })).toThrow(RangeError);
      expect(y.data).toEqual(expected); // the result of the call before is not freed
      expect(ln.forward(t).data).toEqual(expected);
      expect(ln.forward(x)).toEqual(expected);
    }
  });

  test("refuses an out that overlaps what it must not", () => {
    const runtime = Runtime.create();
    const ln = make({ runtime });
    const t = new Tensor([6, 35], x, { runtime });
    const at = (pointer: number, shape: number[]) => new Tensor(shape, undefined, { runtime, pointer });
    const alias = at(t.pointer, [6, 35]);
    expect(() => ln.forward(t, { out: alias })).toThrow(/out is x, which backward will need/);
    expect(() => ln.forward(t, { out: at(t.pointer + 140, [6, 35]) })).toThrow(
      new RangeError("LayerNorm.forward: out overlaps x"),
    );
    const row = at(t.pointer, [35]);
    expect(() => ln.forward(row, { out: ln.weight! })).toThrow(
      new RangeError("LayerNorm.forward: out overlaps weight"),
    );
    expect(() => ln.forward(row, { out: ln.bias! })).toThrow(new RangeError("LayerNorm.forward: out overlaps bias"));
    expect(t.data).toEqual(x);
    expect(ln.stateDict()).toEqual({ weight, bias });
    const dyTensor = new Tensor([6, 35], dy, { runtime });
    ln.forward(t);
    expect(() => ln.backward(dyTensor, { out: t })).toThrow(new RangeError("LayerNorm.backward: out overlaps x"));
    expect(() => ln.backward(dyTensor, { out: at(dyTensor.pointer + 4, [6, 35]) })).toThrow(/out overlaps dy/);
    for (const [name, data] of [
      ["weight", ln.weight!.data],
      ["weight.grad", ln.weight!.grad],
      ["bias", ln.bias!.data],
      ["bias.grad", ln.bias!.grad],
    ] as const) {
      const last = at(data.byteOffset + data.byteLength - 4, [6, 35]);
      expect(() => ln.backward(dyTensor, { out: last }), name).toThrow(/^LayerNorm.backward: out overlaps/);
    }
    const add = new Tensor([6, 35], dy, { runtime });
    expect(() => ln.backward(dyTensor, { add, out: at(add.pointer + 4, [6, 35]) })).toThrow(
      new RangeError("LayerNorm.backward: out overlaps add"),
    );
    const apart = make();
    apart.forward(x);
    expect(ln.backward(dyTensor).data).toEqual(apart.backward(dy));
    ln.eval();
    const residual = new Tensor([6, 35], x, { runtime });
    expect(() => ln.forward(t, { residual, out: at(residual.pointer + 4, [6, 35]) })).toThrow(
      new RangeError("LayerNorm.forward: out overlaps residual"),
    );
    expect(ln.forward(t, { residual, out: residual })).toBe(residual);
    expect(ln.forward(t, { out: alias })).toBe(alias);
  });

  test("takes an out that ends where x begins or begins where x ends, and none that is nearer", () => {
    const runtime = Runtime.create();
    const ln = make({ runtime }).eval();
    const block = new Tensor([3 * cols], undefined, { runtime });
    const at = (index: number) => new Tensor([cols], undefined, { runtime, pointer: block.pointer + index * 4 });
    for (const index of [0, 70]) expect(ln.forward(at(35), { out: at(index) }).pointer).toBe(at(index).pointer);
    for (const index of [1, 34, 36, 69]) {
      expect(() => ln.forward(at(35), { out: at(index) })).toThrow(new RangeError("LayerNorm.forward: out overlaps x"));
    }
  });

  test("takes only an out of as many dimensions", () => {
    const ln = new LayerNorm(1);
    expect(() => ln.forward(new Tensor([3, 4, 1]), { out: new Tensor([3, 4]) })).toThrow(
      new RangeError("LayerNorm.forward: out has the shape [3, 4], expected that of x, [3, 4, 1]"),
    );
  });

  test("refuses a view of memory that has grown since", () => {
    const runtime = Runtime.create();
    const ln = make({ runtime });
    const stale = new Tensor([35], undefined, { runtime }).data;
    runtime.memory.grow(1);
    expect(() => ln.forward(stale)).toThrow(
      new TypeError("LayerNorm.forward: x is a detached view: the memory has grown since; take the tensor's data anew"),
    );
    expect(() => ln.loadStateDict({ weight: stale, bias })).toThrow(/weight is a detached view/);
  });

  test("refuses options it does not know, also where an array is given for them", () => {
    const ln = make();
    expect(() => ln.forward(x, x as never)).toThrow(
      new TypeError('LayerNorm.forward: "0" is not an option, expected out, residual, sum'),
    );
    expect(() => ln.forward(x, null as never)).toThrow(
      new TypeError("LayerNorm.forward: options is null, expected an object"),
    );
    expect(() => new LayerNorm(3, 1e-6 as never)).toThrow(
      new TypeError("LayerNorm: options is 0.000001, expected an object"),
    );
    expect(() => new LayerNorm(3, { epsilon: 1 } as never)).toThrow(
      new TypeError('LayerNorm: "epsilon" is not an option, expected eps, bias, elementwiseAffine, weight, runtime'),
    );
  });

  test("refuses to write a Tensor in place in training mode", () => {
    const t = new Tensor([35], x.subarray(0, 35));
    expect(() => make().forward(t, { out: t })).toThrow(
      new RangeError("LayerNorm.forward: out is x, which backward will need; give another out, or call eval() first"),
    );
    expect(t.data).toEqual(x.subarray(0, 35));
  });
});

describe("backward", () => {
  test("gives dx and adds to the gradients", () => {
    const ln = make();
    ln.forward(x);
    const dx = ln.backward(dy);
    expectTypeOf(dx).toExtend<Float32Array>();
    expectWithin({ dx, dweight: ln.weight!.grad, dbias: ln.bias!.grad }, input);
  });

  test("adds again when called again, until zeroGrad", () => {
    const ln = make();
    ln.forward(x);
    const first = ln.backward(dy);
    const before = { dweight: ln.weight!.grad.slice(), dbias: ln.bias!.grad.slice() };
    expect(ln.backward(dy)).toEqual(first);
    expectWithin({ dweight: ln.weight!.grad, dbias: ln.bias!.grad }, input, { before });
    ln.zeroGrad();
    expect([...ln.weight!.grad, ...ln.bias!.grad].every((value) => value === 0)).toBe(true);
    ln.backward(dy);
    expect(ln.bias!.grad).toEqual(before.dbias);
  });

  test("is of the kind of dy, whatever x was, with the same bits", () => {
    const ln = make();
    const t = new Tensor([2, 3, 35], x);
    ln.forward(x);
    const expected = ln.backward(dy);
    const ofTensor = ln.backward(new Tensor([6, 35], dy));
    expectTypeOf(ofTensor).toEqualTypeOf<Tensor>();
    expect(ofTensor.shape).toEqual([6, 35]);
    expect(ofTensor.data).toEqual(expected);
    ln.forward(t);
    expect(ln.backward(new Tensor([2, 3, 35], dy)).data).toEqual(expected);
    expect(ln.backward(dy)).toEqual(expected);
  });

  test("writes to out, which may be dy", () => {
    const ln = make();
    ln.forward(x);
    const expected = ln.backward(dy);
    const array = dy.slice();
    expect(ln.backward(array, { out: array })).toBe(array);
    expect(array).toEqual(expected);
    const t = new Tensor([6, 35], dy);
    expect(ln.backward(t, { out: t })).toBe(t);
    expect(t.data).toEqual(expected);
    const out = new Float32Array(dy.length);
    expect(ln.backward(dy, { out })).toBe(out);
    expect(out).toEqual(expected);
  });

  test("works without weight and bias", () => {
    const ln = new LayerNorm(cols, { elementwiseAffine: false });
    ln.forward(x);
    expectWithin({ dx: ln.backward(dy) }, { ...input, weight: null });
    const noBias = new LayerNorm(cols, { bias: false });
    noBias.forward(x);
    noBias.backward(dy);
    expectWithin({ dweight: noBias.weight!.grad }, input);
  });

  test("leaves the gradient of a parameter alone that does not require it", () => {
    const all = make();
    all.forward(x);
    const dx = all.backward(dy);
    for (const frozen of ["weight", "bias"] as const) {
      const other = frozen === "weight" ? "bias" : "weight";
      const ln = make();
      ln[frozen]!.requiresGrad = false;
      ln.forward(x);
      expect(ln.backward(dy)).toEqual(dx);
      expect(ln[frozen]!.grad.every((value) => value === 0)).toBe(true);
      expect(ln[other]!.grad).toEqual(all[other]!.grad);
    }
  });

  test("holds when the memory has grown since forward", () => {
    const runtime = Runtime.create();
    const ln = make({ runtime });
    ln.forward(x);
    runtime.memory.grow(3);
    const apart = make();
    apart.forward(x);
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
    expect(ln.weight!.grad).toEqual(apart.weight!.grad);
  });

  test("is of the last forward, whatever sizes came before", () => {
    const ln = make();
    for (const count of [1, 4, 2, 6]) ln.forward(dy.slice(0, count * cols));
    ln.forward(x);
    const apart = make();
    apart.forward(x);
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
  });

  test.each([
    ["both gradients", {}],
    ["that of the weight", { frozen: "bias" as const }],
    ["that of the bias", { frozen: "weight" as const }],
  ])("sums many rows in double for %s", (_, { frozen }: { frozen?: "weight" | "bias" }) => {
    const many = 130;
    const ln = new LayerNorm(2, { eps: 0 });
    if (frozen) ln[frozen]!.requiresGrad = false;
    ln.forward(Float32Array.from({ length: 2 * many }, (_, i) => 2 * (i % 2)));
    const far = new Float32Array(2 * many);
    far
      .fill(2 ** 24, 0, 2)
      .fill(1, 128, 130)
      .fill(-(2 ** 24), 258);
    ln.backward(far);
    expect([...ln.weight!.grad]).toEqual(frozen === "weight" ? [0, 0] : [-1, 1]);
    expect([...ln.bias!.grad]).toEqual(frozen === "bias" ? [0, 0] : [1, 1]);
  });

  test("before any forward, in eval mode, or after it, is an error that says so", () => {
    const ln = make();
    const never = new TypeError("LayerNorm.backward: there was no forward in training mode before it");
    expect(() => ln.backward(dy)).toThrow(never);
    ln.eval().forward(x);
    expect(() => ln.backward(dy)).toThrow(
      new TypeError("LayerNorm.backward: in eval mode, which keeps nothing for backward; call train() first"),
    );
    ln.forward(new Tensor([6, 35], x));
    ln.train();
    expect(() => ln.backward(dy)).toThrow(never);
    ln.forward(x);
    ln.eval().train();
    expect(() => ln.backward(dy)).toThrow(never);
  });

  test.each([
    [[new Float32Array(35)], RangeError, "LayerNorm.backward: dy has 35 elements, expected 210, as the last x has"],
    [
      [new Tensor([7, 35])],
      RangeError,
      "LayerNorm.backward: dy has the shape [7, 35], expected that of the last x, [6, 35]",
    ],
    [[new Tensor([35, 6])], RangeError, "LayerNorm.backward: dy has the shape [35, 6], expected [..., 35]"],
    [["dy"], TypeError, 'LayerNorm.backward: dy is "dy", expected a Float32Array or a Tensor'],
    [[dy, { out: new Float32Array(2) }], RangeError, "LayerNorm.backward: out has 2 elements, expected 210, as dy has"],
  ])("refuses a dy or out that doesn't fit, and changes no gradient: %#", (args, kind, message) => {
    const ln = make();
    ln.forward(new Tensor([6, 35], x));
    expect(() => (ln.backward as (...args: unknown[]) => unknown)(...args)).toThrow(new kind(message));
    expect(ln.weight!.grad.every((value) => value === 0)).toBe(true);
  });

  test("after the x it needs was disposed is an error that says so", () => {
    const ln = make();
    const t = new Tensor([6, 35], x);
    ln.forward(t);
    t.dispose();
    expect(() => ln.backward(dy)).toThrow(
      new TypeError("LayerNorm.backward: the x or sum of the last forward was disposed"),
    );
  });
});

describe("modes and parameters", () => {
  test("train and eval return the module", () => {
    const ln = new LayerNorm(2);
    expect(ln.eval()).toBe(ln);
    expect(ln.training).toBe(false);
    expect(ln.train()).toBe(ln);
    expect(ln.training).toBe(true);
    expect(ln.train(false).training).toBe(false);
    expect(() => ln.train("yes" as never)).toThrow(
      new TypeError('LayerNorm.train: mode is "yes", expected true or false'),
    );
  });

  test("train in training mode keeps what backward needs", () => {
    const ln = make();
    ln.forward(x);
    const expected = ln.backward(dy);
    expect(ln.train().backward(dy)).toEqual(expected);
  });

  test("parameters and namedParameters give what there is", () => {
    const ln = new LayerNorm(2);
    expect(ln.parameters()).toEqual([ln.weight, ln.bias]);
    expect(ln.namedParameters()).toEqual([
      ["weight", ln.weight],
      ["bias", ln.bias],
    ]);
    expect(new LayerNorm(2, { bias: false }).parameters().length).toBe(1);
    expect(new LayerNorm(2, { elementwiseAffine: false }).parameters()).toEqual([]);
  });

  test("what is written to a parameter's data is used", () => {
    const ln = new LayerNorm(cols);
    ln.weight!.data.set(weight);
    ln.bias!.data.set(bias);
    expect(ln.forward(x)).toEqual(layerNorm(x, cols, weight, bias));
  });

  test("weight and bias cannot be replaced, only written to", () => {
    const ln = new LayerNorm(2) as unknown as { weight: unknown };
    expect(() => {
      ln.weight = new Float32Array(2);
    }).toThrow(TypeError);
  });

  test("resetParameters sets ones and zeros", () => {
    const ln = make();
    ln.resetParameters();
    expect(ln.stateDict()).toEqual(new LayerNorm(cols).stateDict());
    const plain = new LayerNorm(cols, { elementwiseAffine: false });
    plain.resetParameters();
    expect(plain.stateDict()).toEqual({});
  });
});

describe("state dicts", () => {
  test("stateDict gives copies", () => {
    const ln = make();
    const dict = ln.stateDict();
    expect(dict).toEqual({ weight, bias });
    dict.weight![0] = 99;
    expect(ln.weight!.data[0]).toBe(weight[0]);
    expect(new LayerNorm(2, { bias: false }).stateDict()).toEqual({ weight: new Float32Array([1, 1]) });
    expect(new LayerNorm(2, { elementwiseAffine: false }).stateDict()).toEqual({});
  });

  test.each([
    ["weight and bias", { weight, bias }],
    ["gamma and beta", { gamma: weight, beta: bias }],
    ["scale and bias", { scale: weight, bias }],
    ["scale and offset", { scale: weight, offset: bias }],
    ["gamma:0 and beta:0", { "gamma:0": weight, "beta:0": bias }],
    ["g and b", { g: weight, b: bias }],
    ["a_2 and b_2", { a_2: weight, b_2: bias }],
    ["lists of numbers", { weight: [...weight], bias: [...bias] }],
    ["Tensors", { weight: new Tensor([35], weight), bias: new Tensor([5, 7], bias) }],
    ["undefined for what is absent", { weight: undefined, gamma: weight, bias, beta: undefined }],
  ])("loadStateDict takes %s", (_, dict) => {
    const ln = new LayerNorm(cols);
    expect(ln.loadStateDict(dict)).toEqual({ missingKeys: [], unexpectedKeys: [] });
    expect(ln.stateDict()).toEqual({ weight, bias });
  });

  test("loadStateDict takes another module's stateDict, and its own live data crosswise", () => {
    const ln = new LayerNorm(cols);
    ln.loadStateDict(make().stateDict());
    ln.loadStateDict({ weight: ln.bias!.data, bias: ln.weight!.data });
    expect(ln.stateDict()).toEqual({ weight: bias, bias: weight });
  });

  test.each([
    [{ weight }, RangeError, "LayerNorm.loadStateDict: bias or beta or beta:0 or offset or b or b_2 is missing"],
    [
      {},
      RangeError,
      "LayerNorm.loadStateDict: weight or gamma or gamma:0 or scale or g or a_2 is missing, bias or beta or beta:0 or offset or b or b_2 is missing",
    ],
    [{ weight, bias, extra: bias }, RangeError, 'LayerNorm.loadStateDict: "extra" is unknown'],
    [{ weight, gamma: weight, bias }, RangeError, 'LayerNorm.loadStateDict: "gamma" is unknown'],
    [{ weight: bias, bias: bias.slice(1) }, RangeError, "LayerNorm.loadStateDict: bias has 34 elements, expected 35"],
    [
      { weight: bias, bias: "0" },
      TypeError,
      'LayerNorm.loadStateDict: bias is "0", expected an array of floats, a list of numbers, a Tensor or { dtype, data }',
    ],
    [null, TypeError, "LayerNorm.loadStateDict: dict is null, expected an object of arrays"],
    ["weight", TypeError, 'LayerNorm.loadStateDict: dict is "weight", expected an object of arrays'],
  ])("loadStateDict refuses what doesn't fit, and changes nothing: %#", (dict, kind, message) => {
    const ln = make();
    expect(() => ln.loadStateDict(dict as never)).toThrow(new kind(message));
    expect(ln.stateDict()).toEqual({ weight, bias });
  });

  test("loadStateDict lists ten unknown names and counts the others", () => {
    const names = Array.from({ length: 3000 }, (_, i) => `layer.${i}`);
    const dict = Object.fromEntries(["weight", "bias", ...names].map((name) => [name, weight]));
    const listed = names.slice(0, 10).map((name) => `"${name}" is unknown`);
    const load = (dict: object) => () => make().loadStateDict(dict as never);
    expect(load(dict)).toThrow(new RangeError(`LayerNorm.loadStateDict: ${listed.join(", ")} and 2,990 more`));
    const ten = Object.fromEntries(Object.entries(dict).slice(0, 12));
    expect(load(ten)).toThrow(new RangeError(`LayerNorm.loadStateDict: ${listed.join(", ")}`));
  });

  test("loadStateDict refuses a disposed Tensor, and changes nothing", () => {
    const ln = make();
    const gone = new Tensor([35], weight);
    gone.dispose();
    expect(() => ln.loadStateDict({ weight: bias, bias: gone })).toThrow(
      new TypeError("LayerNorm.loadStateDict: bias was disposed"),
    );
    expect(ln.stateDict()).toEqual({ weight, bias });
  });

  test("loadStateDict refuses options that don't fit", () => {
    const load = (options: unknown) => () => make().loadStateDict({ weight, bias }, options as never);
    expect(load({ strict: 1 })).toThrow(new TypeError("LayerNorm.loadStateDict: strict is 1, expected true or false"));
    expect(load({ stict: false })).toThrow(
      new TypeError('LayerNorm.loadStateDict: "stict" is not an option, expected strict, prefix'),
    );
  });

  test("loadStateDict, not strict, loads what fits and reports the rest", () => {
    const ln = new LayerNorm(cols);
    const result = ln.loadStateDict({ gamma: weight, extra: bias }, { strict: false });
    expect(result).toEqual({ missingKeys: ["bias"], unexpectedKeys: ["extra"] });
    expect(ln.weight!.data).toEqual(weight);
    expect(() => ln.loadStateDict({ weight: [1] }, { strict: false })).toThrow(RangeError);
  });
});

describe("memory", () => {
  test("a module disposed gives all of it back", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    const largest = () => {
      for (let size = 16384; ; size--) {
        try {
          new Tensor([size], undefined, { runtime }).dispose();
          return size;
        } catch {}
      }
    };
    const before = largest();
    const ln = new LayerNorm(cols, { runtime });
    ln.forward(x);
    const t = new Tensor([6, 35], x, { runtime });
    ln.forward(t).dispose();
    ln.backward(t).dispose();
    expect(largest()).toBeLessThan(before);
    t.dispose();
    ln.dispose();
    expect(largest()).toBe(before);
  });

  test("dispose twice is harmless, use afterwards is an error", () => {
    const affine = make();
    for (const ln of [affine, new LayerNorm(cols, { elementwiseAffine: false })]) {
      ln.dispose();
      ln.dispose();
      ln[DISPOSE]();
      for (const use of [
        () => ln.forward(x),
        () => ln.backward(dy),
        () => ln.train(),
        () => ln.parameters(),
        () => ln.zeroGrad(),
        () => ln.resetParameters(),
        () => ln.stateDict(),
        () => ln.loadStateDict({ weight, bias }),
      ]) {
        expect(use).toThrow(new TypeError("LayerNorm: used after it was disposed"));
      }
    }
    expect(() => affine.weight!.data).toThrow(new TypeError("Tensor: used after it was disposed"));
    expect(() => affine.bias!.grad).toThrow(new TypeError("Tensor: used after it was disposed"));
  });

  test("after a single parameter was disposed every use is an error, and changes nothing", () => {
    const ln = make();
    ln.forward(x);
    ln.backward(dy);
    const grad = ln.weight!.grad.slice();
    ln.bias!.dispose();
    for (const use of [
      () => ln.forward(x),
      () => ln.zeroGrad(),
      () => ln.resetParameters(),
      () => ln.loadStateDict({ weight: bias, bias }),
    ]) {
      expect(use).toThrow(new TypeError("LayerNorm: used after a parameter of it was disposed"));
    }
    expect(ln.weight!.data).toEqual(weight);
    expect(ln.weight!.grad).toEqual(grad);
    ln.dispose();
  });

  test("a parameter whose gradient went with the module that made it gets none, and an error says so", () => {
    const a = new LayerNorm(cols, { weight: new Tensor([cols], weight), bias: false });
    const b = new LayerNorm(cols, { weight: a.weight });
    const out = b.forward(x);
    b.backward(dy);
    const before = b.bias.grad.slice();
    a.dispose();
    expect(b.forward(x)).toEqual(out);
    expect(() => b.backward(dy)).toThrow(/gradient of a parameter was disposed/);
    expect(b.bias.grad).toEqual(before);
    expect(() => b.zeroGrad()).toThrow(/disposed/);
  });

  test("out of memory in forward or backward leaves all as before", () => {
    const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });
    const ln = make({ runtime });
    ln.forward(x);
    const big = new Float32Array(300 * cols);
    for (let i = 0; i < 5; i++) {
      expect(() => ln.forward(big)).toThrow(/out of memory, no room for 42\d\d\d bytes/);
    }
    const free: Tensor[] = [];
    for (let size = 8192; size >= 1; size = size > 64 ? size / 2 : size - 1) {
      try {
        for (;;) free.push(new Tensor([size], undefined, { runtime }));
      } catch {}
    }
    for (let i = 0; i < 5; i++) {
      expect(() => ln.backward(dy)).toThrow(/out of memory/);
      expect(() => ln.forward(x)).toThrow(/out of memory/);
    }
    expect(ln.weight!.grad.every((value) => value === 0)).toBe(true);
    for (const tensor of free) tensor.dispose();
    const apart = make();
    apart.forward(x);
    expect(ln.stateDict()).toEqual({ weight, bias });
    expect(ln.backward(dy)).toEqual(apart.backward(dy));
  });
});

test.each([{ elementwiseAffine: false }, { bias: false }])("backward writes to an out with %o", (options) => {
  using ln = new LayerNorm(3, options);
  using xTensor = new Tensor([2, 3], [1, 2, 4, 3, 5, 1]);
  using dyTensor = new Tensor([2, 3], [1, 0, 2, 3, 1, 1]);
  using out = new Tensor([2, 3]);
  ln.forward(xTensor);
  const expected = ln.backward(dyTensor.data.slice());
  expect(ln.backward(dyTensor, { out })).toBe(out);
  expect(out.data).toEqual(expected);
  using other = new Tensor([1, 2, 3]);
  expect(() => ln.backward(other)).toThrow(
    new RangeError("LayerNorm.backward: dy has the shape [1, 2, 3], expected that of the last x, [2, 3]"),
  );
});

test("a bigint is shown as one", () => {
  expect(() => new LayerNorm(35n as never)).toThrow(/normalizedShape is 35n, expected a positive integer/);
});
