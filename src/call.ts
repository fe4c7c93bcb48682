/**
 * One call of a norm: its checked operands, its scratch memory, its results. Modules and functions, arrays and Tensors,
 * blocking and not: all go through here.
 *
 * A Tensor is used where it lies, and so is a Float32Array in the memory of the runtime. Any other array is copied to
 * scratch memory and back: all at once, or by blocking calls in blocks of rows that stay in the second-level cache.
 * A call has three steps, and only the last one writes to operands:
 *
 * 1. Take the operands, and check each of them.
 * 2. Place: make the results that are not given. Find memory for copies and sums.
 * 3. Run, or start without blocking.
 * @module
 */

import * as check from "./check.js";
import { addSums, call, callRows, type Kernel, type KernelCall, stridesOf } from "./kernels.js";
import { ArrayOperand, entangled, overlap, type Place, READ, share, WRITTEN } from "./operand.js";
import type { Block, Runtime } from "./runtime.js";
import { Storage, storageIn, type Tensor, tensorFrom } from "./tensor.js";
import type { Operand } from "./types.js";

const aligned = (bytes: number) => bytes + (-bytes & 15);

/** A subclass may override `set`, and begin another call in the middle of this one. */
const { set: copy } = Float32Array.prototype;

/** The place of y or dx among the arguments of a kernel. */
const OUT = 0;

/** A call, whose arguments are filled in step by step. One class for both passes: a derived one is slower to make. */
export class Call implements KernelCall {
  readonly args = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  rows = 0;
  /** x of forward, dy of backward. */
  source!: Place;
  /** What is added to it, or to its gradient: residual or add. */
  addend: Place | null = null;
  sum: Place | null = null;
  /** y or dx. */
  out: Place | null = null;
  /** What the gradients of weight and bias are added to. */
  dweight: Place | null = null;
  dbias: Place | null = null;
  /** The bytes of workspace for its sums over rows; 0 where it has none. */
  workspace = 0;
  /** What the caller gets, y or dx. But an array in the memory is another view of it, where that has grown. */
  #result: Operand | undefined;
  /** The array that was taken last, and so on. */
  #arrays: ArrayOperand | null = null;
  #made: readonly Tensor[] | null = null;
  /** A Tensor that is disposed of once the call is done: what frees memory may be code of the caller's. */
  replaced: Tensor | null = null;
  /** What it has borrowed of the runtime. */
  #scratch: Block | null = null;
  /** Where what is normalized is kept for backward, all rows of it; null where it isn't. */
  #kept: Storage | null = null;
  /** How many rows of arrays are copied at a time. */
  #blockRows = 0;
  /** Whether an operand is a view of memory, or given for a gradient to be added to. These may overlap any other. */
  #views = false;

  /**
   * @param where the method or function, in errors
   * @param concurrent whether the caller goes on before it is done
   */
  constructor(
    readonly where: string,
    readonly runtime: Runtime,
    readonly kernel: Kernel,
    readonly normalized: check.Normalized,
    readonly concurrent = false,
  ) {}

  /** An argument of the kernel in the words of an error. */
  #name(index: number): string {
    return `${this.where}: ${this.kernel.names[index]}`;
  }

  /** Takes an argument of the kernel: a Tensor of the runtime that is not disposed, or an array of numbers. */
  take(index: number, value: unknown, mode: number): Place {
    const storage = value instanceof Float32Array ? undefined : storageIn(value);
    if (storage === undefined) return this.#takeArray(index, value, mode);
    if (storage.pointer === 0) throw new TypeError(`${this.#name(index)} was disposed`);
    if (storage.runtime !== this.runtime) throw new TypeError(`${this.#name(index)} belongs to another runtime`);
    return this.give(index, storage);
  }

  /** Has a Tensor as an argument, which is checked already. */
  give(index: number, storage: Storage): Storage {
    if (!storage.owned) this.#views = true;
    this.args[index] = storage.pointer;
    return storage;
  }

  #takeArray(index: number, value: unknown, mode: number): ArrayOperand {
    const array = value instanceof Float32Array ? value : this.#arrayOf(index, value, mode);
    const home = this.runtime.addressOf(array);
    const move = this.kernel.moves[index] as number;
    const step = move === 2 ? this.normalized.size : move;
    const operand = new ArrayOperand(array, mode, index, step, home, this.#arrays);
    if (operand.size === 0) check.checkAttached(this.#name(index), array);
    if (home !== 0) this.#views = true;
    this.args[index] = home;
    this.#arrays = operand;
    return operand;
  }

  /** An array of floats as it is, or a list of numbers, which can only be read, as a new one. */
  #arrayOf(index: number, value: unknown, mode: number): Float32Array {
    const floats = "a Tensor or an array of floats";
    if (mode & WRITTEN && Array.isArray(value)) check.wrongType(this.#name(index), value, floats);
    const expected = mode & WRITTEN ? floats : `${check.NUMBERS}; ${check.INTEGERS}, Float16Array reads half floats`;
    return check.checkNumbers(this.#name(index), value, check.FLOATS, expected);
  }

  /**
   * Takes x or dy: a Tensor whose trailing dimensions fit, or an array whose length does.
   * @param rows how many rows it has to have, if that is known
   */
  takeSource(value: unknown, rows?: number): Place {
    const { shape, size } = this.normalized;
    const { source } = this.kernel;
    const place = this.take(source, value, READ);
    if (place.shape !== null && !check.endsWith(place.shape, shape)) {
      check.wrongSize(this.#name(source), place.shape, `[..., ${shape.join(", ")}]`);
    }
    this.source = place;
    this.rows = rows ?? Math.floor(place.size / size);
    if (place.size === this.rows * size && place.size >= this.rows) return place;
    const wanted = rows === undefined ? `a multiple of ${size}` : `${rows} rows, as many as rstd has`;
    check.wrongSize(this.#name(source), place.size, wanted);
  }

  /** Takes an operand of the kind, size and shape of x or dy; null where it is absent. */
  #takeLike(index: number, value: unknown, mode: number): Place | null {
    if (value === undefined) return null;
    const { source, kernel } = this;
    const place = this.take(index, value, mode);
    const name = kernel.names[kernel.source] as string;
    if ((place.array === null) !== (source.array === null)) {
      const kind = source.array === null ? "a Tensor" : check.describe(source.array);
      check.wrongType(this.#name(index), value, `${kind}, as ${name} is`);
    }
    return this.checkSize(index, place, source, name);
  }

  /** Checks that it has the size of another operand or of what is normalized, and where both have one, its shape. */
  checkSize(index: number, place: Place, like: Pick<Place, "shape" | "size">, other?: string): Place {
    const shapes = place.shape !== null && like.shape !== null;
    if (shapes ? check.sameShape(place.shape, like.shape) : place.size === like.size) return place;
    const expected = check.describe(shapes ? like.shape : like.size);
    const as = shapes ? `that of ${other}, ${expected}` : `${expected}, as ${other} has`;
    check.wrongSize(this.#name(index), shapes ? place.shape : place.size, other === undefined ? expected : as);
  }

  /** Takes a parameter, or what is added to its gradient: of the normalized shape. null where it is absent. */
  takeAffine(index: number, value: unknown, mode: number): Place | null {
    if (value === null || value === undefined) return null;
    if (mode & WRITTEN) this.#views = true;
    return this.checkSize(index, this.take(index, value, mode), this.normalized);
  }

  /** Takes what the options of a pass give, once all else is there: residual or add, sum, out. */
  takeOptions(addend: unknown, sum: unknown, out: unknown): void {
    const { kernel } = this;
    this.addend = this.#takeLike(kernel.addend, addend, READ);
    if (sum !== undefined && addend === undefined) throw new TypeError(`${this.where}: sum needs a residual`);
    this.sum = this.#takeLike(kernel.sum, sum, WRITTEN);
    this.out = this.#takeLike(OUT, out, WRITTEN);
    this.#result = out as Operand | undefined;
    this.#checkApart(OUT);
    // The gradients of a module are blocks of their own, which nothing but a view overlaps.
    if (this.#views || sum !== undefined) for (let i = 1; i < kernel.source; i++) this.#checkApart(i);
    if (this.#arrays !== null) this.#checkArrays();
  }

  /**
   * Checks that an output lies apart from all else in the memory. But y and sum may be x or residual, and dx may be dy
   * or add, as the kernel reads an element there before it writes.
   */
  #checkApart(index: number): void {
    const { args, kernel, rows } = this;
    const { moves, source, addend, rows: operands } = kernel;
    const { size } = this.normalized;
    const all = rows * size;
    const start = args[index] as number;
    if (start === 0) return;
    const end = start + 4 * (moves[index] === 2 ? all : moves[index] === 1 ? rows : size);
    for (let i = 0; i < operands; i++) {
      const other = args[i] as number;
      if (other >= end || other === 0 || i === index) continue;
      if (start >= other + 4 * (moves[i] === 2 ? all : moves[i] === 1 ? rows : size)) continue;
      if (start !== other || moves[index] !== 2 || (i !== source && i !== addend)) this.#refuse(index, i);
    }
  }

  /** Checks that arrays that are copied back don't overlap. */
  #checkArrays(): void {
    for (let b = this.#arrays; b !== null; b = b.next) {
      for (let a = b.next; a !== null; a = a.next) {
        if (a.mode & b.mode & WRITTEN && overlap(a.array, b.array)) this.#refuse(b.index, a.index);
      }
    }
  }

  #refuse(index: number, other: number): never {
    throw new RangeError(`${this.#name(index)} overlaps ${this.kernel.names[other]}`);
  }

  /** A new Tensor, or an array of the kind of another. Where there is no room, Tensors made before are given back. */
  make(shape: readonly number[], like: Float32Array | null): Operand {
    const size = check.sizeOf(shape);
    try {
      if (like !== null) return check.arrayLike(like, size);
      const tensor = tensorFrom(new Storage(this.runtime, shape, size));
      this.#made = [...(this.#made ?? []), tensor];
      return tensor;
    } catch (error) {
      this.abandon(error);
    }
  }

  /**
   * Makes the result, unless it is given, and finds room for copies of arrays and for a workspace.
   * @param kept where x + residual, or an array x, is kept for backward, from its beginning on; null where it isn't
   */
  place(kept: Storage | null = null): this {
    const { args, kernel, source, sum } = this;
    if (this.out === null) {
      this.#result = this.make(source.shape ?? [source.size], source.array);
      this.out = this.take(OUT, this.#result, WRITTEN);
    }
    args[kernel.rows] = this.rows;
    args[kernel.cols] = this.normalized.size;
    if (kept !== null && this.addend !== null) args[kernel.sum] = kept.pointer;
    try {
      if (this.#arrays !== null) this.#share(kept);
      if (this.#arrays !== null || this.workspace > 0) this.#reserve();
      this.out.overwrite(this.where, "out");
      sum?.overwrite(this.where, "sum");
      this.dweight?.overwrite(this.where, "dweight");
      this.dbias?.overwrite(this.where, "dbias");
    } catch (error) {
      this.abandon(error);
    }
    return this;
  }

  /** Has copies take the place of others, or lie where they are kept. */
  #share(kept: Storage | null): void {
    const { source, addend, sum, out } = this;
    this.#kept = kept;
    share(kept === null ? source : addend, out);
    if (kept === null) share(addend, sum);
    else {
      // x is copied there, and x + residual written over it.
      if (source.array && (addend === null || source.home === 0)) source.pointer = kept.pointer;
      if (sum?.array) sum.pointer = kept.pointer;
    }
  }

  /** Finds room for a workspace and for copies, of all rows or of as many as stay in the cache. */
  #reserve(): void {
    const { runtime, kernel, args, rows } = this;
    let bytes = 0;
    let rowBytes = 0;
    for (let operand = this.#arrays; operand !== null; operand = operand.next) {
      if (operand.pointer !== 0 || operand.over !== null) continue;
      bytes += 15; // at most, as copies are aligned
      if (operand.step === 0) bytes += operand.size * 4;
      else rowBytes += operand.step * 4;
    }
    this.#blockRows = rows;
    if (rows * rowBytes > runtime.blockBytes(this.workspace > 0)) this.#divide(rowBytes);
    bytes += this.workspace + this.#blockRows * rowBytes;
    if (bytes > 0) this.#scratch = runtime.borrow(bytes);
    let free = this.#scratch === null ? 0 : this.#scratch.pointer;
    for (let operand = this.#arrays; operand !== null; operand = operand.next) {
      if (operand.over !== null) operand.pointer = operand.over.pointer;
      else if (operand.pointer === 0) {
        operand.pointer = free;
        free += aligned((operand.step === 0 ? operand.size : operand.step * this.#blockRows) * 4);
      }
      if (operand.array.length === 0) operand.renew(runtime, this.#name(operand.index));
      args[operand.index] = operand.pointer;
    }
    if (this.workspace > 0) args[kernel.workspace] = free;
  }

  /** Divides arrays into blocks of rows, where they can be. */
  #divide(rowBytes: number): void {
    const { runtime, rows } = this;
    if (this.concurrent || entangled(this.#arrays)) return;
    const sums = this.workspace > 0;
    const group = sums ? runtime.kernels.sumsGroup() : 1;
    const groups = Math.floor(runtime.blockBytes(sums) / rowBytes / group);
    this.#blockRows = Math.min(rows, Math.max(1, groups) * group);
    if (sums && this.#blockRows < rows) {
      this.workspace = runtime.kernels.sumsWorkspace(rows, this.normalized.size) >>> 0;
    }
  }

  /** Computes. */
  run(): Operand {
    const { runtime, rows } = this;
    try {
      if (this.#arrays === null) call(runtime.kernels, this);
      else {
        // A call under way may write to an array.
        runtime.settle();
        if (this.#blockRows < rows) this.#runBlocks();
        else {
          this.#copy(READ);
          call(runtime.kernels, this);
          this.#copy(WRITTEN);
        }
      }
    } finally {
      this.#end();
    }
    return this.out?.array ?? (this.#result as Operand);
  }

  #runBlocks(): void {
    const { rows, runtime } = this;
    const sums = this.workspace > 0;
    const strides = stridesOf(this);
    for (let operand = this.#arrays; operand !== null; operand = operand.next) {
      if (operand.pointer !== operand.home && operand.pointer !== this.#kept?.pointer) strides[operand.index] = 0;
    }
    for (let start = 0; start < rows; start += this.#blockRows) {
      const count = Math.min(this.#blockRows, rows - start);
      this.#copyRows(READ, start, count);
      callRows(runtime.kernels, this, start, count, sums, strides);
      if (sums && start + count === rows) addSums(runtime.kernels, this);
      this.#copyRows(WRITTEN, start, count);
    }
  }

  /** Computes without blocking, where the runtime can. */
  async start(): Promise<Operand> {
    const { runtime } = this;
    if (!this.concurrent) return this.run();
    try {
      for (let operand = this.#arrays; operand !== null; operand = operand.next) {
        if (operand.pointer !== operand.home && check.isShared(check.bufferOf(operand.array))) runtime.settle();
      }
      this.#copy(READ);
      await runtime.start(this, this.#arrays === null ? undefined : () => this.#copy(WRITTEN));
    } finally {
      this.#end();
    }
    return this.out?.array ?? (this.#result as Operand);
  }

  /** Copies arrays to the memory, or back. */
  #copy(mode: number): void {
    for (let operand = this.#arrays; operand !== null; operand = operand.next) {
      const { array, size, pointer } = operand;
      if (pointer === operand.home || (operand.mode & mode) === 0) continue;
      if (mode === WRITTEN) copy.call(array, this.runtime.view(pointer, size));
      // A view of its own, because making one takes longer than copying a short row.
      else if (pointer === this.#kept?.pointer) this.#kept.data.set(array);
      else this.runtime.view(pointer, size).set(array);
    }
  }

  /** The same of some rows; what all rows have in common is copied with the first of them, or the last. */
  #copyRows(mode: number, start: number, count: number): void {
    for (let operand = this.#arrays; operand !== null; operand = operand.next) {
      const { step, pointer } = operand;
      if (pointer === operand.home || !(operand.mode & mode)) continue;
      if (step === 0 && (mode === READ ? start > 0 : start + count < this.rows)) continue;
      const from = step * start;
      const size = step * count || operand.size;
      const part = check.partOf(operand.array, from, size);
      const view = this.runtime.view(pointer === this.#kept?.pointer ? pointer + from * 4 : pointer, size);
      if (mode === READ) view.set(part);
      else copy.call(part, view);
    }
  }

  /** Gives back all that was made for a call that can't be made. */
  abandon(error: unknown): never {
    for (const tensor of this.#made ?? []) tensor.dispose();
    this.#end();
    throw error;
  }

  /** Gives back what the call no longer needs. */
  #end(): void {
    this.replaced?.dispose();
    if (this.#scratch !== null) this.runtime.giveBack(this.#scratch);
    this.#scratch = null;
  }
}
