/**
 * What a call reads and writes: Tensors and arrays of numbers.
 * @module
 */

import { isShared, readTruly } from "./check.js";
import { Runtime } from "./runtime.js";
import { type Storage, storageOf, type Tensor } from "./tensor.js";

/** A Float16Array, in words of its own: not every library of types has it. */
export interface HalfFloats {
  readonly [Symbol.toStringTag]: "Float16Array";
  readonly length: number;
  readonly buffer: ArrayBufferLike;
  [index: number]: number;
}
/** An array of floats, which can be written to. */
export type Floats = Float32Array | Float64Array | HalfFloats;
/** What holds numbers: a Tensor, which is used where it lies, or an array, which is copied. */
export type Operand = Tensor | Floats | readonly number[];
/** What may be added to an operand: a Tensor to a Tensor, an array to an array. */
export type Beside<T extends Operand> = T extends Tensor ? Tensor : Exclude<Operand, Tensor>;
/** What a result may be written to: a Tensor for a Tensor, floats for an array. */
export type Target<T extends Operand> = T extends Tensor ? Tensor : Floats;
/** The type of a new result: a Tensor for a Tensor, an array for an array, a Float32Array for a list of numbers. */
export type ResultOf<T extends Operand> = T extends Tensor
  ? Tensor
  : T extends Float64Array
    ? Float64Array<ArrayBuffer>
    : T extends HalfFloats
      ? T
      : Float32Array<ArrayBuffer>;

/** What a forward pass reads and writes beside x, each of the shape of x. */
export interface ForwardOptions<T extends Operand, Out = Target<T>> {
  /** Receives the result, and is what the call returns. Without it, the call makes a new Tensor or array. */
  out?: Out | undefined;
  /** Added to x: the result is the norm of x + residual. */
  residual?: NoInfer<Beside<T>> | undefined;
  /** Receives x + residual, of which the result is the norm. */
  sum?: NoInfer<Target<T>> | undefined;
}

/** What a backward pass reads and writes beside dy, each of the shape of dy. */
export interface BackwardOptions<T extends Operand, Out = Target<T>> {
  /** Receives dx, and is what the call returns. Without it, the call makes a new Tensor or array. */
  out?: Out | undefined;
  /** Added to dx. */
  add?: NoInfer<Beside<T>> | undefined;
}

/** What a call does with an operand: its array is copied in before the kernel runs, or out afterwards, or both. */
export const READ = 1;
export const WRITTEN = 2;

/** An array that a call takes. */
export class ArrayOperand {
  readonly shape = null;
  readonly size: number;
  /** Where the kernel finds it, if not at home: that of a copy, once it has a place. */
  pointer: number;
  /** Whether the copy has room for all rows, even if they are computed in blocks. */
  whole = false;
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

  /** Has it copied to where it is kept, or back from there. */
  keepAt(kept: number): void {
    this.pointer = kept;
    this.whole = true;
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
      const same = a.array.byteOffset === b.array.byteOffset && a.size === b.size && a.step === b.step;
      if (!same && overlap(a.array, b.array)) return true;
    }
  }
  return false;
}

/** Has the copy of an array take the place of another's copy. */
export function share(place: Place | null, over: Place | null): void {
  if (place?.array && over?.array && place.home === 0 && over.home === 0) place.over = over;
}

/** The runtime of the first Tensor among values; the default where there is none. */
export function runtimeOf(...values: readonly unknown[]): Runtime {
  return values.map(storageOf).find((storage) => storage !== undefined)?.runtime ?? Runtime.default;
}
