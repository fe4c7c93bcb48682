/**
 * What calls take and return: Tensors and arrays of numbers.
 *
 * Calls return `NoInfer` of the type of `out`. Without it, if `out` is absent, the compiler would infer its type from
 * the type that the caller expects.
 * @module
 */

import type { Tensor } from "./tensor.js";

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
export type Target<T extends Operand = Operand> = T extends Tensor ? Tensor : Floats;
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
