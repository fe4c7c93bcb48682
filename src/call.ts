/**
 * One call of a norm: its checked operands, its scratch memory, its results. Modules and functions, arrays and Tensors,
 * blocking and not: all go through here.
 *
 * A Tensor is used where it lies, and so is a Float32Array in the memory of the runtime. Any other array is copied to
 * scratch memory and back: all at once, or by blocking calls in blocks of rows that stay in the second-level cache.
 * A call has three steps, and only the last one writes to operands:
 *
 * 1. take the operands, each of which is checked, against those that it may not overlap, too;
 * 2. place: make the results that are not given, find memory for copies and sums;
 * 3. run, or start without blocking.
 * @module
 */

import {
  bufferOf,
  checkAttached,
  checkList,
  describe,
  endsWith,
  isShared,
  lengthOf,
  type Normalized,
  offsetOf,
  overlap,
  sameShape,
  sizeOf,
  tagOf,
  wrongSize,
  wrongType,
} from "./check.js";
import { addSums, call, callRows, type Kernel, type KernelCall, type Kernels, stridesOf, sumsRows } from "./kernels.js";
import { Runtime, type Scratch } from "./runtime.js";
import { Storage, storageOf, type Tensor, tensorFrom } from "./tensor.js";

/** A Float16Array, in words of its own: not every library of types has it. */
export interface HalfFloats {
  readonly [Symbol.toStringTag]: "Float16Array";
  readonly length: number;
  readonly buffer: ArrayBufferLike;
  [index: number]: number;
}
/** An array of floats, which can be written to. */
export type Floats = Float32Array | Float64Array | HalfFloats;
/** What holds numbers: a Tensor, which is used where it lies, or an array of floats or numbers. */
export type Operand = Tensor | Floats | readonly number[];
/** What may be added to an operand: a Tensor to a Tensor, an array to an array. */
export type Beside<T extends Operand> = T extends Tensor ? Tensor : Exclude<Operand, Tensor>;
/** What a result may be written to: a Tensor for a Tensor, floats for an array. */
export type Target<T extends Operand> = T extends Tensor ? Tensor : Floats;
/** A new result: a Tensor for a Tensor, an array of the kind of an array, a Float32Array for a list of numbers. */
export type ResultOf<T extends Operand> = T extends Tensor
  ? Tensor
  : T extends Float64Array
    ? Float64Array<ArrayBuffer>
    : T extends HalfFloats
      ? T
      : Float32Array<ArrayBuffer>;

/** What a forward pass reads and writes beside x, each of the shape of x. */
export interface ForwardOptions<T extends Operand, Out = Target<T>> {
  /** What to write the result to, and to return. */
  out?: Out | undefined;
  /** Added to x before it is normalized. */
  residual?: NoInfer<Beside<T>> | undefined;
  /** What to write x + residual to. */
  sum?: NoInfer<Target<T>> | undefined;
}

/** What a backward pass reads and writes beside dy, each of the shape of dy. */
export interface BackwardOptions<T extends Operand, Out = Target<T>> {
  /** What to write the result to, and to return. */
  out?: Out | undefined;
  /** Added to the gradient of x. */
  add?: NoInfer<Beside<T>> | undefined;
}

/** What a call does with an operand: its array is copied in before the kernel runs, or out afterwards, or both. */
export const READ = 1;
export const WRITTEN = 2;
/** All rows have it in common. */
export const SHARED = 4;

/** An array that was given, or is to be returned. */
export class ArrayOperand {
  array: Floats & ArrayBufferView;
  readonly mode: number;
  /** Its place among the arguments of the kernel. */
  readonly index: number;
  readonly size: number;
  readonly shape = null;
  /** Where it lies in the memory of the runtime; 0 for one that lies elsewhere, and is copied. */
  readonly pointer: number;
  /** Where its copy is, of all rows or of those of a block; 0 without one. */
  copy = 0;
  /** How many bytes the copy moves from one block to the next, for each row. */
  stride = 0;
  /** Another copied array, whose place the copy takes. */
  over: ArrayOperand | null = null;
  /** How many of its numbers belong to a row; 0 where all rows share them. */
  rowSize = 0;
  next: ArrayOperand | null = null;

  constructor(array: Floats & ArrayBufferView, mode: number, index: number, pointer: number) {
    this.array = array;
    this.mode = mode;
    this.index = index;
    this.size = lengthOf(array);
    this.pointer = pointer;
  }
}

/** A checked operand: what a Tensor is made of, whose `array` is null, or an array, whose `shape` is null. */
export type Place = Storage | ArrayOperand;

const { set, subarray } = Object.getPrototypeOf(Float32Array.prototype) as Float32Array;
const ALIGNMENT = 16;
const aligned = (bytes: number) => bytes + (-bytes & (ALIGNMENT - 1));

/** An operand as the caller gets it, once the call is done: a view that the memory has detached is another one. */
export function handOut(operand: Operand, place: Place | null): Operand {
  return place?.array ?? operand;
}

/** The runtime of the first Tensor among values; the default where there is none. */
export function runtimeOf(...values: readonly unknown[]): Runtime {
  for (const value of values) {
    const storage = storageOf(value);
    if (storage !== undefined) return storage.runtime;
  }
  return Runtime.default;
}

function overlaps(a: Place, b: Place): boolean {
  if (a.pointer !== 0 && b.pointer !== 0)
    return a.pointer < b.pointer + b.size * 4 && b.pointer < a.pointer + a.size * 4;
  return a.pointer === b.pointer && a.array !== null && b.array !== null && overlap(a.array, b.array);
}

/** Has the copy of an array take the place of another's copy. Does nothing where either is not copied. */
function share(place: Place | null, over: Place | null): void {
  if (place === null || place.array === null || place.pointer !== 0) return;
  if (over !== null && over.array !== null && over.pointer === 0) place.over = over;
}

/** A call, whose arguments are filled in step by step. One class for both passes: a derived one is slower to make. */
export class Call implements KernelCall {
  /** The method or function, in errors. */
  readonly where: string;
  readonly runtime: Runtime;
  readonly kernel: Kernel;
  readonly args = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  normalized: Normalized;
  rows = 0;
  /** x of forward, dy of backward. */
  source: Place | null = null;
  /** What is added to it, or to its gradient: residual or add. */
  addend: Place | null = null;
  sum: Place | null = null;
  /** y or dx. */
  out: Place | null = null;
  weight: Place | null = null;
  bias: Place | null = null;
  /** What only backward takes. */
  x: Place | null = null;
  mean: Place | null = null;
  rstd: Place | null = null;
  dweight: Place | null = null;
  dbias: Place | null = null;
  /** What the caller gets for `out`. */
  #result: Operand | undefined;
  /** Whether the caller goes on before it is done. */
  readonly #concurrent: boolean;
  #first: ArrayOperand | null = null;
  #last: ArrayOperand | null = null;
  #made: Tensor[] | null = null;
  #scratch: Scratch | null = null;
  /** How many rows of arrays are copied at a time. */
  #blockRows = 0;

  constructor(where: string, runtime: Runtime, kernel: Kernel, normalized: Normalized, concurrent = false) {
    this.where = where;
    this.runtime = runtime;
    this.kernel = kernel;
    this.normalized = normalized;
    this.#concurrent = concurrent && runtime.concurrent;
  }

  /** Takes an argument of the kernel: a Tensor of the runtime that is not disposed, or an array of numbers. */
  take(name: string, index: number, value: unknown, mode: number): Place {
    const tag = tagOf(value);
    if (tag === "Float32Array" || tag === "Float64Array" || tag === "Float16Array") {
      return this.#takeArray(name, index, value as Float32Array, mode, tag);
    }
    const storage = storageOf(value);
    if (storage !== undefined) {
      if (storage.pointer === 0) throw new TypeError(`${this.where}: ${name} was disposed`);
      if (storage.runtime !== this.runtime) throw new TypeError(`${this.where}: ${name} belongs to another runtime`);
      this.args[index] = storage.pointer;
      return storage;
    }
    const list = mode & WRITTEN ? undefined : checkList(`${this.where}: ${name}`, value);
    if (list) return this.#takeArray(name, index, list, mode, "");
    const cure = tag === "Uint16Array" ? "; new Float16Array(array.buffer) reads half floats" : "";
    wrongType(`${this.where}: ${name}`, value, `a Float32Array or a Tensor${cure}`);
  }

  #takeArray(name: string, index: number, array: Float32Array, mode: number, tag: string): ArrayOperand {
    const offset = this.runtime.offsetOf(array);
    if (offset === 0 || (offset > 0 && tag !== "Float32Array")) {
      throw new TypeError(
        `${this.where}: ${name} is ${describe(array)} at ${offset} of the runtime's memory, expected a Float32Array above 0`,
      );
    }
    const operand = new ArrayOperand(array, mode, index, Math.max(offset, 0));
    if (operand.size === 0) checkAttached(`${this.where}: ${name}`, array);
    this.args[index] = operand.pointer;
    if (this.#last === null) this.#first = operand;
    else this.#last.next = operand;
    this.#last = operand;
    return operand;
  }

  /** Takes x or dy. */
  takeSource(name: string, index: number, value: unknown): Place {
    const source = this.take(name, index, value, READ);
    this.checkRows(name, source);
    this.source = source;
    return source;
  }

  /** The trailing dimensions of a Tensor, or the length of an array, must fit. */
  checkRows(name: string, source: Place): void {
    const { shape, size } = this.normalized;
    if (source.shape === null ? source.size % size !== 0 : !endsWith(source.shape, shape)) {
      const expected = source.shape ? `[..., ${shape.join(", ")}]` : `a multiple of ${size}`;
      wrongSize(`${this.where}: ${name}`, source.shape ?? source.size, expected);
    }
    this.rows = source.size / size;
  }

  /** Takes an operand of the kind, size and shape of the source. */
  #takeLike(name: string, index: number, value: unknown, mode: number, sourceName: string): Place {
    const place = this.take(name, index, value, mode);
    const source = this.source as Place;
    if ((place.array === null) !== (source.array === null)) {
      const kind = source.array === null ? "a Tensor" : describe(source.array);
      wrongType(`${this.where}: ${name}`, value, `${kind}, as ${sourceName} is`);
    }
    this.checkSame(name, place, sourceName, source);
    return place;
  }

  /** As many elements as another operand and, where both are Tensors, its shape. */
  checkSame(name: string, place: Place, otherName: string, other: Place): void {
    if (place.shape !== null && other.shape !== null) {
      if (sameShape(place.shape, other.shape)) return;
      wrongSize(`${this.where}: ${name}`, place.shape, `that of ${otherName}, ${describe(other.shape)}`);
    }
    if (place.size !== other.size) {
      wrongSize(`${this.where}: ${name}`, place.size, `${other.size}, as ${otherName} has`);
    }
  }

  /** Takes a parameter, or what is added to its gradient: of the normalized shape. null where it is absent. */
  takeAffine(name: string, index: number, value: unknown, mode: number): Place | null {
    if (value === null || value === undefined) return null;
    const place = this.take(name, index, value, mode | SHARED);
    this.checkAffine(name, place);
    return place;
  }

  checkAffine(name: string, place: Place): void {
    const { shape, size } = this.normalized;
    if (place.shape === null ? place.size !== size : !sameShape(place.shape, shape)) {
      wrongSize(`${this.where}: ${name}`, place.shape ?? place.size, describe(place.shape ? shape : size));
    }
  }

  /** Two operands, of which one is written to, share no byte. */
  checkApart(name: string, place: Place, otherName: string, other: Place | null): void {
    if (other !== null && overlaps(place, other)) {
      throw new RangeError(`${this.where}: ${name} overlaps ${otherName}`);
    }
  }

  /** The same, but the two may also be one. Copies of arrays are apart. */
  #checkApartOrSame(name: string, place: Place, otherName: string, other: Place | null): void {
    if (place.pointer !== other?.pointer) this.checkApart(name, place, otherName, other);
  }

  /** Takes the operands of a forward pass. weight and bias must be there already. */
  takeForward(x: unknown, residual: unknown, sum: unknown, out: unknown): void {
    const { kernel } = this;
    this.takeSource("x", kernel.x, x);
    if (residual !== undefined) this.addend = this.#takeLike("residual", kernel.residual, residual, READ, "x");
    if (sum !== undefined) {
      if (this.addend === null) throw new TypeError(`${this.where}: sum is given without a residual to add to x`);
      this.sum = this.#takeOutput("sum", kernel.sum, sum);
    }
    if (out === undefined) return;
    this.out = this.#takeOutput("out", kernel.y, out);
    this.#result = out as Operand;
  }

  #takeOutput(name: string, index: number, value: unknown): Place {
    const place = this.#takeLike(name, index, value, WRITTEN, "x");
    this.checkApart(name, place, "weight", this.weight);
    this.checkApart(name, place, "bias", this.bias);
    this.checkApart(name, place, "sum", this.sum);
    this.#checkApartOrSame(name, place, "x", this.source);
    this.#checkApartOrSame(name, place, "residual", this.addend);
    return place;
  }

  /** Takes the options of a backward pass. dy, x, mean, rstd and weight must be there already. */
  takeBackward(add: unknown, out: unknown): void {
    const { kernel } = this;
    if (add !== undefined) this.addend = this.#takeLike("add", kernel.add, add, READ, "dy");
    if (out === undefined) return;
    this.out = this.#takeLike("out", kernel.dx, out, WRITTEN, "dy");
    this.#result = out as Operand;
    this.checkGradient("out", this.out);
    this.#checkApartOrSame("out", this.out, "dy", this.source);
    this.#checkApartOrSame("out", this.out, "add", this.addend);
  }

  /** Checks that a gradient lies apart from all that is read but dy and add. */
  checkGradient(name: string, place: Place): void {
    this.checkApart(name, place, "x", this.x);
    this.checkApart(name, place, "mean", this.mean);
    this.checkApart(name, place, "rstd", this.rstd);
    this.checkApart(name, place, "weight", this.weight);
  }

  /** A new Tensor, for a result or to be kept. Where there is no room, those made before are given back. */
  make(shape: readonly number[]): Tensor {
    try {
      const tensor = tensorFrom(new Storage(this.runtime, shape, sizeOf(shape)));
      this.#made ??= [];
      this.#made.push(tensor);
      return tensor;
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  /** A new result of the kind of the source. */
  makeLike(shape: readonly number[]): Operand {
    const { array } = this.source as Place;
    if (array === null) return this.make(shape);
    const Kind = (globalThis as unknown as Record<string, Float32ArrayConstructor>)[tagOf(array) as string];
    return new (Kind as Float32ArrayConstructor)(sizeOf(shape));
  }

  /**
   * Makes the result, unless it is given, and finds room for copies of arrays and for a workspace.
   * @param kept where x + residual, or an array x, is kept for backward; 0 where it isn't
   */
  place(kept = 0): this {
    const { addend, sum, kernel, args } = this;
    const source = this.source as Place;
    try {
      if (this.out === null) {
        this.#result = this.makeLike(source.shape ?? [source.size]);
        this.out = this.take("out", kernel.y < 0 ? kernel.dx : kernel.y, this.#result, WRITTEN);
      }
      share(this.out, kept === 0 ? source : addend);
      if (kept === 0) share(sum, addend);
      else {
        // x is copied there, and x + residual written over it.
        if (addend === null || source.pointer === 0) this.#keep(source, kept);
        this.#keep(sum, kept);
        if (addend !== null) args[kernel.sum] = kept;
      }
      args[kernel.rows] = this.rows;
      args[kernel.cols] = this.normalized.size;
      this.#reserve();
    } catch (error) {
      this.#abandon();
      throw error;
    }
    this.#note("sum", sum);
    this.#note("out", this.out);
    this.#note("dweight", this.dweight);
    this.#note("dbias", this.dbias);
    return this;
  }

  /** Has an array copied to where it is kept, or back from there. */
  #keep(place: Place | null, kept: number): void {
    if (place === null || place.array === null) return;
    place.copy = kept;
    place.stride = (place.size / this.rows) * 4;
  }

  /** A module that needs what was in a Tensor finds that it was overwritten. */
  #note(name: string, place: Place | null): void {
    if (place !== null && place.array === null) place.overwrite(this.where, name);
  }

  /** Finds room for a workspace and for copies. */
  #reserve(): void {
    const { runtime, kernel, args, rows } = this;
    const { size: cols } = this.normalized;
    const sums = this.dweight !== null || this.dbias !== null;
    let workspace = sums ? runtime.kernels[kernel.ofWorkspace](rows, cols) >>> 0 : 0;
    let rowBytes = 0;
    let bytes = 0;
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (!(operand.mode & SHARED) && rows > 0) operand.rowSize = operand.size / rows;
      if (operand.pointer !== 0 || operand.copy !== 0 || operand.over !== null) continue;
      bytes += ALIGNMENT;
      if (operand.rowSize > 0) rowBytes += operand.rowSize * 4;
      else bytes += operand.size * 4;
    }
    const limit = runtime.blockBytes(sums);
    let blockRows = rows;
    if (rows * rowBytes > limit && !this.#concurrent && !this.#overlapping()) {
      const step = sums ? runtime.kernels.sumsGroup() : 1;
      blockRows = Math.min(rows, Math.max(1, Math.floor(limit / rowBytes / step)) * step);
      if (blockRows < rows && sums) workspace = runtime.kernels.sumsWorkspace(rows, cols) >>> 0;
    }
    this.#blockRows = blockRows;
    bytes += workspace + blockRows * rowBytes;
    if (bytes > 0) this.#scratch = runtime.borrow(bytes);
    let free = this.#scratch?.pointer ?? 0;
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.pointer !== 0) {
        // The memory has grown and left the array empty.
        if (lengthOf(operand.array) !== operand.size) operand.array = runtime.view(operand.pointer, operand.size);
      } else if (operand.over !== null) {
        operand.copy = operand.over.copy;
        operand.stride = operand.over.stride;
      } else if (operand.copy === 0) {
        operand.copy = free;
        free += aligned((operand.rowSize > 0 ? blockRows * operand.rowSize : operand.size) * 4);
      }
      args[operand.index] = operand.copy || operand.pointer;
    }
    if (workspace > 0) args[kernel.workspace] = free;
  }

  /** Whether writing some rows of an array may change what is read with later rows. */
  #overlapping(): boolean {
    for (let a = this.#first; a !== null; a = a.next) {
      if (isShared(bufferOf(a.array))) return true; // two buffers may be one memory
      for (let b = a.next; b !== null; b = b.next) {
        const alike = a.rowSize === b.rowSize && tagOf(a.array) === tagOf(b.array);
        if (overlap(a.array, b.array) && !(alike && offsetOf(a.array) === offsetOf(b.array))) return true;
      }
    }
    return false;
  }

  /** Computes. */
  run(): Operand {
    const { runtime, rows } = this;
    try {
      // A call under way may write to an array.
      if (this.#first !== null) runtime.settle();
      if (this.#blockRows < rows) this.#runBlocks(runtime.kernels);
      else {
        this.#copy(READ, 0, rows);
        call(runtime.kernels, this);
        this.#copy(WRITTEN, 0, rows);
      }
    } finally {
      this.#end();
    }
    return this.#answer;
  }

  #runBlocks(kernels: Kernels): void {
    const { rows } = this;
    const sums = sumsRows(this);
    const strides = stridesOf(this);
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.copy !== 0) strides[operand.index] = operand.stride;
    }
    for (let start = 0; start < rows; start += this.#blockRows) {
      const count = Math.min(this.#blockRows, rows - start);
      this.#copy(READ, start, count);
      callRows(kernels, this, start, count, sums, strides);
      if (sums && start + count === rows) addSums(kernels, this);
      this.#copy(WRITTEN, start, count);
    }
  }

  /** Computes without blocking, where the runtime can. */
  async start(): Promise<Operand> {
    if (!this.#concurrent) return this.run();
    const { runtime, rows } = this;
    try {
      for (let operand = this.#first; operand !== null; operand = operand.next) {
        if (operand.copy !== 0 && isShared(bufferOf(operand.array))) runtime.settle();
      }
      this.#copy(READ, 0, rows);
      let failure: unknown;
      const copyBack = () => {
        try {
          this.#copy(WRITTEN, 0, rows);
        } catch (error) {
          failure = error; // an array was detached meanwhile
        }
      };
      await runtime.start(this, this.#first === null ? undefined : copyBack);
      if (failure !== undefined) throw failure;
    } finally {
      this.#end();
    }
    return this.#answer;
  }

  /** Copies some rows of arrays to the memory or back; what all rows share with the first of them or the last. */
  #copy(mode: number, start: number, count: number): void {
    const { runtime, rows } = this;
    const all = count === rows;
    const last = mode === READ ? start === 0 : start + count === rows;
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      const { array, rowSize, copy } = operand;
      if (copy === 0 || operand.size === 0 || !(operand.mode & mode) || (rowSize === 0 && !last)) continue;
      const whole = all || rowSize === 0;
      const part = whole ? array : subarray.call(array, start * rowSize, (start + count) * rowSize);
      const view = runtime.view(copy + start * operand.stride, whole ? operand.size : count * rowSize);
      if (mode === READ) view.set(part as Float32Array);
      else set.call(part, view);
    }
  }

  /** Gives back all that was made for a call that can't be made. */
  #abandon(): void {
    if (this.#made !== null) for (const tensor of this.#made) tensor.dispose();
    this.#end();
  }

  /** Gives the scratch memory back. */
  #end(): void {
    if (this.#scratch !== null) this.runtime.giveBack(this.#scratch);
    this.#scratch = null;
  }

  get #answer(): Operand {
    return handOut(this.#result as Operand, this.out);
  }
}
