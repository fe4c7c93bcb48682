/**
 * What a call reads and writes, once it is checked: Tensors, and arrays of numbers with their copies.
 * @module
 */

import { checkAttached, isShared, readTruly } from "./check.js";
import { Runtime } from "./runtime.js";
import { type Storage, storageIn } from "./tensor.js";

/** What a call does with an operand: its array is copied in before the kernel runs, or out afterwards, or both. */
export const READ = 1;
export const WRITTEN = 2;

/** An array that a call takes. */
export class ArrayOperand {
  readonly shape = null;
  readonly size: number;
  /** Where the kernel finds it, if not at home: that of a copy, once it has a place. */
  pointer: number;
  /** A copied array that was taken after it, whose place the copy takes. */
  over: ArrayOperand | null = null;
  /**
   * @param index its place among the arguments of the kernel
   * @param step how many of its numbers belong to one row; 0 where all rows have them in common
   * @param home its address in the memory of the runtime; 0 for one that lies elsewhere, and is copied
   * @param next the array that was taken before it
   */
  constructor(
    public array: Float32Array,
    readonly mode: number,
    readonly index: number,
    readonly step: number,
    readonly home: number,
    readonly next: ArrayOperand | null,
  ) {
    this.pointer = home;
    // Of a copy a wrong length is an error or a wrong result. The memory itself must not be read or written by it.
    this.size = home === 0 ? array.length : readTruly<number>(array, "length");
  }

  /** Takes another view of memory that has grown. An array that isn't at home there can't be copied any more. */
  renew(runtime: Runtime, where: string): void {
    if (this.home !== 0) this.array = runtime.view(this.home, this.size);
    else checkAttached(where, this.array);
  }

  /** Only of Tensors it is noted that they are overwritten. */
  overwrite(_writer: string, _written: string): void {}
}

/** A checked operand: what a Tensor is made of, whose `array` is null, or an array, whose `shape` is null. */
export type Place = Storage | ArrayOperand;

/** Whether two arrays have bytes in common. */
export const overlap = (a: Float32Array, b: Float32Array) =>
  a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;

/** Whether writing some rows of one of these arrays may change what is read with later rows. */
export function entangled(last: ArrayOperand | null): boolean {
  for (let a = last; a !== null; a = a.next) {
    if (isShared(a.array.buffer)) return true; // two buffers may be one memory
    for (let b = a.next; b !== null; b = b.next) {
      const [one, other] = [a.array, b.array];
      const same = one.byteOffset === other.byteOffset && one.byteLength === other.byteLength && a.step === b.step;
      if (!same && overlap(one, other)) return true;
    }
  }
  return false;
}

/** Has the copy of an array take the place of another's copy. */
export function share(place: Place | null, over: Place | null): void {
  if (place?.array && over?.array && place.home === 0 && over.home === 0) place.over = over;
}

/** The runtime of the first Tensor among values; the default where there is none. */
export const runtimeOf = (...values: readonly unknown[]): Runtime =>
  values.map((value) => storageIn(value)?.runtime).find((runtime) => runtime !== undefined) ?? Runtime.default;
