/**
 * One call of a norm: its checked operands, the scratch memory that it borrows, its results. Modules and functions,
 * arrays and Tensors, blocking and not: all go through here.
 *
 * A Tensor is used where it lies. An array is copied to scratch memory and back. A blocking call does that in blocks
 * of rows that stay in the second-level cache. A call has three steps, and only the last one writes to operands:
 *
 * 1. take the operands: each is read and checked once;
 * 2. reserve: find memory for results, copies and sums;
 * 3. run, or start without blocking.
 * @module
 */

import {
  checkAttached,
  describe,
  endsWith,
  isShared,
  lengthOf,
  type Normalized,
  placeOf,
  sameShape,
  sizeOf,
  tagOf,
  viewOf,
  wrongSize,
  wrongType,
} from "./check.js";
import { addSums, callRows, type Kernel, type Kernels, RECORD, sumsRows } from "./kernels.js";
import { KEPT, Runtime, type Scratch } from "./runtime.js";
import { Storage, storageOf, type Tensor, tensorFrom } from "./tensor.js";

export type Operand = Float32Array | Tensor;

/** The kernels, or functions in their place that return something else. */
export type Table<R> = Record<Kernel["name"], (...args: number[]) => R>;

/** The options of a forward pass. They are read before anything is checked: a getter may do what it likes. */
export const FORWARD_OPTIONS = ["out", "residual", "sum"];

type Method = "forward" | "forwardAsync" | "backward" | "backwardAsync";

/** The methods of a module, in errors: to put the names together for each call takes as long as a short row. */
export function methodsOf(name: string): Record<Method, string> {
  return {
    forward: `${name}.forward`,
    forwardAsync: `${name}.forwardAsync`,
    backward: `${name}.backward`,
    backwardAsync: `${name}.backwardAsync`,
  };
}

/** A norm: how its kernels are called. */
export interface Family {
  /** The name of its module. */
  name: string;
  methods: Record<Method, string>;
  /** Whether its statistics have a mean beside rstd. */
  hasMean: boolean;
  forward<R>(kernels: Table<R>, call: Call): R;
  backward<R>(kernels: Table<R>, call: Call): R;
  /** The bytes of workspace for a backward call. */
  workspace(kernels: Kernels, rows: number, cols: number): number;
}

/** The last blocking calls of a module, which may be run again for the same operands. */
export interface LastCalls {
  forward: Call | null;
  backward?: Call | null;
}

/** What a call does with an operand: its array is copied in before the kernel runs, or out afterwards, or both. */
export const READ = 1;
export const WRITTEN = 2;
/** All rows have it in common. */
export const SHARED = 4;

/** An array, and its copy in the memory. */
export class Staged {
  array: Float32Array;
  readonly mode: number;
  /** The array that the call took before it. */
  readonly next: Staged | null;
  readonly size: number;
  readonly shape = null;
  /** How many of its floats belong to a row; 0 where all rows share them. */
  rowSize = 0;
  /** Where the copy is. */
  pointer = 0;
  /** Another array whose copy is in the same place, or a storage with room for all rows. */
  at: Place | null = null;
  /** Where the array itself lies in the memory, if it does. */
  byteOffset = -1;

  constructor(array: Float32Array, mode: number, next: Staged | null) {
    this.array = array;
    this.mode = mode;
    this.next = next;
    this.size = lengthOf(array);
  }
}

/** A checked operand: what a Tensor is made of, whose `array` is null, or a staged array, whose `shape` is null. */
export type Place = Storage | Staged;

/** An operand as the caller gets it, once the call is done. An array may have been replaced, see `#findAgain`. */
export function handOut(operand: Operand, place: Place | null): Operand {
  return place?.array ?? operand;
}

const { set } = Float32Array.prototype;
const ALIGNMENT = 16;
const aligned = (bytes: number) => bytes + (-bytes & (ALIGNMENT - 1));

/** Whether an operand is still the one of a place, of the size it had. */
function isPlace(operand: unknown, place: Place | null): boolean {
  if (place === null) return operand === undefined;
  if (place.array === null) return storageOf(operand) === place && place.pointer !== 0;
  // After a number of it was read, engines inline its true length. The property could be one of its own.
  return operand === place.array && place.array[0] !== undefined && lengthOf(place.array) === place.size;
}

/** The runtime of the first Tensor among values; the default where there is none. */
export function runtimeOf(...values: readonly unknown[]): Runtime {
  for (const value of values) {
    const storage = storageOf(value);
    if (storage !== undefined) return storage.runtime;
  }
  return Runtime.default;
}

/** Has the copy of an array share the place of another's, or of a storage. Does nothing for a Tensor. */
function share(place: Place | null, at: Place | null): void {
  if (place !== null && place.array !== null) place.at = at;
}

/**
 * A forward pass: sum = x + residual; y, mean, rstd = norm(sum), or norm(x) without a residual. Or, where there is a
 * dy, a backward pass: dx = gradient + add, and what is added to dweight and dbias. Both are one class: an object
 * of a derived class takes twice as long to make, as long as a short row takes.
 */
export class Call {
  /** The method or function, in errors. */
  readonly where: string;
  readonly runtime: Runtime;
  readonly family: Family;
  cols: number;
  rows = 0;
  eps = NaN;
  x: Place | null = null;
  mean: Place | null = null;
  rstd: Place | null = null;
  weight: Place | null = null;
  bias: Place | null = null;
  residual: Place | null = null;
  sum: Place | null = null;
  y: Place | null = null;
  dy: Place | null = null;
  add: Place | null = null;
  dx: Place | null = null;
  dweight: Place | null = null;
  dbias: Place | null = null;
  /** Its address. */
  workspace = 0;
  /** Where its module remembers it. */
  last: LastCalls | null = null;
  /** What the caller gets: y or dx. */
  #out: Operand | undefined;
  /** Whether the caller goes on before it is done. */
  readonly #concurrent: boolean;
  /** The last array that was taken; the others are linked from it. */
  #staged: Staged | null = null;
  #made: Tensor[] | undefined;
  /** Whether it may be run again: it has made nothing, and holds on to no large array. */
  #repeatable = true;
  #scratch: Scratch | undefined;
  /** How many rows of arrays are copied at a time. */
  #blockRows = Infinity;

  constructor(where: string, runtime: Runtime, family: Family, cols: number, concurrent = false) {
    this.where = where;
    this.runtime = runtime;
    this.family = family;
    this.cols = cols;
    this.#concurrent = concurrent && runtime.concurrent;
  }

  /** After it was run: forgets its operands, unless it may be run again. A Tensor that it held would never be freed. */
  rest(): this {
    if (!this.#repeatable) return this.clear();
    this.#out = undefined;
    return this;
  }

  /** Forgets all but what is a module's own, to be used again: to make another takes as long as a short row. */
  clear(): this {
    this.x = null;
    this.mean = null;
    this.rstd = null;
    this.residual = null;
    this.sum = null;
    this.y = null;
    this.dy = null;
    this.add = null;
    this.dx = null;
    this.workspace = 0;
    this.#out = undefined;
    this.#staged = null;
    this.#made = undefined;
    this.#repeatable = true;
    this.#scratch = undefined;
    this.#blockRows = Infinity;
    return this;
  }

  /**
   * Whether it can be run again for these operands, because they are those of the last time and have not changed. They
   * need no further check then. Most loops call a module with the same operands each time.
   */
  repeatsForward(x: Operand, out?: Operand, residual?: Operand, sum?: Operand): boolean {
    if (!isPlace(x, this.x) || !isPlace(residual, this.residual) || !isPlace(sum, this.sum)) return false;
    return this.#repeats(out, this.y);
  }

  /** The same of a backward pass. */
  repeatsBackward(dy: Operand, out?: Operand, add?: Operand): boolean {
    return isPlace(dy, this.dy) && isPlace(add, this.add) && this.#repeats(out, this.dx);
  }

  #repeats(out: Operand | undefined, place: Place | null): boolean {
    if (place === null || !isPlace(out, place)) return false;
    if (this.#scratch !== undefined && !this.runtime.lendAgain(this.#scratch)) return false;
    this.#out = out;
    return true;
  }

  /** Calls the kernel with the operands. */
  #invoke<R>(kernels: Table<R>): R {
    return this.dy === null ? this.family.forward(kernels, this) : this.family.backward(kernels, this);
  }

  /** A Float32Array, or a Tensor of the runtime that is not disposed. */
  take(name: string, value: unknown, mode: number): Place {
    if (tagOf(value) === "Float32Array") {
      const staged = new Staged(value as Float32Array, mode, this.#staged);
      this.#staged = staged;
      if (staged.size === 0) checkAttached(`${this.where}: ${name}`, staged.array);
      return staged;
    }
    const storage = storageOf(value);
    if (storage === undefined) wrongType(`${this.where}: ${name}`, value, "a Float32Array or a Tensor");
    if (storage.pointer === 0) throw new TypeError(`${this.where}: ${name} was disposed`);
    if (storage.runtime !== this.runtime) throw new TypeError(`${this.where}: ${name} belongs to another runtime`);
    return storage;
  }

  /** The number of rows of x: the trailing dimensions of a Tensor, or the length of an array, must fit. */
  checkRows(name: string, x: Place, { shape, size }: Normalized): number {
    if (x.shape === null ? x.size % size !== 0 : !endsWith(x.shape, shape)) {
      const expected = x.shape ? `[..., ${shape.join(", ")}]` : `a multiple of ${size}`;
      wrongSize(`${this.where}: ${name}`, x.shape ?? x.size, expected);
    }
    return x.size / size;
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

  /** A parameter or its gradient: of the normalized shape. */
  checkAffine(name: string, place: Place, { shape, size }: Normalized): void {
    if (place.shape === null ? place.size !== size : !sameShape(place.shape, shape)) {
      wrongSize(`${this.where}: ${name}`, place.shape ?? place.size, describe(place.shape ? shape : size));
    }
  }

  /** Two operands, of which one is written to, share no byte. Arrays are copied: only one given twice overlaps. */
  checkApart(name: string, place: Place, otherName: string, other: Place | null): void {
    if (other === null) return;
    const overlap =
      place.array !== null || other.array !== null
        ? place.array === other.array
        : place.pointer < other.pointer + other.size * 4 && other.pointer < place.pointer + place.size * 4;
    if (overlap) throw new RangeError(`${this.where}: ${name} overlaps ${otherName}`);
  }

  /** The same, but the two may also be one. */
  #checkApartOrSame(name: string, place: Place, otherName: string, other: Place | null): void {
    if (place.pointer !== other?.pointer) this.checkApart(name, place, otherName, other);
  }

  /** Takes an operand of the kind, size and shape of another. */
  #like(name: string, value: unknown, mode: number, otherName: string, other: Place): Place {
    const place = this.take(name, value, mode);
    if ((place.array === null) !== (other.array === null)) {
      wrongType(`${this.where}: ${name}`, value, `${other.array ? "a Float32Array" : "a Tensor"}, as ${otherName} is`);
    }
    this.checkSame(name, place, otherName, other);
    return place;
  }

  /** Takes a parameter, or what is added to its gradient. null where it is absent. */
  takeAffine(name: string, value: Operand | null | undefined, mode: number, normalized: Normalized): Place | null {
    if (value === null || value === undefined) return null;
    const place = this.take(name, value, mode | SHARED);
    this.checkAffine(name, place, normalized);
    return place;
  }

  /** A new Tensor, for a result or to be kept. */
  make(shape: readonly number[]): Tensor {
    try {
      this.#locate();
      const tensor = tensorFrom(new Storage(this.runtime, shape, sizeOf(shape)));
      this.#made ??= [];
      this.#made.push(tensor);
      this.#repeatable = false;
      return tensor;
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  /** A new result of the kind of an operand: a Tensor, or an array of as many elements. */
  makeLike(operand: Place, shape: readonly number[]): Operand {
    return operand.array === null ? this.make(shape) : new Float32Array(sizeOf(shape));
  }

  /** The place of the result, which is made where the caller has given no `out`. */
  #resultPlace(out: Place | null, like: Place): Place {
    if (out !== null) return out;
    this.#repeatable = false;
    this.#out = this.makeLike(like, like.shape ?? [like.size]);
    return this.take("out", this.#out, WRITTEN);
  }

  /** Takes x and the options of a forward pass. weight and bias must be there already. */
  takeForward(
    x: Operand,
    normalized: Normalized,
    out: Operand | undefined,
    residual: Operand | undefined,
    sum: Operand | undefined,
  ): Place {
    const source = this.take("x", x, READ);
    this.rows = this.checkRows("x", source, normalized);
    this.x = source;
    if (residual !== undefined) this.residual = this.#like("residual", residual, READ, "x", source);
    if (sum !== undefined) {
      if (this.residual === null) throw new TypeError(`${this.where}: sum is given without a residual to add to x`);
      this.sum = this.#takeOutput("sum", sum, source);
    }
    if (out !== undefined) {
      this.#out = out;
      this.y = this.#takeOutput("out", out, source);
    }
    return source;
  }

  #takeOutput(name: string, value: Operand, x: Place): Place {
    const place = this.#like(name, value, WRITTEN, "x", x);
    this.checkApart(name, place, "weight", this.weight);
    this.checkApart(name, place, "bias", this.bias);
    this.checkApart(name, place, "sum", this.sum);
    this.#checkApartOrSame(name, place, "x", x);
    if (this.residual !== null) this.#checkApartOrSame(name, place, "residual", this.residual);
    return place;
  }

  /**
   * Finds places for everything of a forward pass.
   * @param copy where x + residual, or an array x, is kept for backward
   */
  placeForward(copy: Storage | null): this {
    const { residual } = this;
    const x = this.x as Place;
    this.y = this.#resultPlace(this.y, x);
    if (this.#staged !== null) {
      share(x, copy);
      share(this.sum, copy ?? residual);
      share(this.y, copy === null ? x : residual);
    }
    if (copy !== null && residual !== null) this.sum = copy;
    return this.#reserve();
  }

  /** Takes the options of a backward pass. x, mean, rstd and weight must be there already. */
  takeBackward(dy: Place, out: Operand | undefined, add: Operand | undefined): void {
    this.dy = dy;
    if (add !== undefined) this.add = this.#like("add", add, READ, "dy", dy);
    if (out === undefined) return;
    this.#out = out;
    this.dx = this.#like("out", out, WRITTEN, "dy", dy);
    this.checkBackward("out", this.dx);
    this.#checkApartOrSame("out", this.dx, "dy", dy);
    if (this.add !== null) this.#checkApartOrSame("out", this.dx, "add", this.add);
  }

  /** Checks that what is written to lies apart from what is read, but for dy and add. */
  checkBackward(name: string, place: Place): void {
    this.checkApart(name, place, "x", this.x);
    this.checkApart(name, place, "mean", this.mean);
    this.checkApart(name, place, "rstd", this.rstd);
    this.checkApart(name, place, "weight", this.weight);
  }

  /** Finds places for everything of a backward pass. */
  placeBackward(): this {
    const dy = this.dy as Place;
    this.dx = this.#resultPlace(this.dx, dy);
    share(this.dx, dy);
    return this.#reserve();
  }

  /** Remembers which arrays lie in the memory, before that grows and detaches them. */
  #locate(): void {
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      const { buffer, byteOffset } = placeOf(staged.array);
      if (buffer === this.runtime.memory.buffer) staged.byteOffset = byteOffset;
    }
  }

  /** The memory has grown and detached an array in it. Or somebody has changed the size of the array. */
  #findAgain(staged: Staged): void {
    if (staged.byteOffset < 0) throw new RangeError(`${this.where}: an array changed its size during the call`);
    staged.array = new Float32Array(this.runtime.memory.buffer, staged.byteOffset, staged.size);
  }

  /** Finds room for a workspace and for the copies of arrays. */
  #reserve(): this {
    const { runtime } = this;
    try {
      const sums = this.dweight !== null || this.dbias !== null;
      const workspace = sums ? this.family.workspace(runtime.kernels, this.rows, this.cols) >>> 0 : 0;
      if (this.#staged !== null) this.#reserveStaged(sums, workspace);
      else if (workspace > 0) {
        this.#scratch = runtime.borrow(workspace);
        this.workspace = this.#scratch.pointer;
      }
      return this;
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  /** @param workspace the bytes of it for a call in one piece */
  #reserveStaged(sums: boolean, workspace: number): void {
    const { runtime, rows } = this;
    let rowBytes = 0;
    let bytes = 0;
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      bytes += ALIGNMENT;
      if (placeOf(staged.array).buffer.byteLength > KEPT) this.#repeatable = false;
      if (!(staged.mode & SHARED) && rows > 0) staged.rowSize = staged.size / rows;
      if (staged.at !== null) continue;
      if (staged.rowSize > 0) rowBytes += staged.rowSize * 4;
      else bytes += staged.size * 4;
    }
    const most = runtime.blockBytes(sums);
    const split = rows * rowBytes > most && !this.#concurrent && !this.#entangled();
    const step = sums ? runtime.kernels.sumsGroup() : 1;
    const blockRows = split ? Math.min(rows, Math.max(1, Math.floor(most / rowBytes / step)) * step) : rows;
    this.#blockRows = blockRows;
    const room = blockRows < rows && workspace > 0 ? runtime.kernels.sumsWorkspace(rows, this.cols) >>> 0 : workspace;
    bytes += room + blockRows * rowBytes;
    if (split || bytes > KEPT) this.#repeatable = false;
    if (runtime.lacks(bytes)) this.#locate();
    this.#scratch = runtime.borrow(bytes);
    let { pointer } = this.#scratch;
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.at === null) {
        staged.pointer = pointer;
        pointer += aligned((staged.rowSize > 0 ? blockRows * staged.rowSize : staged.size) * 4);
      }
      if (lengthOf(staged.array) !== staged.size) this.#findAgain(staged);
    }
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.at !== null) staged.pointer = staged.at.pointer;
    }
    if (room > 0) this.workspace = pointer;
  }

  /** Whether writing some rows of an array may change later rows of another, or a parameter. */
  #entangled(): boolean {
    const places: { buffer: ArrayBufferLike; start: number; end: number }[] = [];
    const memory = this.runtime.memory.buffer;
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      const { buffer, byteOffset: start } = placeOf(staged.array);
      const end = start + staged.size * 4;
      // A shared memory that has grown has another buffer, and the old one still shows its bytes.
      if (buffer === memory || (isShared(buffer) && isShared(memory))) return true;
      for (const other of places) {
        if (buffer !== other.buffer) {
          if (isShared(buffer) && isShared(other.buffer)) return true;
        } else if (start !== other.start && start < other.end && other.start < end) return true;
      }
      places.push({ buffer, start, end });
    }
    return false;
  }

  /** Computes. */
  run(): Operand {
    const { runtime, rows } = this;
    try {
      // An array may lie in the memory, where a call under way writes to it.
      if (this.#staged !== null) runtime.settle();
      if (this.#blockRows < rows) this.#runBlocks();
      else {
        this.#copy(READ);
        this.#invoke(runtime.kernels as never);
        this.#copy(WRITTEN);
      }
    } finally {
      this.#end();
    }
    return this.#result;
  }

  #runBlocks(): void {
    const { runtime, rows } = this;
    const kernelCall = this.#invoke(RECORD);
    const sums = sumsRows(kernelCall);
    const fixed: number[] = [];
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.at?.array !== null) fixed.push(staged.pointer);
    }
    for (let start = 0; start < rows; start += this.#blockRows) {
      const count = Math.min(this.#blockRows, rows - start);
      this.#copyRows(READ, start, count);
      callRows(runtime.kernels, kernelCall, start, count, sums, fixed);
      if (sums && start + count === rows) addSums(runtime.kernels, kernelCall);
      this.#copyRows(WRITTEN, start, count);
    }
  }

  /** Computes without blocking, where the runtime can. */
  async start(): Promise<Operand> {
    if (!this.#concurrent) return this.run();
    const { runtime } = this;
    try {
      for (let staged = this.#staged; staged !== null; staged = staged.next) {
        if (isShared(placeOf(staged.array).buffer)) runtime.settle();
      }
      this.#copy(READ);
      let failure: unknown;
      const copyBack = () => {
        try {
          this.#copy(WRITTEN);
        } catch (error) {
          failure = error; // an array was detached meanwhile
        }
      };
      await runtime.start(this.#invoke(RECORD), this.#staged === null ? undefined : copyBack);
      if (failure !== undefined) throw failure;
    } finally {
      this.#end();
    }
    return this.#result;
  }

  /** Copies arrays to the memory or back. */
  #copy(mode: number): void {
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.mode & mode) this.#copyPart(mode, staged.array, staged.pointer, staged.size);
    }
  }

  /** Copies some rows of arrays, what all rows share with the first row or the last. */
  #copyRows(mode: number, start: number, count: number): void {
    const last = mode === READ ? start === 0 : start + count === this.rows;
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      const { array, size, rowSize, at, pointer } = staged;
      if (!(staged.mode & mode)) continue;
      if (rowSize > 0) {
        const offset = at?.array === null ? start * rowSize * 4 : 0;
        this.#copyPart(mode, viewOf(array, start * rowSize, count * rowSize), pointer + offset, count * rowSize);
      } else if (last) this.#copyPart(mode, array, pointer, size);
    }
  }

  #copyPart(mode: number, array: Float32Array, pointer: number, length: number): void {
    if (length === 0) return;
    const copy = this.runtime.view(pointer, length);
    if (mode === READ) copy.set(array);
    else set.call(array, copy);
  }

  /** Gives back all that was made for a call that can't be made. */
  #abandon(): void {
    if (this.#made !== undefined) for (const tensor of this.#made) tensor.dispose();
    this.#end();
  }

  /** Gives the scratch memory back. */
  #end(): void {
    if (this.#scratch !== undefined) this.runtime.giveBack(this.#scratch);
  }

  get #result(): Operand {
    const { array } = (this.dx === null ? this.y : this.dx) as Place;
    return array === null ? (this.#out as Operand) : array;
  }
}

/** The address of an operand, 0 for one that is absent: what the kernels take. */
export function pointerOf(place: Place | null): number {
  return place === null ? 0 : place.pointer;
}

/** What a forward pass reads and writes beside x, each of the kind and shape of x. */
export interface ForwardOptions<T extends Operand> {
  /** What to write the result to, and to return. */
  out?: T | undefined;
  /** Added to x before it is normalized. */
  residual?: NoInfer<T> | undefined;
  /** What to write x + residual to. */
  sum?: NoInfer<T> | undefined;
}

/** What a backward pass reads and writes beside dy, each of the kind and shape of dy. */
export interface BackwardOptions<T extends Operand> {
  /** What to write the result to, and to return. */
  out?: T | undefined;
  /** Added to the gradient of x. */
  add?: NoInfer<T> | undefined;
}
