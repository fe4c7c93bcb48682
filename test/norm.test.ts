// The modules LayerNorm and RMSNorm. Residuals are in residual.test.ts, checkpoints in state-dict.test.ts.

import { expectTypeOf } from "expect-type";
import { afterEach, describe, expect, test } from "vitest";
import type { Norm as AnyNorm, LayerNormOptions, Operand, ResultOf } from "../src/index.js";
import { LayerNorm, Parameter, RMSNorm, Runtime, Tensor } from "../src/index.js";
import { DISPOSE, difference, normal } from "./helpers.js";
import { FAMILIES, floatsOf, gradientsOf, KINDS, NOT_NUMBERS, type Norm, parameterOf } from "./norms.js";
import { expectWithin } from "./within.js";

const rows = 6;
const cols = 35;
const x = normal(rows * cols, 1, 0.3, 2);
const dy = normal(rows * cols, 2);
const weight = normal(cols, 3);
const bias = normal(cols, 4);
const zeros = new Float32Array(cols);
const tensor = (data?: Float32Array, shape = [rows, cols]) => new Tensor(shape, data);
const onePage = () => Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }) });

/** The words of an error, its class, and the arguments of the call that ends in it. */
type Refused = [message: string, Kind: ErrorConstructor, ...args: unknown[]];
const SHAPE = "expected a positive integer or a list of them";
const EPS = "expected a finite number of 0 or more";

const CONSTRUCTOR: Refused[] = [
  [`normalizedShape is "8", ${SHAPE}`, TypeError, "8"],
  [`normalizedShape is a bigint, ${SHAPE}`, TypeError, 35n],
  [`normalizedShape is undefined, ${SHAPE}`, TypeError],
  ["normalizedShape is [0], expected integers of 1 or more", RangeError, 0],
  ["normalizedShape is [], expected at least one dimension", RangeError, []],
  ["normalizedShape is [2, 1.5], expected integers of 1 or more", RangeError, [2, 1.5]],
  ["normalizedShape is [2, null], expected a list of integers", TypeError, [2, null]],
  ["options is 0.000001, expected an object", TypeError, 3, 1e-6],
  [`eps is -1, ${EPS}`, RangeError, 3, { eps: -1 }],
  [`eps is Infinity, ${EPS}`, RangeError, 3, { eps: Infinity }],
  [`eps is NaN, ${EPS}`, RangeError, 3, { eps: NaN }],
  ['eps is "1e-5", expected a number', TypeError, 3, { eps: "1e-5" }],
  ["elementwiseAffine is 0, expected true or false", TypeError, 3, { elementwiseAffine: 0 }],
  ["runtime is null, expected a Runtime", TypeError, 3, { runtime: null }],
  ["weight is a Float32Array, expected a Tensor", TypeError, 3, { weight: zeros }],
  ["weight is true, expected a Tensor", TypeError, 3, { weight: true }],
  ["weight is null, expected a Tensor", TypeError, 3, { weight: null }],
  ["weight has the shape [3, 1], expected [3]", RangeError, 3, { weight: new Tensor([3, 1]) }],
  ["weight is a Tensor, expected none", TypeError, 3, { weight: new Tensor([3]), elementwiseAffine: false }],
  ["weight belongs to another runtime", TypeError, 3, { weight: new Tensor([3]), runtime: Runtime.create() }],
];

const NO_OUT = "expected a Tensor or an array of floats";
const FORWARD: Refused[] = [
  ['x[0] is "1", expected a number', TypeError, ["1"]],
  ["x has 1000 elements, expected a multiple of 35", RangeError, new Float32Array(1000)],
  ["x has the shape [35, 6], expected [..., 35]", RangeError, tensor(x, [35, 6])],
  ["x has the shape [], expected [..., 35]", RangeError, new Tensor([])],
  ["x belongs to another runtime", TypeError, new Tensor([35], undefined, { runtime: Runtime.create() })],
  [`x is a Tensor, ${NOT_NUMBERS}`, TypeError, new Proxy(tensor(), {})],
  [`out is [0], ${NO_OUT}`, TypeError, x, { out: [0] }],
  [`out is 1, ${NO_OUT}`, TypeError, x, { out: 1 }],
  ["out has 35 elements, expected 210, as x has", RangeError, x, { out: zeros }],
  ["out is a Tensor, expected a Float32Array, as x is", TypeError, x, { out: tensor() }],
  ["out has the shape [2, 3, 35], expected that of x, [6, 35]", RangeError, tensor(), { out: tensor(x, [2, 3, 35]) }],
  ["out has the shape [6, 35], expected that of x, [2, 3, 35]", RangeError, tensor(x, [2, 3, 35]), { out: tensor() }],
  ["options is a Float32Array, expected an object", TypeError, x, x],
  ["options is a Float64Array, expected an object", TypeError, x, new Float64Array(0)],
  ["options is null, expected an object", TypeError, x, null],
  ["options is a Tensor, expected an object", TypeError, tensor(), tensor()],
];

const BACKWARD: Refused[] = [
  ["dy has 35 elements, expected 210, as the last x has", RangeError, zeros],
  ["dy has the shape [7, 35], expected that of the last x, [6, 35]", RangeError, new Tensor([7, 35])],
  ["dy has the shape [1, 6, 35], expected that of the last x, [6, 35]", RangeError, tensor(dy, [1, 6, 35])],
  ["dy has the shape [35, 6], expected [..., 35]", RangeError, tensor(dy, [35, 6])],
  [`dy is "dy", ${NOT_NUMBERS}`, TypeError, "dy"],
  ["out has 2 elements, expected 210, as dy has", RangeError, dy, { out: new Float32Array(2) }],
  ['"residual" is not an option, expected out, add', TypeError, dy, { residual: dy }],
];

describe.each(FAMILIES)("$name", (family) => {
  const { name, norm, eps, parameters } = family;
  const dict = Object.fromEntries(parameters.map((key) => [key, key === "weight" ? weight : bias]));
  const input = { norm, x, dy, rows, cols, eps, ...dict };
  const make = (options = {}) => {
    const module = family.make(cols, options);
    module.loadStateDict(dict);
    return module;
  };
  /** After a forward pass of x. */
  const used = (options = {}) => {
    const module = make(options);
    module.forward(x);
    return module;
  };
  const y = make().forward(x);
  const dx = used().backward(dy);
  const call = (module: Norm, method: "forward" | "backward", args: unknown[]) =>
    (module[method] as (...args: unknown[]) => unknown)(...args);

  describe("a new one", () => {
    test("is ready at once, as PyTorch's: weight 1, bias 0, its eps, training", () => {
      const module = family.make(3);
      expect([module.normalizedShape, module.eps, module.training]).toEqual([[3], eps, true]);
      expect(module.namedParameters().map(([key]) => key)).toEqual(parameters);
      for (const [key, parameter] of module.namedParameters()) {
        expect(parameter).toBeInstanceOf(Parameter);
        expect(parameter).toBe(parameterOf(module, key));
        expect([...parameter.data]).toEqual(new Array(3).fill(key === "weight" ? 1 : 0));
        expect([...parameter.grad]).toEqual([0, 0, 0]);
      }
      expect("bias" in module).toBe(name === "LayerNorm");
      const wide = family.make([5, 7], { eps: 0 });
      expect([wide.normalizedShape, wide.weight.shape, wide.eps]).toEqual([[5, 7], [5, 7], 0]);
      const plain = family.make([7], { elementwiseAffine: false });
      expect([plain.weight, plain.parameters()]).toEqual([null, []]);
    });

    test.each(CONSTRUCTOR)("is refused: %s", (message, Kind, ...args) => {
      const make = () => family.make(...(args as [number]));
      expect(make).toThrow(Kind);
      expect(make).toThrow(`${name}: ${message}`);
    });

    test("without room takes no memory", () => {
      const runtime = onePage();
      for (let i = 0; i < 5; i++) expect(() => family.make(9000, { runtime })).toThrow(/no room for 36000 bytes/);
      expect(new Tensor([12000], undefined, { runtime }).size).toBe(12000);
    });

    test("uses given Tensors where they lie, in their runtime, and leaves them to their owner", () => {
      const runtime = Runtime.create();
      const given = Object.fromEntries(parameters.map((key) => [key, new Tensor([cols], dict[key], { runtime })]));
      const module = family.make(cols, given);
      for (const [key, parameter] of module.namedParameters()) {
        expect([parameter.pointer, parameter.runtime]).toEqual([given[key]?.pointer, runtime]);
      }
      expect(module.forward(x)).toEqual(y);
      given.weight?.data.fill(2);
      expect(module.weight.data).toEqual(new Float32Array(cols).fill(2));
      module.backward(dy);
      module.dispose();
      expect(given.weight?.data).toEqual(new Float32Array(cols).fill(2));
    });

    test("may share the Parameter of another, with its gradient", () => {
      const shared = make().weight;
      const tied = family.make(cols, { weight: shared });
      expect(tied.weight).toBe(shared);
      tied.backward(tied.forward(x));
      const grad = shared.grad.slice();
      expect(grad).not.toEqual(zeros);
      tied.dispose();
      expect(shared.grad).toEqual(grad);
    });
  });

  describe("forward", () => {
    test("gives a new array for an array", () => {
      expectTypeOf(make().forward(x)).toExtend<Float32Array>();
      expect(y).toBeInstanceOf(Float32Array);
      expect(y.buffer).not.toBe(Runtime.default.memory.buffer);
      expectWithin({ y }, input);
      expect(x).toEqual(normal(rows * cols, 1, 0.3, 2));
    });

    test("gives a new Tensor of the same shape for a Tensor, with the same bits", () => {
      const t = tensor(x, [2, 3, 35]);
      const result = make().forward(t);
      expectTypeOf(result).toEqualTypeOf<Tensor>();
      expect(result).not.toBe(t);
      expect(result.shape).toEqual([2, 3, 35]);
      expect(result.data).toEqual(y);
      expect(family.make([3, 35]).forward(t).data).toEqual(family.make(105).forward(x));
    });

    test("takes a batch without rows, whose gradients are zero", () => {
      const module = make();
      for (const none of [new Float32Array(0), tensor(undefined, [2, 0, 35])]) {
        const results = [module.forward(none), module.backward(none)];
        for (const result of results) {
          expect(floatsOf(result).length).toBe(0);
          if (none instanceof Tensor) expect((result as Tensor).shape).toEqual([2, 0, 35]);
        }
      }
      for (const grad of Object.values(gradientsOf(module))) expect(grad).toEqual(zeros);
    });

    test("writes to out and returns it, in training and in eval mode", () => {
      for (const module of [make(), make().eval()]) {
        for (const out of [new Float32Array(x.length), new Tensor([7, 30]).data]) {
          expect(module.forward(x, { out })).toBe(out);
          expect(out).toEqual(y);
        }
        const out = tensor();
        expect(module.forward(tensor(x), { out })).toBe(out);
        expect(out.data).toEqual(y);
      }
    });

    test("takes views of its own memory, for x and for out, while the memory grows", () => {
      const runtime = Runtime.create();
      const module = family.make(1000, { runtime });
      const t = new Tensor([400, 1000], normal(400_000, 5), { runtime });
      const target = new Tensor([400, 1000], undefined, { runtime });
      const expected = family.make(1000).forward(t.data);
      const before = runtime.memory.buffer;
      const result = module.forward(t.data, { out: target.data });
      expect(runtime.memory.buffer).not.toBe(before);
      expect([result, target.data].map((got) => difference(got, expected))).toEqual([-1, -1]);
    });

    test.each(FORWARD)("that is refused changes nothing: %s", (message, Kind, ...args) => {
      const module = used();
      expect(() => call(module, "forward", args)).toThrow(new Kind(`${name}.forward: ${message}`));
      expect(module.backward(dy)).toEqual(dx);
      expect(module.stateDict()).toEqual(dict);
    });

    test("refuses an out that overlaps what it must not, and writes nothing", () => {
      const runtime = Runtime.create();
      const at = (pointer: number, shape: number[]) => new Tensor(shape, undefined, { runtime, pointer });
      const module = make({ runtime });
      const t = new Tensor([rows, cols], x, { runtime });
      const residual = new Tensor([rows, cols], x, { runtime });
      const refuses = (message: string, x: Tensor, options: object) =>
        expect(() => call(module, "forward", [x, options])).toThrow(new RangeError(`${name}.forward: ${message}`));
      const alias = at(t.pointer, [rows, cols]);
      refuses("out is x, which backward needs; give another out, or call eval() first", t, { out: alias });
      refuses("out overlaps x", t, { out: at(t.pointer + 140, [rows, cols]) });
      refuses("out overlaps residual", t, { residual, out: at(residual.pointer + 4, [rows, cols]) });
      for (const [key, parameter] of module.namedParameters()) {
        refuses(`out overlaps ${key}`, at(t.pointer, [cols]), { out: parameter });
        refuses(`sum overlaps ${key}`, at(t.pointer, [cols]), { residual: at(t.pointer, [cols]), sum: parameter });
      }
      expect([t.data, residual.data]).toEqual([x, x]);
      expect(module.stateDict()).toEqual(dict);
      module.eval();
      expect(module.forward(t, { residual, out: residual })).toBe(residual);
      expect(module.forward(t, { out: alias })).toBe(alias);
    });

    test("takes an out that ends where x begins or begins where x ends, and none that is nearer", () => {
      const runtime = Runtime.create();
      const module = make({ runtime }).eval();
      const block = new Tensor([3 * cols], undefined, { runtime });
      const at = (index: number) => new Tensor([cols], undefined, { runtime, pointer: block.pointer + index * 4 });
      for (const index of [0, 70]) expect(module.forward(at(35), { out: at(index) }).pointer).toBe(at(index).pointer);
      for (const index of [1, 34, 36, 69]) {
        expect(() => module.forward(at(35), { out: at(index) })).toThrow(RangeError);
      }
    });

    test("refuses a view of memory that has grown since", () => {
      const runtime = Runtime.create();
      const stale = new Tensor([35], undefined, { runtime }).data;
      runtime.memory.grow(1);
      const message = `${name}.forward: x is detached, as its memory has grown or was transferred; get tensor.data again`;
      expect(() => make({ runtime }).forward(stale)).toThrow(new TypeError(message));
    });
  });

  describe("backward", () => {
    test("gives dx and adds to the gradients, again when called again, until zeroGrad", () => {
      const module = used();
      expectTypeOf(module.backward(dy)).toExtend<Float32Array>();
      const before = Object.fromEntries(Object.entries(gradientsOf(module)).map(([key, grad]) => [key, grad.slice()]));
      expectWithin({ dx, ...before }, input);
      expect(module.backward(dy)).toEqual(dx);
      expectWithin(gradientsOf(module), input, { before });
      module.zeroGrad();
      for (const grad of Object.values(gradientsOf(module))) expect(grad).toEqual(zeros);
      module.backward(dy);
      expect(gradientsOf(module)).toEqual(before);
    });

    test("is of the kind of dy, whatever x was, with the same bits", () => {
      const module = used();
      const ofTensor = module.backward(tensor(dy));
      expectTypeOf(ofTensor).toEqualTypeOf<Tensor>();
      expect([ofTensor.shape, ofTensor.data]).toEqual([[6, 35], dx]);
      module.forward(tensor(x, [2, 3, 35]));
      expect(module.backward(tensor(dy, [2, 3, 35])).data).toEqual(dx);
      expect(module.backward(dy)).toEqual(dx);
    });

    test.each(Object.entries(KINDS))("writes to out, which may be dy, on %s", (_, of) => {
      const given = of(dy, [rows, cols]);
      for (const out of [of(x, [rows, cols]), given] as Tensor[]) {
        expect(used().backward(given as Tensor, { out })).toBe(out);
        expect(floatsOf(out)).toEqual(dx);
      }
    });

    test("works without parameters, also with an out", () => {
      const module = family.make(cols, { elementwiseAffine: false });
      module.forward(x);
      const plain = { ...input, weight: null, bias: null };
      expectWithin({ dx: module.backward(dy) }, plain);
      module.forward(tensor(x));
      const out = tensor();
      expect(module.backward(tensor(dy), { out })).toBe(out);
      expectWithin({ dx: out.data }, plain);
    });

    test.each(parameters)("leaves the gradient of the %s alone where it does not require one", (frozen) => {
      const module = make();
      parameterOf(module, frozen).requiresGrad = false;
      module.forward(x);
      expect(module.backward(dy)).toEqual(dx);
      const all = used();
      all.backward(dy);
      expect(gradientsOf(module)).toEqual({ ...gradientsOf(all), [`d${frozen}`]: zeros });
    });

    test("is of the last forward, whatever came before, also when the memory has grown since", () => {
      const runtime = Runtime.create();
      const module = make({ runtime });
      for (const count of [1, 4, 2, 6]) module.forward(dy.slice(0, count * cols));
      module.forward(x);
      expect(module.train()).toBe(module);
      runtime.memory.grow(3);
      expect(module.backward(dy)).toEqual(dx);
    });

    test.each([undefined, ...parameters])("sums many rows in double, without a gradient of %s", (frozen) => {
      const many = 130;
      const module = family.make(2, { eps: 0 });
      if (frozen) parameterOf(module, frozen).requiresGrad = false;
      module.forward(
        Float32Array.from({ length: 2 * many }, (_, i) => (name === "LayerNorm" ? 2 : 1) * (i % 2 ? 1 : 0)),
      );
      const far = new Float32Array(2 * many);
      far
        .fill(2 ** 24, 0, 2)
        .fill(1, 128, 130)
        .fill(-(2 ** 24), 258);
      module.backward(far);
      const dweight = name === "LayerNorm" ? [-1, 1] : [0, Math.fround(Math.SQRT2)];
      const { dweight: got, dbias } = gradientsOf(module);
      expect([...got]).toEqual(frozen === "weight" ? [0, 0] : dweight);
      if (dbias) expect([...dbias]).toEqual(frozen === "bias" ? [0, 0] : [1, 1]);
    });

    test("before any forward, in eval mode, or after it, is an error that says so", () => {
      const module = make();
      const never = new TypeError(`${name}.backward: no forward in training mode; call train(), then forward`);
      const refuses = () => expect(() => module.backward(dy)).toThrow(never);
      refuses();
      module.eval().forward(x);
      refuses();
      module.train();
      refuses();
      module.forward(x);
      module.eval().train();
      refuses();
    });

    test.each(BACKWARD)("that is refused changes no gradient: %s", (message, Kind, ...args) => {
      const module = make();
      module.forward(tensor(x));
      expect(() => call(module, "backward", args)).toThrow(new Kind(`${name}.backward: ${message}`));
      for (const grad of Object.values(gradientsOf(module))) expect(grad).toEqual(zeros);
    });

    test("refuses an out that overlaps what it must not, by name", () => {
      const runtime = Runtime.create();
      const at = (pointer: number) => new Tensor([cols], undefined, { runtime, pointer });
      const module = make({ runtime });
      const row = () => new Tensor([cols], dy.subarray(0, cols), { runtime });
      const [t, d, add] = [row(), row(), row()];
      module.forward(t);
      const parts = module.namedParameters().map(([key, { grad }]) => [`d${key}`, grad.byteOffset]);
      parts.push(["weight", module.weight.pointer]);
      for (const [key, pointer] of [["x", t.pointer], ["dy", d.pointer + 4], ["add", add.pointer + 4], ...parts]) {
        const message = `${name}.backward: out overlaps ${key}`;
        expect(() => module.backward(d, { add, out: at(pointer as number) })).toThrow(new RangeError(message));
      }
      expect(module.stateDict()).toEqual(dict);
      expect(d.data).toEqual(dy.subarray(0, cols));
    });

    // Of one row, gradients are added to while it is read.
    test.each(parameters)("refuses operands that lie in the gradient of the %s, or is right", (key) => {
      const row = x.subarray(0, cols);
      const plain = make();
      plain.forward(row);
      const right = [plain.backward(row), plain.backward(row, { add: row })];
      const module = make();
      const { grad } = parameterOf(module, key);
      const over = new Tensor([cols], undefined, { pointer: grad.byteOffset });
      for (const [i, use] of [
        () => module.backward(grad),
        () => module.backward(row, { add: grad }),
        () => {
          module.forward(over);
          return module.backward(new Tensor([cols], row)).data;
        },
      ].entries()) {
        module.forward(row);
        grad.set(row);
        let got: Float32Array | undefined;
        try {
          got = use();
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
        if (got) expect(got).toEqual(right[i % 2]);
      }
    });
  });

  describe("modes and parameters", () => {
    test("train and eval return the module", () => {
      const module = make();
      expect(module.eval()).toBe(module);
      expect(module.training).toBe(false);
      expect(module.train()).toBe(module);
      expect(module.training).toBe(true);
      expect(module.train(false).training).toBe(false);
      expect(() => module.train("yes" as never)).toThrow(
        new TypeError(`${name}.train: mode is "yes", expected true or false`),
      );
    });

    test("what is written to a parameter's data is used, until resetParameters sets ones and zeros", () => {
      const module = family.make(cols);
      for (const [key, { data }] of module.namedParameters()) data.set(dict[key]!);
      expect(module.forward(x)).toEqual(y);
      module.resetParameters();
      expect(module.stateDict()).toEqual(family.make(cols).stateDict());
      const plain = family.make(cols, { elementwiseAffine: false });
      plain.resetParameters();
      expect(plain.stateDict()).toEqual({});
    });

    test.each(["eps", "normalizedShape", "weight", "bias"])("%s can't be assigned", (key) => {
      const module = make();
      const before = Reflect.get(module, key);
      if (key in module) expect(() => Object.assign(module, { [key]: 1000 })).toThrow(TypeError);
      expect(Reflect.get(module, key)).toEqual(before);
      expect(Object.isFrozen(module.normalizedShape)).toBe(true);
    });
  });

  describe("disposed", () => {
    const USES: [string, (module: Norm) => unknown][] = [
      ["forward", (module) => module.forward(x)],
      ["zeroGrad", (module) => module.zeroGrad()],
      ["resetParameters", (module) => module.resetParameters()],
      ["loadStateDict", (module) => module.loadStateDict(dict)],
      ["backward", (module) => module.backward(dy)],
      ["train", (module) => module.train()],
      ["parameters", (module) => module.parameters()],
      ["stateDict", (module) => module.stateDict()],
    ];

    test.each(USES)("twice is harmless, %s afterwards is an error", (_, use) => {
      for (const options of [{}, { elementwiseAffine: false }]) {
        const module = family.make(cols, options);
        const weight = module.weight as Parameter | null;
        module.dispose();
        module.dispose();
        module[DISPOSE]();
        expect(() => use(module)).toThrow(new TypeError(`${name} was disposed`));
        if (!weight) continue;
        expect(() => weight.data).toThrow(new TypeError("Tensor was disposed"));
        expect(() => weight.grad).toThrow(new TypeError("Tensor was disposed"));
      }
    });

    test.each(parameters)("of its %s alone, every use is an error, and changes nothing", (key) => {
      const module = used();
      module.backward(dy);
      const others = module.namedParameters().filter(([other]) => other !== key);
      const before = others.map(([, { grad }]) => grad.slice());
      parameterOf(module, key).dispose();
      for (const [, use] of USES) {
        expect(() => use(module)).toThrow(new TypeError(`${name}: a parameter was disposed`));
      }
      expect(others.map(([, { grad }]) => grad)).toEqual(before);
      for (const [other, { data }] of others) expect(data).toEqual(dict[other]);
      module.dispose();
    });

    test("with it goes the gradient of a given Tensor, which another that shares it says", () => {
      const a = family.make(cols, { weight: new Tensor([cols], weight) });
      const b = family.make(cols, { weight: a.weight });
      const out = b.forward(x);
      b.backward(dy);
      const before = gradientsOf(b).dbias?.slice();
      a.dispose();
      expect(b.forward(x)).toEqual(out);
      expect(() => b.backward(dy)).toThrow(/backward: a parameter was disposed/);
      if (b instanceof LayerNorm) expect(b.bias.grad).toEqual(before);
      expect(() => b.zeroGrad()).toThrow(/disposed/);
    });
  });

  test("an enumerable property of Object.prototype is no option", () => {
    Object.assign(Object.prototype, { extra: 5 });
    const module = family.make(cols, { runtime: Runtime.create() });
    module.loadStateDict(module.stateDict(), {});
    expect(module.backward(module.forward(x, {}), {}).length).toBe(x.length);
    expect(new Tensor([1], [2], {}).size).toBe(1);
  });
});

afterEach(() => {
  delete (Object.prototype as { extra?: unknown }).extra;
});

describe("the bias of LayerNorm", () => {
  test("may not be the weight in backward, as the sums of both would be one gradient", () => {
    const both = new Parameter([cols], weight);
    const module = new LayerNorm(cols, { weight: both, bias: both });
    module.forward(x);
    expect(() => module.backward(dy)).toThrow(new RangeError("LayerNorm.backward: dweight overlaps dbias"));
  });

  test("may be left out: then there is a weight alone, and its gradient", () => {
    const module = new LayerNorm(cols, { bias: false });
    expect([module.bias, module.parameters()]).toEqual([null, [module.weight]]);
    expect(module.stateDict()).toEqual({ weight: new Float32Array(cols).fill(1) });
    module.forward(tensor(x));
    const out = tensor();
    expect(module.backward(tensor(dy), { out })).toBe(out);
    const input = { x, dy, rows, cols, eps: 1e-5 };
    expectWithin({ dx: out.data, dweight: module.weight.grad }, input);
    expectWithin({ y: module.forward(x) }, input);
  });

  test("is true, false or a Tensor of the runtime, and no option of RMSNorm", () => {
    expect(() => new LayerNorm(3, { bias: null as never })).toThrow(
      new TypeError("LayerNorm: bias is null, expected true or false"),
    );
    const elsewhere = new Tensor([cols], weight, { runtime: Runtime.create() });
    expect(() => new LayerNorm(cols, { weight: elsewhere, bias: new Tensor([cols]) })).toThrow(/another runtime/);
    expect(() => new LayerNorm(3, { epsilon: 1 } as never)).toThrow(
      new TypeError('LayerNorm: "epsilon" is not an option, expected eps, elementwiseAffine, weight, bias, runtime'),
    );
    expect(() => new RMSNorm(3, { bias: true } as never)).toThrow(
      new TypeError('RMSNorm: "bias" is not an option, expected eps, elementwiseAffine, weight, runtime'),
    );
  });
});

test("the types tell which parameters there are, and what a call returns", () => {
  expectTypeOf(new LayerNorm(7).weight).toEqualTypeOf<Parameter>();
  expectTypeOf(new LayerNorm(7).bias).toEqualTypeOf<Parameter>();
  expectTypeOf(new LayerNorm(7, { bias: false }).bias).toEqualTypeOf<null>();
  expectTypeOf(new LayerNorm(7, { elementwiseAffine: false }).weight).toEqualTypeOf<null>();
  const options: { elementwiseAffine: boolean } = { elementwiseAffine: false };
  expectTypeOf(new LayerNorm(7, options).bias).toEqualTypeOf<Parameter | null>();
  const plain: LayerNorm[] = [new LayerNorm(7), new LayerNorm(7, { eps: 0 }), new LayerNorm(7, { bias: true })];
  expectTypeOf(plain.map(({ bias }) => bias)).toEqualTypeOf<Parameter[]>();
  // @ts-expect-error it has no bias
  plain.push(new LayerNorm(7, { bias: false }));
  // @ts-expect-error it has no weight
  expect((new RMSNorm(7, { elementwiseAffine: false }) satisfies RMSNorm).weight).toBe(null);
  const any: LayerNorm<LayerNormOptions>[] = [new LayerNorm(7), new LayerNorm(7, { bias: false })];
  expectTypeOf(any.map(({ bias }) => bias)).toEqualTypeOf<(Parameter | null)[]>();
  expectTypeOf(new RMSNorm(7).weight).toEqualTypeOf<Parameter>();
  expectTypeOf<AnyNorm["weight"]>().toEqualTypeOf<Parameter | null>();
  expectTypeOf(new RMSNorm(7, { elementwiseAffine: false }).weight).toEqualTypeOf<null>();
  const apply = <T extends Operand>(module: AnyNorm, operand: T): ResultOf<T> => module.forward(operand);
  expectTypeOf(apply(new LayerNorm(cols, { elementwiseAffine: false }), x)).toEqualTypeOf<typeof x>();
  const operands: Operand[] = [x, tensor(x)];
  expect(operands.map((operand) => apply(new RMSNorm(cols), operand) instanceof Tensor)).toEqual([false, true]);
});
