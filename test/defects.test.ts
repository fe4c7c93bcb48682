// What callers may do to arguments while they are read, and other uses that once went wrong.

import { afterEach, describe, expect, test } from "vitest";
import { LayerNorm, layerNorm, layerNormBackward, layerNormWithStats, Runtime, Tensor } from "../src/index.js";
import { normal, resizable } from "./helpers.js";

const rows = 4;
const cols = 7;
const x = normal(rows * cols, 1);
const shape = [rows, cols];

/** A runtime whose allocator leaves gaps between blocks, and tells whether anything was written there. */
function guarded() {
  const memory = new WebAssembly.Memory({ initial: 2 });
  const bytes = new Uint8Array(memory.buffer);
  const blocks = new Map<number, number>();
  let next = 64;
  bytes.fill(0xa5);
  const runtime = Runtime.create({
    memory,
    allocate: (size) => {
      const pointer = next;
      next += size + 64 + (-size & 15);
      blocks.set(pointer, size);
      return next <= bytes.length ? pointer : 0;
    },
    free: (pointer) => {
      bytes.fill(0xa5, pointer, pointer + (blocks.get(pointer) as number));
      blocks.delete(pointer);
    },
  });
  const expectNoStrayWrite = () => {
    const outside = bytes.slice();
    for (const [pointer, size] of blocks) outside.fill(0xa5, pointer, pointer + size);
    expect(outside.findIndex((byte) => byte !== 0xa5)).toBe(-1);
  };
  return { runtime, blocks, expectNoStrayWrite };
}

/** An object with a getter that returns one value after the other, the last of them from then on. */
function changing<T>(name: string, ...values: T[]) {
  const state = { reads: 0 };
  const options = Object.defineProperty({}, name, {
    enumerable: true,
    get: () => values[Math.min(state.reads++, values.length - 1)],
  });
  return { options: options as never, state };
}

/** A list of numbers of which one can't be read a second time. */
function readableOnce(numbers: Float32Array) {
  const state = { reads: 0 };
  const get = () => {
    if (state.reads++ > 0) throw new Error("read again");
    return numbers[1];
  };
  return { list: Object.defineProperty([...numbers], 1, { get }), state };
}

describe("arguments are read once", () => {
  test("an out that is another tensor at the second reading", () => {
    const { runtime, expectNoStrayWrite } = guarded();
    const ln = new LayerNorm(cols, { runtime });
    const t = new Tensor(shape, x, { runtime });
    const expected = ln.forward(x);
    const use: ((options: never) => unknown)[] = [
      (options) => ln.forward(t, options),
      (options) => layerNorm(t, cols, null, null, 1e-5, options),
    ];
    for (const call of use) {
      const out = new Tensor(shape, undefined, { runtime });
      const small = new Tensor([1], undefined, { runtime });
      const { options, state } = changing("out", out, small);
      expect(call(options)).toBe(out);
      expect(state.reads).toBe(1);
      expect(out.data).toEqual(expected);
      expect([...small.data]).toEqual([0]);
      expectNoStrayWrite();
    }
  });

  test("an out of backward that is another tensor at the second reading", () => {
    const { runtime, expectNoStrayWrite } = guarded();
    const ln = new LayerNorm(cols, { runtime });
    const t = new Tensor(shape, x, { runtime });
    const out = new Tensor(shape, undefined, { runtime });
    const small = new Tensor([1], undefined, { runtime });
    ln.forward(t);
    const { options, state } = changing("out", out, small);
    expect(ln.backward(t, options)).toBe(out);
    expect(state.reads).toBe(1);
    expect([...small.data]).toEqual([0]);
    expectNoStrayWrite();
  });

  test("each option of the functions", () => {
    const { mean, rstd } = layerNormWithStats(x, cols);
    const forwards = [["out"], ["residual"]] as const;
    for (const [name] of forwards) {
      const { options, state } = changing(name, x.slice(), new Float32Array(1));
      expect(layerNorm(x, cols, null, null, 1e-5, options).length).toBe(x.length);
      expect(state.reads).toBe(1);
    }
    const backwards = [
      ["out", x.slice()],
      ["add", x],
      ["dweight", new Float32Array(cols)],
      ["dbias", new Float32Array(cols)],
      ["eps", 1e-5],
    ] as const;
    for (const [name, value] of backwards) {
      const { options, state } = changing(name, value, null);
      expect(layerNormBackward(x, x, mean, rstd, null, options).dx.length).toBe(x.length);
      expect(state.reads, name).toBe(1);
    }
  });

  test("an option whose getter disposes of the weight, or of the module", () => {
    const weight = () => new Tensor([cols], x.subarray(0, cols));
    const disposing = (name: string, what: { dispose(): void }) => ({
      get [name](): undefined {
        what.dispose();
        return undefined;
      },
    });
    for (const name of ["out", "residual"]) {
      const w = weight();
      expect(() => layerNorm(x, cols, w, null, 1e-5, disposing(name, w))).toThrow(/layerNorm: weight was disposed/);
    }
    const modules: [string, (ln: LayerNorm, options: object) => unknown][] = [
      ["out", (ln, options) => ln.forward(x, options)],
      ["add", (ln, options) => ln.backward(x, options)],
    ];
    for (const [name, use] of modules) {
      const ln = new LayerNorm(cols);
      ln.forward(x);
      expect(() => use(ln, disposing(name, ln.weight))).toThrow(/used after a parameter of it was disposed/);
      const other = new LayerNorm(cols);
      other.forward(x);
      expect(() => use(other, disposing(name, other))).toThrow(/used after it was disposed/);
    }
  });

  test("an out that shrinks the buffer of x while it is read", () => {
    const { runtime, expectNoStrayWrite } = guarded();
    for (const ln of [new LayerNorm(cols, { runtime }), new LayerNorm(cols, { runtime }).eval()]) {
      for (const size of [cols, x.length]) {
        const buffer = resizable(x.byteLength);
        const shrinking = new Float32Array(buffer);
        shrinking.set(x);
        const out = new Float32Array(size);
        const options = {
          get out() {
            buffer.resize(cols * 4);
            return out;
          },
        };
        const forward = () => ln.forward(shrinking, options);
        if (size === cols) expect(forward()).toBe(out);
        else expect(forward).toThrow(/out has 28 elements, expected 7, as x has/);
        expectNoStrayWrite();
        expect(out).toEqual(size === cols ? new LayerNorm(cols).forward(x.slice(0, cols)) : new Float32Array(size));
      }
    }
  });

  test("a shape whose numbers or length change", () => {
    const { runtime, blocks, expectNoStrayWrite } = guarded();
    let reads = 0;
    const numbers = Object.defineProperty([0, cols], 0, { get: () => (reads++ === 0 ? rows : 1000) });
    const t = new Tensor(numbers, undefined, { runtime });
    expect(t.shape).toEqual(shape);
    expect(t.size).toBe(rows * cols);
    let lengths = 0;
    const lengthening = new Proxy([cols, 1000], {
      get: (target, key) => (key === "length" && lengths++ === 0 ? 1 : Reflect.get(target, key)),
    });
    const ln = new LayerNorm(lengthening, { runtime });
    expect(blocks.get(ln.weight?.pointer as number)).toBe((ln.weight?.size as number) * 4);
    ln.resetParameters();
    t.data.fill(1);
    expectNoStrayWrite();
  });

  test("a subclass of Tensor with a pointer, size and shape of its own", () => {
    const { runtime, expectNoStrayWrite } = guarded();
    class Lying extends Tensor {
      override get pointer() {
        return super.pointer + 32;
      }
      override get size() {
        return 50 * cols;
      }
      override get shape() {
        return [50, cols];
      }
    }
    const ln = new LayerNorm(cols, { runtime });
    const t = new Lying(shape, x, { runtime });
    const out = new Lying(shape, undefined, { runtime });
    expect(ln.forward(t, { out })).toBe(out);
    expectNoStrayWrite();
    expect(out.data).toEqual(ln.forward(x));
    ln.forward(t);
    expect(ln.backward(t, { out })).toBe(out);
    expectNoStrayWrite();
  });

  test.each(["length", "byteOffset", "byteLength", "buffer"])("a Float32Array with a %s of its own", (name) => {
    const { runtime, expectNoStrayWrite } = guarded();
    const weight = new Tensor([cols], normal(cols, 3), { runtime });
    const lie = name === "buffer" ? runtime.memory.buffer : 64 * cols * 4;
    const lying = (array: Float32Array) => Object.defineProperty(array, name, { value: lie });
    const out = lying(new Float32Array(x.length));
    const y = layerNorm(x, cols, weight);
    const forward = () => layerNorm(lying(x.slice()), cols, weight, null, 1e-5, { out });
    if (name === "length") expect(forward).toThrow(RangeError);
    else expect([...forward()]).toEqual([...y]);
    expectNoStrayWrite();
  });

  test("size, shape, eps, normalizedShape, weight and bias can't be assigned", () => {
    const ln = new LayerNorm(cols);
    const t = new Tensor(shape, x);
    for (const [object, name] of [
      [ln, "eps"],
      [ln, "normalizedShape"],
      [ln, "weight"],
      [ln, "bias"],
      [t, "size"],
      [t, "shape"],
      [t, "pointer"],
    ] as const) {
      const before = Reflect.get(object, name);
      expect(() => Object.assign(object, { [name]: 1000 }), name).toThrow(TypeError);
      expect(Reflect.get(object, name)).toBe(before);
    }
    expect(Object.isFrozen(t.shape)).toBe(true);
    expect(Object.isFrozen(ln.normalizedShape)).toBe(true);
  });
});

describe("loadStateDict", () => {
  const floats = normal(cols, 3);
  const bits = new Uint32Array(floats.slice().buffer);
  const one = (weight: unknown) => {
    const ln = new LayerNorm(cols, { bias: false });
    ln.loadStateDict({ weight } as never);
    return ln.weight?.data;
  };

  test.each([
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    BigInt64Array,
  ])("refuses a %o and says how to pass its numbers or its bits", (Integers) => {
    expect(() => one(new Integers(cols))).toThrow(TypeError);
    expect(() => one(new Integers(cols))).toThrow(/\{ dtype: "bf16", data \}.*Array\.from\(array\)/);
  });

  test("changes nothing when an entry can't be read", () => {
    const ln = new LayerNorm(cols);
    const before = ln.stateDict();
    const dict = {
      weight: floats,
      get bias(): Float32Array {
        throw new Error("not today");
      },
    };
    expect(() => ln.loadStateDict(dict)).toThrow("not today");
    const list = Object.defineProperty([...floats], 3, {
      get: () => {
        throw new Error("nor tomorrow");
      },
    });
    expect(() => ln.loadStateDict({ weight: floats, bias: list })).toThrow("nor tomorrow");
    expect(ln.stateDict()).toEqual(before);
  });

  test("reads each number of a list once", () => {
    const ln = new LayerNorm(cols);
    const { list, state } = readableOnce(floats);
    ln.loadStateDict({ weight: floats, bias: list });
    expect(state.reads).toBe(1);
    expect(ln.stateDict()).toEqual({ weight: floats, bias: floats });
  });

  test("reads each entry once", () => {
    const ln = new LayerNorm(cols, { bias: false });
    const { options, state } = changing("weight", floats, new Float32Array(1));
    ln.loadStateDict(options);
    expect(state.reads).toBe(1);
    expect(ln.weight?.data).toEqual(floats);
  });

  test("says of a Map what makes an object of it", () => {
    const map = new Map([["weight", floats]]);
    expect(() => new LayerNorm(cols).loadStateDict(map as never)).toThrow(/Object\.fromEntries\(map\)/);
  });

  test("says of what went through JSON how to save it", () => {
    const dict = JSON.parse(JSON.stringify({ weight: floats }));
    expect(() => one(dict.weight)).toThrow(/JSON.*Array\.from\(array\)/);
    expect(one(JSON.parse(JSON.stringify(Array.from(floats))))).toEqual(floats);
  });

  test("takes the entries with a prefix and ignores the others", () => {
    const ln = new LayerNorm(cols);
    const dict = {
      "h.0.ln_1.weight": floats,
      "h.0.ln_1.bias": x.slice(0, cols),
      "h.1.ln_1.weight": new Float32Array(1),
    };
    expect(ln.loadStateDict(dict, { prefix: "h.0.ln_1." })).toEqual({ missingKeys: [], unexpectedKeys: [] });
    expect(ln.stateDict()).toEqual({ weight: floats, bias: x.slice(0, cols) });
    expect(() => ln.loadStateDict(dict, { prefix: "h.1.ln_1." })).toThrow(/h\.1\.ln_1\.weight has 1 elements/);
    expect(() => ln.loadStateDict(dict, { prefix: "h.2." })).toThrow(/h\.2\.weight or .* is missing/);
    expect(() => ln.loadStateDict(dict, { prefix: "h.0.ln_1" })).toThrow(
      / is unknown; the prefix may be "h.0.ln_1\."$/,
    );
    expect(ln.loadStateDict(dict, { prefix: "h.2.", strict: false }).missingKeys).toEqual(["h.2.weight", "h.2.bias"]);
  });

  test("takes a Float64Array, rounded to float32", () => {
    const doubles = Float64Array.from({ length: cols }, (_, i) => 1 / (i + 3));
    expect(one(doubles)).toEqual(Float32Array.from(doubles));
  });

  test("takes a Float16Array, where the engine has it", () => {
    const name = "Float16Array";
    const Halves = (globalThis as unknown as Record<string, typeof Float32Array | undefined>)[name];
    const halves = Halves?.from(floats);
    // An engine without it has the same numbers as bits.
    const data = new Uint16Array(cols).fill(0x3555);
    const entry = halves ?? { dtype: "f16", data };
    const expected = halves ? Float32Array.from(halves) : new Float32Array(cols).fill(0.333251953125);
    expect(one(entry)).toEqual(expected);
  });

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
  ] as const)("takes each of the 65536 bit patterns of %s exactly", (dtype, exponentBits, mantissaBits) => {
    const data = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const ln = new LayerNorm(65536, { bias: false });
    ln.loadStateDict({ weight: { dtype, data } });
    const expected = [...data].map((word) => decode(word, exponentBits, mantissaBits));
    const loaded = Array.from(ln.weight.data);
    expect(loaded.findIndex((value, i) => !Object.is(value, expected[i]))).toBe(-1);
    ln.dispose();
  });

  const upper = Uint16Array.from(bits, (word) => word >>> 16);
  const rounded = new Float32Array(Uint32Array.from(upper, (word) => word << 16).buffer);
  const misaligned = (bytes: Uint8Array) => {
    const copy = new Uint8Array(bytes.length + 1);
    copy.set(bytes, 1);
    return copy.subarray(1);
  };
  const forms = (buffer: ArrayBuffer) => [
    buffer,
    new Uint8Array(buffer),
    misaligned(new Uint8Array(buffer)),
    new DataView(buffer),
  ];

  test.each(["bf16", "BF16", "bfloat16", "BFloat16"])("takes %s as words, bytes and buffers", (dtype) => {
    for (const data of [upper, ...forms(upper.buffer)]) expect(one({ dtype, data })).toEqual(rounded);
  });

  test.each(["f32", "F32", "float32", "Float32"])("takes %s as floats, bytes and buffers", (dtype) => {
    for (const data of [floats, ...forms(floats.buffer)]) expect(one({ dtype, data })).toEqual(floats);
  });

  test.each(["f16", "F16", "float16", "Float16", "half", "HALF"])("takes %s as words, bytes and buffers", (dtype) => {
    const words = Uint16Array.from([0x3c00, 0xc000, 1, 0x7bff, 0x3555, 0, 0xfc00]);
    const expected = Float32Array.from(words, (word) => decode(word, 5, 10));
    for (const data of [words, ...forms(words.buffer)]) expect(one({ dtype, data })).toEqual(expected);
  });

  test("refuses raw floats that don't fit", () => {
    expect(() => one({ dtype: "f64", data: upper })).toThrow(/weight: dtype is "f64", expected "bf16", "f16" or "f32"/);
    expect(() => one({ dtype: "toString", data: upper })).toThrow(/weight: dtype is "toString"/);
    expect(() => one({ dtype: "bf16", data: [...upper] })).toThrow(/weight: data is .*, expected a typed array/);
    expect(() => one({ dtype: "bf16" })).toThrow(/weight: data is undefined/);
    expect(() => one({ dtype: "bf16", data: new Uint8Array(5) })).toThrow(/weight: data has 5 bytes/);
    expect(() => one({ dtype: "bf16", data: upper.subarray(1) })).toThrow(/weight has 6 elements, expected 7/);
  });
});

describe("Object.prototype with an enumerable property", () => {
  afterEach(() => {
    delete (Object.prototype as { extra?: unknown }).extra;
  });

  test("is no option", () => {
    Object.assign(Object.prototype, { extra: 5 });
    const ln = new LayerNorm(cols, { runtime: Runtime.create() });
    ln.loadStateDict(ln.stateDict(), {});
    expect(ln.backward(ln.forward(x, {}), {}).length).toBe(x.length);
    expect(new Tensor([1], [2], {}).size).toBe(1);
  });
});

describe("Runtime.create", () => {
  test("reads its options once and keeps no object of the caller's", () => {
    const heap = Runtime.create();
    const taken: number[] = [];
    const options = {
      memory: heap.memory,
      allocate: (bytes: number) => {
        taken.push(bytes);
        return heap.allocate(bytes);
      },
      free: (pointer: number) => heap.free(pointer),
    };
    const runtime = Runtime.create(options);
    options.allocate = () => 0;
    options.free = () => {
      throw new Error("replaced");
    };
    new Tensor([3], undefined, { runtime }).dispose();
    expect(taken).toEqual([12]);
  });

  test.each(["memory", "allocate", "free", "module", "heap"])("reads %s once", (name) => {
    const { options, state } = changing(name, undefined);
    Runtime.create(options);
    expect(state.reads).toBe(1);
  });

  test("refuses an allocator that is none", () => {
    const { memory } = Runtime.create();
    expect(() => Runtime.create({ memory, allocate: 5 as never, free: () => {} })).toThrow(
      new TypeError("Runtime.create: allocate is 5, expected a function"),
    );
    expect(() => Runtime.create({ memory, allocate: () => 0, free: "free" as never })).toThrow(
      new TypeError('Runtime.create: free is "free", expected a function'),
    );
  });

  test("with an allocator that has no block of 0 bytes, takes calls of no rows", () => {
    const heap = Runtime.create();
    const { memory } = heap;
    const runtime = Runtime.create({
      memory,
      allocate: (bytes) => (bytes === 0 ? 0 : heap.allocate(bytes)),
      free: (pointer) => heap.free(pointer),
    });
    const ln = new LayerNorm(cols, { runtime });
    for (const none of [new Float32Array(0), new Tensor([0, cols], undefined, { runtime })]) {
      const y = ln.forward(none);
      expect(("data" in y ? y.data : y).length).toBe(0);
      ln.backward(none);
      layerNormWithStats(none, cols, ln.weight);
    }
    expect(ln.weight?.grad).toEqual(new Float32Array(cols));
  });
});

describe("Tensor", () => {
  test("refuses a pointer that is there but undefined", () => {
    expect(() => new Tensor([2], undefined, { pointer: undefined })).toThrow(/Tensor: pointer is undefined/);
  });

  test.each([[{ shape: [2] }], [{ shape: [2], pointer: undefined }]])(
    "from %j, without a pointer, is refused",
    (part) => {
      const { memory } = Runtime.create();
      const before = memory.buffer.byteLength;
      expect(() => Tensor.from({ memory, ...part } as never)).toThrow(/pointer/);
      expect(memory.buffer.byteLength).toBe(before);
    },
  );

  test("whose data fail to be copied takes no block", () => {
    const { runtime, blocks } = guarded();
    const failing = Object.defineProperty([1, 2, 3], 1, {
      get: () => {
        throw new Error("unreadable");
      },
    });
    expect(() => new Tensor([3], failing, { runtime })).toThrow("unreadable");
    const { list } = readableOnce(x);
    new Tensor(shape, list, { runtime }).dispose();
    const bigs = new BigInt64Array(3) as never;
    expect(() => new Tensor([3], bigs, { runtime })).toThrow(TypeError);
    expect(blocks.size).toBe(0);
  });
});

test("a Tensor in the place of the options is refused", () => {
  const t = new Tensor(shape, x);
  const out = new Tensor(shape) as never;
  expect(() => new LayerNorm(cols).forward(t, out)).toThrow(/^LayerNorm.forward: options is a Tensor, expected an obj/);
  expect(() => layerNorm(t, cols, null, null, 1e-5, out)).toThrow(
    /^layerNorm: options is a Tensor, expected an object/,
  );
});
