/**
 * Parameters by name, as checkpoints hold them.
 * @module
 */

import * as check from "./check.js";
import { type Parameter, storageIn, type Tensor } from "./tensor.js";

/** Copies of the parameters that a module has. */
export type StateDict = { weight?: Float32Array<ArrayBuffer>; bias?: Float32Array<ArrayBuffer> };

/** Floats as their bits, little-endian, as safetensors files hold them. */
export interface RawFloats {
  /** "bf16", "f16" or "f32", in either case; also "bfloat16", "float16", "half" and "float32". */
  readonly dtype: string;
  readonly data: ArrayBufferView | ArrayBuffer;
}

/** The values of a parameter: numbers, an array of floats, a Tensor, or the bits of floats. */
export type CheckpointEntry = ArrayLike<number> | Tensor | RawFloats;

/** Parameters under any of the names that they go by. */
export type Checkpoint = { readonly [name: string]: CheckpointEntry | undefined };

export interface LoadOptions {
  /** Whether a missing or unknown entry is an error; true by default. */
  strict?: boolean | undefined;
  /** What the names of the entries begin with, as in `"h.0.ln_1."`. Entries without it are ignored. */
  prefix?: string | undefined;
}

/** What was missing or unknown. Both lists are empty when loading is strict. */
export type LoadResult = { missingKeys: string[]; unexpectedKeys: string[] };

/** The names that a parameter goes by: PyTorch's, then those of Keras and TensorFlow, Flax and Haiku, and by hand. */
const ALIASES = {
  weight: ["weight", "gamma", "gamma:0", "scale", "g", "a_2"],
  bias: ["bias", "beta", "beta:0", "offset", "b", "b_2"],
} as const;
const EXPECTED = `${check.NUMBERS}; { dtype: "bf16", data } is for 16-bit floats, ${check.INTEGERS}`;

/** Copies entries of `dict` to the parameters of those names. All are read and checked before the first is written. */
export function loadParameters(
  where: string,
  parameters: readonly ["weight" | "bias", Parameter][],
  dict: Checkpoint,
  options: LoadOptions,
): LoadResult {
  check.checkOptions(where, options, ["strict", "prefix"]);
  const { strict = true, prefix = "" } = options;
  check.checkBoolean(`${where}: strict`, strict);
  if (typeof prefix !== "string") check.wrongType(`${where}: prefix`, prefix, "a string");
  if (typeof dict !== "object" || dict === null || dict instanceof Map)
    check.wrongType(`${where}: dict`, dict, "an object of arrays, as Object.fromEntries(map) makes of a Map");
  const keys = new Set(Object.keys(dict).filter((key) => key.startsWith(prefix) && dict[key] !== undefined));
  const missingKeys: string[] = [];
  const problems: string[] = [];
  const loads: [Parameter, Float32Array][] = [];
  for (const [name, parameter] of parameters) {
    const key = ALIASES[name].map((alias) => prefix + alias).find((name) => keys.has(name));
    if (key === undefined) {
      missingKeys.push(prefix + name);
      problems.push(`${prefix}${name} is missing`);
      continue;
    }
    keys.delete(key);
    const floats = floatsOf(`${where}: ${key}`, dict[key]);
    if (floats.length !== parameter.size) check.wrongSize(`${where}: ${key}`, floats.length, `${parameter.size}`);
    loads.push([parameter, floats]);
  }
  const unexpectedKeys = [...keys];
  problems.push(...unexpectedKeys.map((key) => `${check.describe(key)} is unknown`));
  if (strict && problems.length > 0) {
    const rest = problems.splice(10).length; // a message lists ten
    const more = rest > 0 ? ` and ${rest.toLocaleString("en")} more` : "";
    const cure = missingKeys.length > loads.length && keys.size > 0 ? '; check the prefix, as in "h.0.ln_1."' : "";
    throw new RangeError(`${where}: ${problems.join(", ")}${more}${cure}`);
  }
  for (const [{ data }, floats] of loads) data.set(floats);
  return { missingKeys, unexpectedKeys };
}

/** The values of an entry, as a copy. */
function floatsOf(where: string, value: unknown): Float32Array {
  const storage = storageIn(value);
  if (storage) {
    if (storage.pointer === 0) throw new TypeError(`${where} was disposed`);
    storage.runtime.settle();
    return storage.data.slice();
  }
  const { dtype, data } = (value ?? {}) as RawFloats;
  if (dtype !== undefined) return floatsFromBits(where, dtype, data);
  return new Float32Array(check.checkNumbers(where, value, check.FLOATS, EXPECTED));
}

/** The floats that bits stand for. Every 16-bit float is a float32, too: nothing is rounded. */
function floatsFromBits(where: string, dtype: unknown, data: unknown): Float32Array {
  const type = String(dtype).toLowerCase().replace("torch.", "").replace("half", "f16").replace("float", "f");
  if (!["bf16", "f16", "f32"].includes(type)) check.wrongType(`${where}: dtype`, dtype, '"bf16", "f16" or "f32"');
  const kind = check.tagOf(data) ?? "";
  if (!check.hasBytes(data) || (check.FLOATS.test(kind) && !kind.includes(type.slice(1))))
    check.wrongType(`${where}: data`, data, `raw "${type}" data, as integers or bytes`);
  const bytes = check.bytesOf(data).slice();
  const width = type === "f32" ? 4 : 2;
  if (bytes.length % width !== 0)
    check.wrongValue(`${where}: data.byteLength`, bytes.length, `a multiple of ${width} for "${type}"`);
  if (type === "f32") return new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer);
  if (type === "bf16") return new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer);
  return new Float32Array(Uint32Array.from(halves, bitsOfF16).buffer).map((number) => number * 2 ** 112);
}

/** The bits of a float32 that is 2 ** -112 times a float16: its fields are wider, and its exponent has another bias. */
const bitsOfF16 = (bits: number) =>
  // All ones in the exponent stand for infinity and NaN, and stay all ones.
  (((bits << 16) >> 3) & 0x8fffffff) | ((bits & 0x7c00) === 0x7c00 ? 0x70000000 : 0);
