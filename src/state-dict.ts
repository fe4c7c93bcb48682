/**
 * Parameters by name, as checkpoints hold them.
 * @module
 */

import * as check from "./check.js";
import { type Parameter, type Storage, storageOf, type Tensor } from "./tensor.js";

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
const CURE = 'pass 16-bit floats as { dtype: "bf16", data } or { dtype: "f16", data }, integers as Array.from(array)';
/** How many names a message lists at most. */
const LISTED = 10;

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
  const ofMap = dict instanceof Map ? "; Object.fromEntries(map) makes one of a Map" : "";
  if (ofMap || typeof dict !== "object" || dict === null)
    check.wrongType(`${where}: dict`, dict, `an object of arrays${ofMap}`);
  const given = Object.entries(dict).filter(([key, value]) => key.startsWith(prefix) && value !== undefined);
  const entries = new Map<string, unknown>(given);
  const missingKeys: string[] = [];
  const problems: string[] = [];
  const loads: [Storage, Float32Array][] = [];
  for (const [name, parameter] of parameters) {
    const names = ALIASES[name].map((alias) => prefix + alias);
    const key = names.find((name) => entries.has(name));
    if (key === undefined) {
      missingKeys.push(prefix + name);
      problems.push(`${names.join(" or ")} is missing`);
      continue;
    }
    const storage = storageOf(parameter);
    const floats = floatsOf(`${where}: ${key}`, entries.get(key));
    entries.delete(key);
    if (floats.length !== storage.size) check.wrongSize(`${where}: ${key}`, floats.length, `${storage.size}`);
    loads.push([storage, floats]);
  }
  const unexpectedKeys = [...entries.keys()];
  problems.push(...unexpectedKeys.slice(0, LISTED).map((key) => `${check.describe(key)} is unknown`));
  const more = unexpectedKeys.length - LISTED;
  if (strict && problems.length > 0) {
    const rest = more > 0 ? ` and ${more.toLocaleString("en")} more` : "";
    const cure = entries.has(`${prefix}.weight`) ? `; the prefix may be ${check.describe(`${prefix}.`)}` : "";
    throw new RangeError(`${where}: ${problems.join(", ")}${rest}${cure}`);
  }
  for (const [storage, floats] of loads) storage.data.set(floats);
  return { missingKeys, unexpectedKeys };
}

/** The values of an entry, as a copy. */
function floatsOf(where: string, value: unknown): Float32Array {
  const storage = storageOf(value);
  if (storage) {
    if (storage.pointer === 0) throw new TypeError(`${where} was disposed`);
    storage.runtime.settle();
    return storage.data.slice();
  }
  let cure = "";
  const tag = check.tagOf(value);
  if (tag && !check.FLOATS.test(tag)) check.wrongType(where, value, `floats; ${CURE}`);
  if (!tag && typeof value === "object" && value !== null && !Array.isArray(value)) {
    const { dtype, data } = value as Partial<RawFloats>;
    if (dtype !== undefined) return floatsFromBits(where, dtype, data);
    if ("0" in value) cure = "; JSON makes numbered properties of a typed array, save Array.from(array) instead";
  }
  const expected = `an array of floats, a list of numbers, a Tensor or { dtype, data }${cure}`;
  return new Float32Array(check.checkNumbers(where, value, check.FLOATS, expected));
}

/** The floats that bits stand for. Every 16-bit float is a float32, too: nothing is rounded. */
function floatsFromBits(where: string, dtype: unknown, data: unknown): Float32Array {
  const name = typeof dtype === "string" ? dtype.toLowerCase().replace("torch.", "") : "";
  const type = name === "half" ? "f16" : name.replace("float", "f");
  if (!["bf16", "f16", "f32"].includes(type)) check.wrongType(`${where}: dtype`, dtype, '"bf16", "f16" or "f32"');
  const held = ArrayBuffer.isView(data) || /^(Shared)?ArrayBuffer$/.test(check.classOf(data));
  if (!held) check.wrongType(`${where}: data`, data, "a typed array or an ArrayBuffer");
  const bytes = check.bytesOf(data).slice();
  const width = type === "f32" ? 4 : 2;
  if (bytes.length % width !== 0) {
    throw new RangeError(`${where}: data has ${bytes.length} bytes, expected a multiple of ${width} for "${type}"`);
  }
  if (type === "f32") return new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer);
  if (type === "bf16") return new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer);
  return Float32Array.from(halves, numberOfF16);
}

/** The number that the bits of a float16 stand for (IEEE 754: 1 sign, 5 exponent and 10 mantissa bits). */
function numberOfF16(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  // A subnormal has the exponent of the smallest normal number, without its leading bit.
  return sign * 2 ** (Math.max(exponent, 1) - 25) * (exponent === 0 ? fraction : fraction + 1024);
}
