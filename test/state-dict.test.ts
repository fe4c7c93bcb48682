// Checkpoints: which names and numbers loadStateDict takes, and that it changes nothing where it refuses.

import { describe, expect, test } from "vitest";
import { LayerNorm, RMSNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import { FAMILIES } from "./norms.js";

const cols = 35;
const weight = normal(cols, 3);
const bias = normal(cols, 4);
const complete = { missingKeys: [], unexpectedKeys: [] };

/** A module whose parameters are not those that are loaded. */
function trained(): LayerNorm {
  const ln = new LayerNorm(cols);
  ln.loadStateDict({ weight: bias, bias: weight });
  return ln;
}

test.each(FAMILIES)("stateDict of $name gives copies, which another runtime's module takes", ({ make, parameters }) => {
  const module = make(cols);
  for (const { data } of module.parameters()) data.set(weight);
  const dict = module.stateDict();
  expect(dict).toEqual(Object.fromEntries(parameters.map((key) => [key, weight])));
  const copy = make([cols], { runtime: Runtime.create() });
  expect(copy.loadStateDict(dict)).toEqual(complete);
  expect(copy.stateDict()).toEqual(dict);
  dict.weight![0] = 99;
  module.resetParameters();
  expect(copy.weight.data).toEqual(weight);
  expect(make(2, { elementwiseAffine: false }).stateDict()).toEqual({});
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
  ["lists out of JSON", JSON.parse(JSON.stringify({ weight: [...weight], bias: [...bias] }))],
  ["Tensors", { weight: new Tensor([35], weight), bias: new Tensor([5, 7], bias) }],
  ["undefined for what is absent", { weight: undefined, gamma: weight, bias, beta: undefined }],
])("loadStateDict takes %s", (_, dict) => {
  const ln = new LayerNorm(cols);
  expect(ln.loadStateDict(dict)).toEqual(complete);
  expect(ln.stateDict()).toEqual({ weight, bias });
});

test("loadStateDict takes a module's own live data crosswise", () => {
  const ln = trained();
  ln.loadStateDict({ weight: ln.bias.data, bias: ln.weight.data });
  expect(ln.stateDict()).toEqual({ weight, bias });
});

test("loadStateDict rounds a Float64Array to float32", () => {
  const doubles = Float64Array.from({ length: cols }, (_, i) => 1 / (i + 3));
  expect(loaded(doubles)).toEqual(Float32Array.from(doubles));
});

describe("loadStateDict with a prefix", () => {
  const dict = { "h.0.ln_1.weight": weight, "h.0.ln_1.bias": bias, "h.1.ln_1.weight": new Float32Array(1) };

  test("takes the entries with it and ignores the others", () => {
    const ln = new LayerNorm(cols);
    expect(ln.loadStateDict(dict, { prefix: "h.0.ln_1." })).toEqual(complete);
    expect(ln.stateDict()).toEqual({ weight, bias });
    const rms = new RMSNorm(cols);
    expect(rms.loadStateDict({ "norm.scale": weight, other: [1] }, { prefix: "norm." })).toEqual(complete);
    expect(rms.stateDict()).toEqual({ weight });
    expect(() => rms.loadStateDict({ weight, bias })).toThrow('RMSNorm.loadStateDict: "bias" is unknown');
  });

  test("names entries as they are called", () => {
    const ln = trained();
    expect(() => ln.loadStateDict(dict, { prefix: "h.1.ln_1." })).toThrow(/h\.1\.ln_1\.weight has 1 elements/);
    expect(() => ln.loadStateDict(dict, { prefix: "h.2." })).toThrow(/: h\.2\.weight is missing, h\.2\.bias is/);
    for (const prefix of ["h.0.ln_1", "h.0.", ""]) {
      expect(() => ln.loadStateDict(dict, { prefix })).toThrow(/ is unknown; check the prefix, as in "h\.0\.ln_1\."$/);
    }
    expect(() => ln.loadStateDict({ ...dict, weight })).toThrow(/: bias is missing, [^;]*$/);
    expect(ln.loadStateDict(dict, { prefix: "h.2.", strict: false }).missingKeys).toEqual(["h.2.weight", "h.2.bias"]);
  });
});

test("loadStateDict, not strict, loads what fits and reports the rest", () => {
  const ln = new LayerNorm(cols);
  const result = ln.loadStateDict({ gamma: weight, extra: bias }, { strict: false });
  expect(result).toEqual({ missingKeys: ["bias"], unexpectedKeys: ["extra"] });
  expect(ln.weight.data).toEqual(weight);
  expect(() => ln.loadStateDict({ weight: [1] }, { strict: false })).toThrow(RangeError);
});

describe("loadStateDict refuses, and changes nothing:", () => {
  const DETACHED = "detached, as its memory has grown or was transferred; get tensor.data again";
  const DICT = "expected an object of arrays, as Object.fromEntries(map) makes of a Map";
  const KINDS =
    'expected a Tensor, an array of floats or a list of numbers; { dtype: "bf16", data } is for 16-bit floats, Float32Array.from converts integers';
  const names = Array.from({ length: 3000 }, (_, i) => `layer.${i}`);
  const withUnknown = (count: number) =>
    Object.fromEntries(["weight", "bias", ...names.slice(0, count)].map((name) => [name, weight]));
  const listed = names.slice(0, 10).map((name) => `"${name}" is unknown`);
  const disposed = new Tensor([cols], weight);
  disposed.dispose();
  const runtime = Runtime.create();
  const stale = new Tensor([cols], undefined, { runtime }).data;
  runtime.memory.grow(1);

  test.each<[message: string, Kind: ErrorConstructor, dict: unknown, options?: object]>([
    ["bias is missing", RangeError, { weight }],
    ["weight is missing, bias is missing", RangeError, {}],
    ['"extra" is unknown', RangeError, { weight, bias, extra: bias }],
    ['"gamma" is unknown', RangeError, { weight, gamma: weight, bias }],
    [listed.join(", "), RangeError, withUnknown(10)],
    [`${listed.join(", ")} and 2,990 more`, RangeError, withUnknown(3000)],
    ["bias has 34 elements, expected 35", RangeError, { weight, bias: bias.slice(1) }],
    [`bias is "0", ${KINDS}`, TypeError, { weight, bias: "0" }],
    ["bias was disposed", TypeError, { weight, bias: disposed }],
    [`bias is ${DETACHED}`, TypeError, { weight, bias: stale }],
    [`bias is an Object, ${KINDS}`, TypeError, { weight, bias: JSON.parse(JSON.stringify(bias)) }],
    [`dict is null, ${DICT}`, TypeError, null],
    [`dict is "weight", ${DICT}`, TypeError, "weight"],
    [`dict is a Map, ${DICT}`, TypeError, new Map([["weight", weight]])],
    ["strict is 1, expected true or false", TypeError, { weight, bias }, { strict: 1 }],
    ["prefix is 1, expected a string", TypeError, { weight, bias }, { prefix: 1 }],
    ['"stict" is not an option, expected strict, prefix', TypeError, { weight, bias }, { stict: false }],
  ])("%s", (message, Kind, dict, options) => {
    const ln = trained();
    expect(() => ln.loadStateDict(dict as never, options)).toThrow(new Kind(`LayerNorm.loadStateDict: ${message}`));
    expect(ln.stateDict()).toEqual({ weight: bias, bias: weight });
  });

  test.each([
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    BigInt64Array,
  ])("a %o, and says how to pass its numbers or its bits", (Integers) => {
    expect(() => loaded(new Integers(cols))).toThrow(TypeError);
    expect(() => loaded(new Integers(cols))).toThrow(/\{ dtype: "bf16", data \}.* Float32Array\.from/);
  });

  const words = new Uint16Array(cols);
  test.each<[RegExp, object]>([
    [/weight: dtype is "f64", expected "bf16", "f16" or "f32"/, { dtype: "f64", data: words }],
    [/weight: dtype is "toString"/, { dtype: "toString", data: words }],
    [/weight: data is \[0, .*, expected raw "bf16" data/, { dtype: "bf16", data: [...words] }],
    [/weight: data is a Float32Array, expected raw "bf16" data/, { dtype: "bf16", data: new Float32Array(18) }],
    [/weight: data is a Float32Array, expected raw "f16" data/, { dtype: "half", data: new Float32Array(18) }],
    [/weight: data is a Float64Array, expected raw "f32" data/, { dtype: "f32", data: new Float64Array(18) }],
    [/weight: data is undefined/, { dtype: "bf16" }],
    [/weight: data.byteLength is 5, expected a multiple of 2/, { dtype: "bf16", data: new Uint8Array(5) }],
    [/weight has 34 elements, expected 35/, { dtype: "bf16", data: words.subarray(1) }],
  ])("bits where %s", (message, entry) => {
    expect(() => loaded(entry)).toThrow(message);
  });
});

/** What becomes of a checkpoint's weight. */
function loaded(entry: unknown): Float32Array {
  const ln = new LayerNorm(cols, { bias: false });
  ln.loadStateDict({ weight: entry } as never);
  return ln.weight.data;
}

describe("loadStateDict takes the bits of floats:", () => {
  /** What the bits of a small float stand for, by the definition of IEEE 754. */
  function decode(word: number, exponentBits: number, mantissaBits: number): number {
    const sign = word >> 15 ? -1 : 1;
    const exponent = (word >> mantissaBits) & (2 ** exponentBits - 1);
    const fraction = (word & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
    const bias = 2 ** (exponentBits - 1) - 1;
    if (exponent === 2 ** exponentBits - 1) return fraction ? NaN : sign * Infinity;
    return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
  }

  test.each([
    ["bf16", 8, 7],
    ["f16", 5, 10],
  ] as const)("each of the 65536 patterns of %s, exactly", (dtype, exponentBits, mantissaBits) => {
    const data = Uint16Array.from({ length: 65536 }, (_, i) => i);
    using ln = new LayerNorm(65536, { bias: false });
    ln.loadStateDict({ weight: { dtype, data } });
    const got = ln.weight.data;
    expect(data.findIndex((word) => !Object.is(got[word], decode(word, exponentBits, mantissaBits)))).toBe(-1);
  });

  const upper = Uint16Array.from(new Uint32Array(weight.slice().buffer), (word) => word >>> 16);
  const halves = Uint16Array.from({ length: cols }, (_, i) => 0x3555 + i);
  const misaligned = (buffer: ArrayBuffer) => {
    const bytes = new Uint8Array(buffer.byteLength + 1);
    bytes.set(new Uint8Array(buffer), 1);
    return bytes.subarray(1);
  };

  test.each([
    ["bf16", upper, "bf16 BF16 bfloat16 BFloat16", Float32Array.from(upper, (word) => decode(word, 8, 7))],
    ["f16", halves, "f16 F16 float16 Float16 half HALF", Float32Array.from(halves, (word) => decode(word, 5, 10))],
    ["f32", weight, "f32 F32 float32 Float32", weight],
  ] as const)("%s as numbers, bytes and buffers, under each of its names", (_, numbers, names, expected) => {
    const { buffer } = numbers.slice();
    for (const dtype of names.split(" ")) {
      for (const data of [numbers, buffer, new Uint8Array(buffer), misaligned(buffer), new DataView(buffer)]) {
        expect(loaded({ dtype, data })).toEqual(expected);
      }
    }
  });

  test("a Float16Array's, where the engine has it", () => {
    const Halves = (globalThis as unknown as Record<string, typeof Float32Array | undefined>).Float16Array;
    // An engine without it has the same numbers as bits.
    const entry = Halves?.from(weight.map(() => 0.333251953125)) ?? { dtype: "f16", data: halves.map(() => 0x3555) };
    expect(loaded(entry)).toEqual(weight.map(() => 0.333251953125));
  });
});
