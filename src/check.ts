/**
 * Checks of arguments, and the words in which errors describe them.
 * @module
 */

/** A property of a typed array as it is, whatever an object or a subclass says of itself. */
export const readTruly = <T>(array: unknown, name: string | symbol): T =>
  Reflect.get(Float32Array.prototype, name, array);

/** The buffer of a typed array. */
export const bufferOf = (array: Float32Array) => readTruly<ArrayBufferLike>(array, "buffer");

/** The name of a typed array's own class, of this realm or another; undefined for anything else. */
export const tagOf = (value: unknown) => readTruly<string | undefined>(value, Symbol.toStringTag);

/** What is shown of an object, by `console.log` in Node, Deno and Bun, in a template and by `JSON.stringify`. */
export abstract class Shown {
  abstract toString(): string;

  toJSON(): string {
    return this.toString();
  }

  /** @internal */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
}

/** The name of an object's own class, of this realm or another, as in "WebAssembly.Module". */
export const classOf = (value: unknown): string => Object.prototype.toString.call(value).slice(8, -1);

export const isShared = (buffer: ArrayBufferLike) => classOf(buffer) === "SharedArrayBuffer";

/** Whether something is a typed array or a buffer. */
export const hasBytes = (value: unknown) => ArrayBuffer.isView(value) || classOf(value).endsWith("ArrayBuffer");

/** The bytes of a typed array or a buffer, where they are. */
export function bytesOf(source: unknown): Uint8Array<ArrayBuffer> {
  const { buffer = source, byteOffset, byteLength } = source as ArrayBufferView;
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** What came, in the words of an error. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) {
    const shown = value.slice(0, 8).map((element) => (Array.isArray(element) ? "[...]" : describe(element)));
    return `[${shown.join(", ")}${value.length > 8 ? ", ..." : ""}]`;
  }
  if (typeof value === "function" || typeof value === "bigint") return `a ${typeof value}`;
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name || "Object";
    return `a${/^[AEIO]/.test(name) ? "n" : ""} ${name}`;
  }
  return String(value);
}

/** Throws the error for an argument of the wrong kind. */
export function wrongType(where: string, value: unknown, expected: string): never {
  throw new TypeError(`${where} is ${describe(value)}, expected ${expected}`);
}

/** Throws the error for an argument of the wrong size or value. */
export function wrongValue(where: string, value: unknown, expected: string): never {
  throw new RangeError(`${where} is ${describe(value)}, expected ${expected}`);
}

/** Throws the error for an argument of the wrong shape or number of elements. */
export function wrongSize(where: string, got: readonly number[] | number, expected: string): never {
  const has = typeof got === "number" ? `${got} elements` : `the shape ${describe(got)}`;
  throw new RangeError(`${where} has ${has}, expected ${expected}`);
}

/**
 * Checks that a block at an address lies in a memory, which ends at `end`.
 * @param refuse throws the error where it doesn't
 */
export function checkAddress(where: string, address: unknown, bytes: number, end: number, refuse = wrongValue): number {
  if (typeof address !== "number") wrongType(where, address, "a number");
  if (address > 0 && address % 4 === 0 && address + bytes <= end) return address;
  return refuse(where, address, `a multiple of 4 with room for ${bytes} bytes in a memory of ${end}`);
}

/** Options must be an object with these properties of its own: a misspelled one would be ignored. */
export function checkOptions(where: string, options: unknown, names: readonly string[]): void {
  if (typeof options !== "object" || options === null || options instanceof Shown || ArrayBuffer.isView(options)) {
    wrongType(`${where}: options`, options, "an object");
  }
  for (const name in options) if (!names.includes(name)) refuseOption(where, options, name, names);
}

function refuseOption(where: string, options: object, name: string, names: readonly string[]): void {
  if (!Object.keys(options).includes(name)) return;
  throw new TypeError(`${where}: ${describe(name)} is not an option, expected ${names.join(", ")}`);
}

/** A view of memory that has grown since is detached, and empty. So is an array that was posted to another thread. */
export function checkAttached(where: string, array: ArrayBufferView): void {
  try {
    new Uint8Array(array.buffer);
  } catch {
    throw new TypeError(`${where} is detached, as its memory has grown or was transferred; get tensor.data again`);
  }
}

/** The number of elements of a shape. */
export const sizeOf = (shape: readonly number[]) => shape.reduce((size, dimension) => size * dimension, 1);

export const sameShape = (a: readonly number[], b: readonly number[]) =>
  a === b || (a.length === b.length && endsWith(a, b));

/** Whether the last dimensions of `shape` are `trailing`. */
export function endsWith(shape: readonly number[], trailing: readonly number[]): boolean {
  const leading = shape.length - trailing.length;
  // A loop, because every call of a module comes through here, and a closure costs as much as a row.
  for (let i = 0; i < trailing.length; i++) if (shape[leading + i] !== trailing[i]) return false;
  return true;
}

/** `value` as a list of integers, each at least `least`; a copy. */
export function checkShape(where: string, value: unknown, least: number, expected: string): readonly number[] {
  if (!Array.isArray(value)) wrongType(where, value, expected);
  const shape: number[] = [...value];
  if (shape.some((dimension) => typeof dimension !== "number")) wrongType(where, shape, "a list of integers");
  if (shape.some((dimension) => !Number.isInteger(dimension) || dimension < least))
    wrongValue(where, shape, `integers of ${least} or more`);
  if (!Number.isSafeInteger(sizeOf(shape))) wrongValue(where, shape, "a size that can be counted");
  return shape;
}

/** The shape that is normalized, and how many elements it has. */
export type Normalized = { shape: readonly number[]; size: number };

/** A positive integer or a non-empty list of them. */
export function checkNormalizedShape(where: string, value: unknown): Normalized {
  const dimensions = typeof value === "number" ? [value] : value;
  const shape = checkShape(where, dimensions, 1, "a positive integer or a list of them");
  if (shape.length === 0) wrongValue(where, shape, "at least one dimension");
  return { shape, size: sizeOf(shape) };
}

export function checkEps(where: string, value: unknown): number {
  if (typeof value !== "number") wrongType(where, value, "a number");
  if (!(value >= 0 && value < Infinity)) wrongValue(where, value, "a finite number of 0 or more");
  return value;
}

export function checkBoolean(where: string, value: unknown): boolean {
  if (typeof value !== "boolean") wrongType(where, value, "true or false");
  return value;
}

/**
 * A typed array as it is, or a list of numbers as a new one.
 * @param kinds which typed arrays
 * @param expected for an error
 */
export function checkNumbers(where: string, value: unknown, kinds: RegExp, expected: string): Float32Array {
  if (kinds.test(tagOf(value) ?? "")) {
    checkAttached(where, value as Float32Array);
    return value as Float32Array;
  }
  if (!Array.isArray(value)) wrongType(where, value, expected);
  const numbers: number[] = [...value];
  const odd = numbers.findIndex((element) => typeof element !== "number");
  if (odd < 0) return new Float32Array(numbers);
  const cure = Array.isArray(numbers[odd]) ? "; list.flat(Infinity) makes a flat list" : "";
  wrongType(`${where}[${odd}]`, numbers[odd], `a number${cure}`);
}

/** What holds numbers, in the words of an error. */
export const NUMBERS = "a Tensor, an array of floats or a list of numbers";
export const INTEGERS = "Float32Array.from converts integers";

/** Typed arrays that an operand may be. */
export const FLOATS = /^Float/;

const ownClass = (array: Float32Array): Float32ArrayConstructor => Reflect.get(globalThis, tagOf(array) as string);

/** A new array of zeros, of the class of another, whatever a subclass says. */
export const arrayLike = (array: Float32Array, length: number): Float32Array => new (ownClass(array))(length);

/** A part of an array. It calls no code of a subclass, and is never longer than the array is. */
export function partOf(array: Float32Array, from: number, length: number): Float32Array {
  const whole = new (ownClass(array))(bufferOf(array), readTruly(array, "byteOffset"), readTruly(array, "length"));
  return whole.subarray(from, from + length);
}
