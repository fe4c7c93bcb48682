/**
 * What arguments are checked with, and the words errors describe them in.
 * @module
 */

/** What came, in the words of an error. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) {
    const shown = value.slice(0, 8).map((element) => (Array.isArray(element) ? "[...]" : describe(element)));
    return `[${shown.join(", ")}${value.length > 8 ? ", ..." : ""}]`;
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name || "Object";
    return /^(?!Uint|URL)[AEIOU]/.test(name) ? `an ${name}` : `a ${name}`;
  }
  return String(value);
}

/** Options must be an object, and of these names: a misspelled one would be lost without a word. */
export function checkOptions(where: string, options: unknown, names: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`${where}: options is ${describe(options)}, expected an object`);
  }
  for (const name in options) {
    if (!names.includes(name)) {
      throw new TypeError(`${where}: ${describe(name)} is not an option, expected ${names.join(", ")}`);
    }
  }
}

/** A view of memory that has grown since is detached from it, and empty. */
export function checkAttached(where: string, array: ArrayBufferView & { length: number }): void {
  if (array.length > 0) return;
  try {
    new Uint8Array(array.buffer);
  } catch {
    throw new TypeError(`${where} is a detached view: the memory has grown since; take the tensor's data anew`);
  }
}

/** Whether a value is a Float32Array, of this realm or another. */
export function isFloat32Array(value: unknown): value is Float32Array {
  return (
    ArrayBuffer.isView(value) && (value as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] === "Float32Array"
  );
}

/** The number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((size, dimension) => size * dimension, 1);
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && endsWith(a, b);
}

/** Whether the last dimensions of `shape` are `trailing`. */
export function endsWith(shape: readonly number[], trailing: readonly number[]): boolean {
  const leading = shape.length - trailing.length;
  // A loop, because every call of the module comes through here, and a closure costs as much as a row.
  for (let i = 0; i < trailing.length; i++) if (shape[leading + i] !== trailing[i]) return false;
  return true;
}

/** `value` as a frozen list of integers, each at least `least`. */
export function checkShape(where: string, value: unknown, least: number): readonly number[] {
  if (!Array.isArray(value)) {
    throw new TypeError(`${where} is ${describe(value)}, expected a list of integers`);
  }
  for (const dimension of value) {
    if (typeof dimension !== "number") {
      throw new TypeError(`${where} is ${describe(value)}, expected a list of integers`);
    }
    if (!Number.isInteger(dimension) || dimension < least) {
      throw new RangeError(`${where} is ${describe(value)}, expected integers of ${least} or more`);
    }
  }
  if (!Number.isSafeInteger(sizeOf(value))) {
    throw new RangeError(`${where} is ${describe(value)}, which is more elements than can be counted`);
  }
  return Object.freeze([...value]);
}

/** `value`, a positive integer or a non-empty list of them, as a list. */
export function checkNormalizedShape(where: string, value: unknown): readonly number[] {
  if (typeof value !== "number" && !Array.isArray(value)) {
    throw new TypeError(`${where} is ${describe(value)}, expected a positive integer or a list of them`);
  }
  if (Array.isArray(value) && value.length === 0) {
    throw new RangeError(`${where} is [], expected at least one dimension`);
  }
  return checkShape(where, typeof value === "number" ? [value] : value, 1);
}

export function checkEps(where: string, value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`${where} is ${describe(value)}, expected a number`);
  if (!(value >= 0 && value < Infinity)) {
    throw new RangeError(`${where} is ${value}, expected a finite number of 0 or more`);
  }
  return value;
}

export function checkBoolean(where: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new TypeError(`${where} is ${describe(value)}, expected true or false`);
  return value;
}

/** A list of numbers or a typed array of them. */
export function checkNumbers(where: string, value: unknown): ArrayLike<number> {
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const array = value as Float32Array;
    if (!/^Big/.test(array[Symbol.toStringTag])) {
      checkAttached(where, array);
      return array;
    }
  } else if (Array.isArray(value)) {
    const odd = value.findIndex((element) => typeof element !== "number");
    if (odd < 0) return value;
    throw new TypeError(`${where} has ${describe(value[odd])} at ${odd}, expected a flat list of numbers`);
  }
  throw new TypeError(`${where} is ${describe(value)}, expected a Float32Array or a list of numbers`);
}
