// What the tests share: seeded numbers, and a memory that notices what is written to it.

import type { Kernels } from "../src/index.js";
import { moduleOf } from "./builds.js";

export { bell, between, normal, uniform } from "./random.js";

export const COLS = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 768, 1023];
export const ROWS = [0, 1, 2, 3, 5];

/** Numbers of rows and columns, as in "3x23 5x64". */
export const shapesOf = (list: string) =>
  list.split(" ").map((shape) => shape.split("x").map(Number) as [number, number]);

/** What `using` calls: where an engine has no `Symbol.dispose` yet, what compilers put in its place. */
export const DISPOSE: typeof Symbol.dispose = Symbol.dispose ?? Symbol.for("Symbol.dispose");

/** The index of the first float whose bits differ, or -1; `toEqual` takes seconds for as many as some tests have. */
export function difference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((value, i) => !Object.is(value, b[i]));
}

export type Resizable = ArrayBuffer & { resize(bytes: number): void };

/** A buffer that can be made smaller, or twice as large. */
export const resizable = (bytes: number) =>
  new (ArrayBuffer as unknown as new (bytes: number, options: object) => Resizable)(bytes, {
    maxByteLength: 2 * bytes,
  });

const GUARD = 64;
// Read as a float or a double, a NaN: garbage that is read shows in the result.
const PATTERN = 0xff;
// What lies behind an output. Read as a float it is 3: an addition to it shows, whereas NaN + NaN is the same NaN.
const BEHIND = 0x40;

type Instance = Pick<Arena, "memory" | "kernels">;

function instantiate(build: string, initial: number): Instance {
  const memory = new WebAssembly.Memory({ initial });
  const { exports } = new WebAssembly.Instance(moduleOf(build), { env: { memory } });
  return { memory, kernels: exports as unknown as Kernels };
}

/** Of ended arenas, by build and pages. Thousands of new memories would take minutes, or all room, in some engines. */
const spares = new Map<string, Instance[]>();

/**
 * A memory of its own for one call of a kernel. Every operand lies between guard bytes; `strayWrite` then tells whether
 * anything but the outputs was touched: guards, inputs, and all the rest of the memory.
 */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly kernels: Kernels;
  readonly #spare: Instance[];
  #next: number;
  #outputs: [number, number][] = [];
  #before: Uint8Array | undefined;

  /** @param floats room for about so many @param misalignment of every operand, in bytes, from a multiple of 16 */
  constructor(build: string, floats: number, misalignment = 0) {
    const initial = Math.ceil((floats * 4 + 20 * GUARD) / 65536) + 1;
    const kind = `${build} ${initial}`;
    this.#spare = spares.get(kind) ?? [];
    spares.set(kind, this.#spare);
    const { memory, kernels } = this.#spare.pop() ?? instantiate(build, initial);
    this.memory = memory;
    this.kernels = kernels;
    new Uint8Array(this.memory.buffer).fill(PATTERN);
    this.#next = GUARD + misalignment;
  }

  #place(length: number): number {
    const pointer = this.#next;
    // As far again past a multiple of 16.
    this.#next = pointer + Math.ceil((length * 4 + GUARD) / 16) * 16;
    return pointer;
  }

  /** Places an input; null is pointer 0. */
  input(data: ArrayLike<number> | null): number {
    if (!data) return 0;
    const pointer = this.#place(data.length);
    new Float32Array(this.memory.buffer, pointer, data.length).set(data);
    return pointer;
  }

  /** Places an output of `length` floats, of garbage or, where it is to be added to, of `data`; not wanted is pointer 0. */
  output(length: number, wanted = true, data?: ArrayLike<number>): number {
    if (!wanted) return 0;
    const pointer = this.#place(length);
    if (data) new Float32Array(this.memory.buffer, pointer, length).set(data);
    new Uint8Array(this.memory.buffer).fill(BEHIND, pointer + length * 4, this.#next);
    this.allow(pointer, length);
    return pointer;
  }

  /** Lets the kernel write to `length` floats at `pointer`. */
  allow(pointer: number, length: number): void {
    this.#outputs.push([pointer, length * 4]);
  }

  /** To be called before the kernel is. */
  seal(): void {
    this.#before = new Uint8Array(this.memory.buffer).slice();
  }

  /** A copy of `length` floats at `pointer`. */
  floats(pointer: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, pointer, length).slice();
  }

  /** The address of the first byte outside of the outputs that has changed since `seal`, or -1. */
  strayWrite(): number {
    const now = new Uint8Array(this.memory.buffer).slice();
    const before = this.#before;
    if (!before) throw new Error("seal the arena before calling the kernel");
    for (const [pointer, bytes] of this.#outputs) now.set(before.subarray(pointer, pointer + bytes), pointer);
    for (let i = 0; i < now.length; i++) if (now[i] !== before[i]) return i;
    return -1;
  }

  /** Ends the arena: a later one may take its memory. */
  dispose(): void {
    const { memory, kernels } = this;
    this.#spare.push({ memory, kernels });
  }
}
