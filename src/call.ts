/**
 * One call of a norm: its checked operands, its scratch memory, its results. Modules and functions, arrays and Tensors,
 * blocking and not: all go through here.
 *
 * A Tensor is used where it lies, and so is a Float32Array in the memory of the runtime. Any other array is copied to
 * scratch memory and back: all at once, or by blocking calls in blocks of rows that stay in the second-level cache.
 * A call has three steps, and only the last one writes to operands:
 *
 * 1. take the operands, and check each of them;
 * 2. place: make the results that are not given, find memory for copies and sums;
 * 3. run, or start without blocking.
 * @module
 */

import * as check from "./check.js";
import { addSums, call, callRows, type Kernel, type KernelCall, stridesOf, sumsAnything } from "./kernels.js";
import type { Operand, Place } from "./operand.js";
import { ArrayOperand, entangled, overlaps, READ, SHARED, share, WRITTEN } from "./operand.js";
import type { Runtime } from "./runtime.js";
import { Storage, storageOf, type Tensor, tensorFrom } from "./tensor.js";

const ALIGNMENT = 16;
const aligned = (bytes: number) => bytes + (-bytes & (ALIGNMENT - 1));

/** A call, whose arguments are filled in step by step. One class for both passes: a derived one is slower to make. */
export class Call implements KernelCall {
  readonly args = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
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
  #first: ArrayOperand | null = null;
  #last: ArrayOperand | null = null;
  #made: Tensor[] | null = null;
  /** What it has borrowed of the runtime. */
  #scratch = 0;
  /** How many rows of arrays are copied at a time. */
  #blockRows = 0;

  /**
   * @param where the method or function, in errors
   * @param concurrent whether the caller goes on before it is done
   */
  constructor(
    readonly where: string,
    readonly runtime: Runtime,
    readonly kernel: Kernel,
    public normalized: check.Normalized,
    readonly concurrent = false,
  ) {}

  /** Takes an argument of the kernel: a Tensor of the runtime that is not disposed, or an array of numbers. */
  take(name: string, index: number, value: unknown, mode: number): Place {
    const storage = value instanceof Float32Array ? undefined : storageOf(value);
    if (storage === undefined) return this.#takeArray(name, index, value, mode);
    if (storage.pointer === 0) throw new TypeError(`${this.where}: ${name} was disposed`);
    if (storage.runtime !== this.runtime) throw new TypeError(`${this.where}: ${name} belongs to another runtime`);
    this.args[index] = storage.pointer;
    return storage;
  }

  #takeArray(name: string, index: number, value: unknown, mode: number): ArrayOperand {
    const given = value instanceof Float32Array;
    const array = given ? value : check.checkFloats(`${this.where}: ${name}`, value, (mode & WRITTEN) !== 0);
    const operand = new ArrayOperand(array, mode, index, this.runtime.addressOf(array));
    if (operand.size === 0) check.checkAttached(`${this.where}: ${name}`, array);
    if (this.#last === null) this.#first = operand;
    else this.#last.next = operand;
    this.#last = operand;
    return operand;
  }

  /** Has a Tensor that was checked before as an argument. */
  give(index: number, storage: Storage | null): Storage | null {
    if (storage !== null) this.args[index] = storage.pointer;
    return storage;
  }

  /** Takes x or dy: a Tensor whose trailing dimensions fit, or an array whose length does. */
  takeSource(name: string, index: number, value: unknown): Place {
    const source = this.take(name, index, value, READ);
    this.source = source;
    this.checkRows(name, source);
    return source;
  }

  checkRows(name: string, source: Place): void {
    const { shape, size } = this.normalized;
    if (source.shape === null ? source.size % size !== 0 : !check.endsWith(source.shape, shape)) {
      const expected = source.shape ? `[..., ${shape.join(", ")}]` : `a multiple of ${size}`;
      check.wrongSize(`${this.where}: ${name}`, source.shape ?? source.size, expected);
    }
    this.rows = source.size / size;
  }

  /** Takes an operand of the kind, size and shape of the source. */
  #takeLike(name: string, index: number, value: unknown, mode: number, sourceName: string): Place {
    const place = this.take(name, index, value, mode);
    const source = this.source as Place;
    if ((place.array === null) !== (source.array === null)) {
      const kind = source.array === null ? "a Tensor" : check.describe(source.array);
      check.wrongType(`${this.where}: ${name}`, value, `${kind}, as ${sourceName} is`);
    }
    this.checkSize(name, place, source, sourceName);
    return place;
  }

  /** As many elements as another operand, or as are normalized, and where both have a shape, the same. */
  checkSize(name: string, place: Place, { shape, size }: Pick<Place, "shape" | "size">, other?: string): void {
    const got = place.shape;
    if (got !== null && shape !== null ? check.sameShape(got, shape) : place.size === size) return;
    const shapes = got !== null && shape !== null;
    const expected = check.describe(shapes ? shape : size);
    const as = shapes ? `that of ${other}, ${expected}` : `${expected}, as ${other} has`;
    check.wrongSize(`${this.where}: ${name}`, shapes ? got : place.size, other === undefined ? expected : as);
  }

  /** Takes a parameter, or what is added to its gradient: of the normalized shape. null where it is absent. */
  takeAffine(name: string, index: number, value: unknown, mode: number): Place | null {
    if (value === null || value === undefined) return null;
    const place = this.take(name, index, value, mode | SHARED);
    this.checkSize(name, place, this.normalized);
    return place;
  }

  /** Two operands, of which one is written to, share no byte. */
  checkApart(name: string, place: Place, otherName: string, other: Place | null): void {
    if (other === null || !overlaps(place, other)) return;
    throw new RangeError(`${this.where}: ${name} overlaps ${otherName}`);
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
    if (out !== undefined) this.out = this.#takeOutput("out", kernel.y, out);
    this.#result = out as Operand | undefined;
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
    this.#result = out as Operand;
    this.out = this.#takeLike("out", kernel.dx, out, WRITTEN, "dy");
    this.checkGradient("out", this.out);
    this.#checkApartOrSame("out", this.out, "dy", this.source);
    this.#checkApartOrSame("out", this.out, "add", this.addend);
  }

  /** Checks that a sum over the rows lies apart from what they are computed from, which is read after the sum. */
  checkSum(name: string, place: Place): void {
    this.checkApart(name, place, "x", this.x);
    this.checkApart(name, place, "dy", this.source);
    this.checkApart(name, place, "add", this.addend);
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
      const tensor = tensorFrom(new Storage(this.runtime, shape, check.sizeOf(shape)));
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
    return array === null ? this.make(shape) : check.arrayLike(array, check.sizeOf(shape));
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
        if (addend !== null) args[kernel.sum] = kept;
        if (addend === null || source.pointer === 0) source.keepAt(kept);
        sum?.keepAt(kept);
      }
      args[kernel.rows] = this.rows;
      args[kernel.cols] = this.normalized.size;
      this.#reserve();
    } catch (error) {
      this.#abandon();
      throw error;
    }
    // A module that needs what was in a Tensor finds that it was overwritten.
    sum?.overwrite(this.where, "sum");
    this.out.overwrite(this.where, "out");
    this.dweight?.overwrite(this.where, "dweight");
    this.dbias?.overwrite(this.where, "dbias");
    return this;
  }

  /** Finds room for a workspace and for copies, of all rows or of as many as stay in the cache. */
  #reserve(): void {
    const { runtime, kernel, args, rows } = this;
    const { size: cols } = this.normalized;
    const sums = this.dweight !== null || this.dbias !== null;
    let workspace = sums ? runtime.kernels[kernel.ofWorkspace](rows, cols) >>> 0 : 0;
    let bytes = 0;
    let rowBytes = 0;
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.pointer !== 0 || operand.copy !== 0 || operand.over !== null) continue;
      bytes += ALIGNMENT;
      if (operand.mode & SHARED || rows === 0) bytes += operand.size * 4;
      else rowBytes += (operand.size / rows) * 4;
    }
    const limit = runtime.blockBytes(sums);
    this.#blockRows = rows;
    if (rows * rowBytes > limit && !this.concurrent && !entangled(this.#first)) {
      const step = sums ? runtime.kernels.sumsGroup() : 1;
      this.#blockRows = Math.min(rows, Math.max(1, Math.floor(limit / rowBytes / step)) * step);
      if (this.#blockRows < rows && sums) workspace = runtime.kernels.sumsWorkspace(rows, cols) >>> 0;
    }
    bytes += workspace + this.#blockRows * rowBytes;
    if (bytes > 0) this.#scratch = runtime.borrow(bytes, this.concurrent);
    let free = this.#scratch;
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.over !== null) operand.copy = operand.over.copy;
      else if (operand.pointer === 0 && operand.copy === 0) {
        operand.copy = free;
        free += aligned(this.#sizeOf(operand, this.#blockRows) * 4);
      }
      const grown = operand.pointer !== 0 && operand.array.length === 0; // it left the array empty
      if (grown) operand.array = runtime.view(operand.pointer, operand.size);
      args[operand.index] = operand.copy || operand.pointer;
    }
    if (workspace > 0) args[kernel.workspace] = free;
  }

  /** How many numbers of an array belong to some rows: all of them, where all rows share them. */
  #sizeOf({ size, mode }: ArrayOperand, rows: number): number {
    return rows === this.rows || mode & SHARED ? size : (size / this.rows) * rows;
  }

  /** Computes. */
  run(): Operand {
    const { runtime, rows } = this;
    // A call under way may write to an array.
    if (this.#first !== null) runtime.settle();
    if (this.#blockRows < rows) this.#runBlocks();
    else {
      this.#copy(READ, 0, rows);
      call(runtime.kernels, this);
      this.#copy(WRITTEN, 0, rows);
    }
    this.#end();
    return this.#answer;
  }

  #runBlocks(): void {
    const { rows } = this;
    const { kernels } = this.runtime;
    const sums = sumsAnything(this);
    const strides = stridesOf(this);
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.copy !== 0 && !(operand.over ?? operand).whole) strides[operand.index] = 0;
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
    const { runtime, rows } = this;
    if (!this.concurrent) return this.run();
    try {
      for (let operand = this.#first; operand !== null; operand = operand.next) {
        if (operand.copy !== 0 && check.isShared(operand.array.buffer)) runtime.settle();
      }
      this.#copy(READ, 0, rows);
      await runtime.start(this, this.#first === null ? undefined : () => this.#copy(WRITTEN, 0, rows));
    } finally {
      this.#end();
    }
    return this.#answer;
  }

  /** Copies some rows of arrays to the memory or back; what all rows share with the first of them or the last. */
  #copy(mode: number, start: number, count: number): void {
    for (let operand = this.#first; operand !== null; operand = operand.next) {
      if (operand.copy === 0 || operand.size === 0 || !(operand.mode & mode)) continue;
      let { array, copy } = operand;
      const size = this.#sizeOf(operand, count);
      if (size < operand.size) {
        const from = this.#sizeOf(operand, start);
        array = array.subarray(from, from + size);
        if (operand.whole) copy += from * 4;
      } else if (mode === READ ? start > 0 : start + count < this.rows) continue;
      const view = this.runtime.view(copy, size);
      if (mode === READ) view.set(array);
      else array.set(view);
    }
  }

  /** Gives back all that was made for a call that can't be made. */
  #abandon(): void {
    if (this.#made !== null) for (const tensor of this.#made) tensor.dispose();
    this.#end();
  }

  /** Gives the scratch memory back. */
  #end(): void {
    if (this.#scratch !== 0) this.runtime.giveBack(this.#scratch);
    this.#scratch = 0;
  }

  /** What the caller gets: y or dx. An array may be another view of the memory, where that has grown. */
  get #answer(): Operand {
    return this.out?.array ?? (this.#result as Operand);
  }
}
