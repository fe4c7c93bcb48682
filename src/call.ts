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
  placeOf,
  sameShape,
  sizeOf,
  tagOf,
  viewOf,
  wrongType,
} from "./check.js";
import { addSums, callRows, type Kernel, type Kernels, RECORD, sumsRows } from "./kernels.js";
import { Runtime, type Scratch } from "./runtime.js";
import { Storage, storageOf, type Tensor, tensorFrom } from "./tensor.js";

export type Operand = Float32Array | Tensor;

/** The kernels, or functions in their place that return something else. */
export type Table<R> = Record<Kernel["name"], (...args: number[]) => R>;

/** The options of a forward pass. They are read before anything is checked: a getter may do what it likes. */
export const FORWARD_OPTIONS = ["out", "residual", "sum"];

export type Method = "forward" | "forwardAsync" | "backward" | "backwardAsync";

/** A norm: how its kernels are called. */
export interface Family {
  /** The name of its module in errors, and of its methods: to put them together takes as long as a short row. */
  name: string;
  methods: Record<Method, string>;
  /** Whether its statistics have a mean beside rstd. */
  hasMean: boolean;
  forward<R>(kernels: Table<R>, call: Call): R;
  backward<R>(kernels: Table<R>, call: Call): R;
  /** The bytes of workspace for a backward call. */
  workspace(kernels: Kernels, rows: number, cols: number): number;
}

/** Whether an array is copied in before the kernel runs, and out afterwards. */
const READ = 1;
const WRITTEN = 2;

/** An array, and its copy in the memory. */
export class Staged {
  array: Float32Array;
  /** The array that the call took before it. */
  readonly next: Staged | null;
  readonly size: number;
  /** How many of its floats belong to a row; 0 where all rows share them. */
  rowSize = 0;
  mode = 0;
  /** Where the copy is. */
  pointer = 0;
  /** Another array whose copy is in the same place, or a storage with room for all rows. */
  at: Place | null = null;
  /** Where the array itself lies in the memory, if it does. */
  byteOffset = -1;

  constructor(array: Float32Array, next: Staged | null) {
    this.array = array;
    this.next = next;
    this.size = lengthOf(array);
  }
}

/** A checked operand: what a Tensor is made of, whose `array` is null, or a staged array. */
export type Place = Storage | Staged;

/** A result. */
export type Result = Tensor | Staged;

/** Where a result is written. */
export function placeFor(result: Result): Place {
  return storageOf(result) ?? (result as Staged);
}

/** A result as the caller gets it, once the call is done. */
export function handOut(result: Result): Operand {
  return result instanceof Staged ? result.array : result;
}

const { set } = Float32Array.prototype;
const ALIGNMENT = 16;
const aligned = (bytes: number) => bytes + (-bytes & (ALIGNMENT - 1));

/** The runtime of the first Tensor among values; the default where there is none. */
export function runtimeOf(...values: readonly unknown[]): Runtime {
  for (const value of values) {
    const storage = storageOf(value);
    if (storage !== undefined) return storage.runtime;
  }
  return Runtime.default;
}

/** The number of rows of x: the trailing dimensions of a Tensor, or the length of an array, must fit. */
export function checkRows(
  where: string,
  name: string,
  x: Place,
  normalizedShape: readonly number[],
  cols: number,
): number {
  if (x.array !== null) {
    if (x.size % cols !== 0) {
      throw new RangeError(`${where}: ${name} has ${x.size} elements, expected a multiple of ${cols}`);
    }
  } else if (!endsWith(x.shape, normalizedShape)) {
    throw new RangeError(
      `${where}: ${name} has the shape ${describe(x.shape)}, expected [..., ${normalizedShape.join(", ")}]`,
    );
  }
  return x.size / cols;
}

/** As many elements as another operand and, where both are Tensors, its shape. */
export function checkSame(where: string, name: string, place: Place, otherName: string, other: Place): void {
  if (place.array === null && other.array === null && !sameShape(place.shape, other.shape)) {
    throw new RangeError(
      `${where}: ${name} has the shape ${describe(place.shape)}, expected that of ${otherName}, ${describe(other.shape)}`,
    );
  }
  if (place.size !== other.size) {
    throw new RangeError(`${where}: ${name} has ${place.size} elements, expected ${other.size}, as ${otherName} has`);
  }
}

/** A parameter or its gradient: of the normalized shape. */
export function checkAffine(where: string, name: string, place: Place, normalizedShape: readonly number[]): void {
  if (place.array === null && !sameShape(place.shape, normalizedShape)) {
    throw new RangeError(
      `${where}: ${name} has the shape ${describe(place.shape)}, expected ${describe(normalizedShape)}`,
    );
  }
  const size = sizeOf(normalizedShape);
  if (place.size !== size) throw new RangeError(`${where}: ${name} has ${place.size} elements, expected ${size}`);
}

/** Two operands, of which one is written to, share no byte. Arrays are copied: only one given twice overlaps. */
export function checkApart(where: string, name: string, place: Place, otherName: string, other: Place | null): void {
  if (other === null) return;
  const overlap =
    place.array !== null || other.array !== null
      ? place.array === other.array
      : place.pointer < other.pointer + other.size * 4 && other.pointer < place.pointer + place.size * 4;
  if (overlap) throw new RangeError(`${where}: ${name} overlaps ${otherName}`);
}

/** The same, but the two may also be one. */
function checkApartOrSame(where: string, name: string, place: Place, otherName: string, other: Place | null): void {
  if (place.array === null && place.pointer !== other?.pointer) checkApart(where, name, place, otherName, other);
}

/**
 * A forward pass: sum = x + residual; y, mean, rstd = norm(sum), or norm(x) without a residual. Or, where there is a
 * dy, a backward pass: dx = gradient + add, and what is added to dweight and dbias. One class: to make an object of a
 * derived class takes twice the time, which is that of a short row.
 */
export class Call {
  /** The method or function, in errors. */
  where: string;
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
  /** What is normalized, as it was given: sum or x. */
  given: Operand | undefined;
  #out: Operand | undefined;
  /** What the caller gets. */
  #result: Result | undefined;
  /** Whether the caller goes on before it is done. */
  readonly #concurrent: boolean;
  /** The last array that was taken; the others hang on it. */
  #staged: Staged | null = null;
  #made: Tensor[] | undefined;
  #scratch: Scratch | undefined;
  #blockRows = 0;

  constructor(where: string, runtime: Runtime, family: Family, cols: number, concurrent: boolean) {
    this.where = where;
    this.runtime = runtime;
    this.family = family;
    this.cols = cols;
    this.#concurrent = concurrent && runtime.concurrent;
  }

  /** Forgets the operands of a forward pass that was run, so that it can be used for another. */
  clear(): this {
    this.x = null;
    this.mean = null;
    this.rstd = null;
    this.residual = null;
    this.sum = null;
    this.y = null;
    this.given = undefined;
    this.#out = undefined;
    this.#result = undefined;
    this.#staged = null;
    this.#made = undefined;
    return this;
  }

  /** Calls the kernel with the operands. */
  #invoke<R>(kernels: Table<R>): R {
    return this.dy === null ? this.family.forward(kernels, this) : this.family.backward(kernels, this);
  }

  /** A Float32Array, or a Tensor of the runtime that is not disposed. */
  take(name: string, value: unknown): Place {
    if (tagOf(value) === "Float32Array") {
      const staged = this.#stage(value as Float32Array);
      if (staged.size === 0) checkAttached(`${this.where}: ${name}`, staged.array);
      return staged;
    }
    const storage = storageOf(value);
    if (storage === undefined) wrongType(`${this.where}: ${name}`, value, "a Float32Array or a Tensor");
    if (storage.pointer === 0) throw new TypeError(`${this.where}: ${name} was disposed`);
    if (storage.runtime !== this.runtime) throw new TypeError(`${this.where}: ${name} belongs to another runtime`);
    return storage;
  }

  #stage(array: Float32Array): Staged {
    const staged = new Staged(array, this.#staged);
    this.#staged = staged;
    return staged;
  }

  #allStaged(): Staged[] {
    const all: Staged[] = [];
    for (let staged = this.#staged; staged !== null; staged = staged.next) all.push(staged);
    return all;
  }

  /** Takes an operand of the kind, size and shape of another. */
  like(name: string, value: unknown, otherName: string, other: Place): Place {
    const place = this.take(name, value);
    if ((place.array === null) !== (other.array === null)) {
      wrongType(`${this.where}: ${name}`, value, `${other.array ? "a Float32Array" : "a Tensor"}, as ${otherName} is`);
    }
    checkSame(this.where, name, place, otherName, other);
    return place;
  }

  /** A new Tensor, for a result or to be kept. */
  make(shape: readonly number[]): Tensor {
    try {
      this.#locate();
      const tensor = tensorFrom(new Storage(this.runtime, shape, sizeOf(shape)));
      if (this.#made === undefined) this.#made = [tensor];
      else this.#made.push(tensor);
      return tensor;
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  /** A new result of the kind of an operand: a Tensor, or an array of as many elements. */
  makeLike(operand: Place, shape: readonly number[]): Result {
    return operand.array === null ? this.make(shape) : this.#stage(new Float32Array(sizeOf(shape)));
  }

  /** Sets the result: `out`, which was taken as `place`, or something new, like an operand. Returns its place. */
  #resultFor(out: Operand | undefined, place: Place | null, like: Place): Place {
    if (place === null) {
      this.#result = this.makeLike(like, like.array === null ? like.shape : [like.size]);
      return placeFor(this.#result);
    }
    this.#result = place.array === null ? (out as Tensor) : place;
    return place;
  }

  /** Takes x and the options of a forward pass. weight and bias must be there already. */
  takeForward(
    x: Operand,
    normalizedShape: readonly number[],
    out: Operand | undefined,
    residual: Operand | undefined,
    sum: Operand | undefined,
  ): Place {
    const { where } = this;
    const source = this.take("x", x);
    this.rows = checkRows(where, "x", source, normalizedShape, this.cols);
    this.x = source;
    this.given = sum ?? x;
    if (residual !== undefined) this.residual = this.like("residual", residual, "x", source);
    if (sum !== undefined) {
      if (this.residual === null) throw new TypeError(`${where}: sum is given without a residual to add to x`);
      this.sum = this.like("sum", sum, "x", source);
      this.#checkForward("sum", this.sum);
    }
    if (out !== undefined) {
      this.#out = out;
      this.y = this.like("out", out, "x", source);
      this.#checkForward("out", this.y);
      checkApart(where, "out", this.y, "sum", this.sum);
    }
    return source;
  }

  #checkForward(name: string, place: Place): void {
    const { where, residual } = this;
    checkApart(where, name, place, "weight", this.weight);
    checkApart(where, name, place, "bias", this.bias);
    checkApartOrSame(where, name, place, "x", this.x);
    if (residual !== null) checkApartOrSame(where, name, place, "residual", residual);
  }

  /**
   * Finds places for everything of a forward pass.
   * @param copy where x + residual, or an array x, is kept for backward
   */
  placeForward(copy: Storage | null): this {
    const { cols, residual } = this;
    const x = this.x as Place;
    this.y = this.#resultFor(this.#out, this.y, x);
    if (this.#staged !== null) {
      copied(x, cols, READ, copy);
      copied(residual, cols, READ);
      copied(this.sum, cols, WRITTEN, copy ?? residual);
      copied(this.weight, 0, READ);
      copied(this.bias, 0, READ);
      copied(this.y, cols, WRITTEN, copy === null ? x : residual);
      copied(this.mean, 1, WRITTEN);
      copied(this.rstd, 1, WRITTEN);
    }
    if (copy !== null && residual !== null) this.sum = copy;
    this.#reserve();
    return this;
  }

  /** Takes the options of a backward pass. x, mean, rstd and weight must be there already. */
  takeBackward(dy: Place, out: Operand | undefined, add: Operand | undefined): void {
    const { where } = this;
    this.dy = dy;
    if (add !== undefined) this.add = this.like("add", add, "dy", dy);
    if (out === undefined) return;
    this.#out = out;
    this.dx = this.like("out", out, "dy", dy);
    this.checkBackward("out", this.dx);
    checkApartOrSame(where, "out", this.dx, "dy", dy);
    if (this.add !== null) checkApartOrSame(where, "out", this.dx, "add", this.add);
  }

  /** That what is written to lies apart from what is read, but for dy and add. */
  checkBackward(name: string, place: Place): void {
    const { where } = this;
    checkApart(where, name, place, "x", this.x);
    checkApart(where, name, place, "mean", this.mean);
    checkApart(where, name, place, "rstd", this.rstd);
    checkApart(where, name, place, "weight", this.weight);
  }

  /** Finds places for everything of a backward pass. */
  placeBackward(): this {
    const { runtime, rows, cols } = this;
    const dy = this.dy as Place;
    this.dx = this.#resultFor(this.#out, this.dx, dy);
    if (this.#staged !== null) {
      copied(dy, cols, READ);
      copied(this.add, cols, READ);
      copied(this.x, cols, READ);
      copied(this.mean, 1, READ);
      copied(this.rstd, 1, READ);
      copied(this.weight, 0, READ);
      copied(this.dweight, 0, READ | WRITTEN);
      copied(this.dbias, 0, READ | WRITTEN);
      copied(this.dx, cols, WRITTEN, dy);
    }
    const sums = this.dweight !== null || this.dbias !== null;
    this.workspace = this.#reserve(sums ? this.family.workspace(runtime.kernels, rows, cols) >>> 0 : undefined);
    return this;
  }

  /** Remembers which arrays lie in the memory, before that grows and detaches them. */
  #locate(): void {
    if (this.#staged === null) return;
    const { memory } = this.runtime;
    for (let staged: Staged | null = this.#staged; staged !== null; staged = staged.next) {
      const { buffer, byteOffset } = placeOf(staged.array);
      if (buffer === memory.buffer) staged.byteOffset = byteOffset;
    }
  }

  /**
   * Finds room for the copies of arrays and for a workspace.
   * @param workspace its bytes for a call in one piece; undefined where nothing is summed over the rows
   * @returns the address of the workspace, 0 where none is needed
   */
  #reserve(workspace?: number): number {
    try {
      if (this.#staged !== null) return this.#reserveStaged(this.#staged, workspace);
      if (!workspace) return 0;
      this.#scratch = this.runtime.borrow(workspace);
      return this.#scratch.pointer;
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  #reserveStaged(staged: Staged, workspace?: number): number {
    const { runtime, rows } = this;
    let rowBytes = 0;
    let bytes = 0;
    for (let each: Staged | null = staged; each !== null; each = each.next) {
      bytes += ALIGNMENT;
      if (each.at !== null) continue;
      if (each.rowSize > 0) rowBytes += each.rowSize * 4;
      else bytes += each.size * 4;
    }
    const most = runtime.blockBytes(workspace !== undefined);
    const split = rows * rowBytes > most && !this.#concurrent && !this.#entangled();
    const blockRows = split ? Math.max(1, Math.floor(most / rowBytes)) : rows;
    this.#blockRows = blockRows;
    const room = (split && workspace ? runtime.kernels.sumsWorkspace(rows, this.cols) >>> 0 : workspace) ?? 0;
    bytes += room + blockRows * rowBytes;
    if (runtime.lacks(bytes)) this.#locate();
    this.#scratch = runtime.borrow(bytes);
    let { pointer } = this.#scratch;
    for (let each: Staged | null = staged; each !== null; each = each.next) {
      if (each.at === null) {
        each.pointer = pointer;
        pointer += aligned((each.rowSize > 0 ? blockRows * each.rowSize : each.size) * 4);
      }
      if (lengthOf(each.array) !== each.size) this.#findAgain(each);
    }
    for (let each: Staged | null = staged; each !== null; each = each.next) {
      if (each.at !== null) each.pointer = each.at.pointer;
    }
    return room > 0 ? pointer : 0;
  }

  /** The memory has grown and detached an array in it. Or somebody has changed the size of the array. */
  #findAgain(staged: Staged): void {
    if (staged.byteOffset < 0) throw new RangeError(`${this.where}: an array changed its size during the call`);
    staged.array = new Float32Array(this.runtime.memory.buffer, staged.byteOffset, staged.size);
  }

  /** Whether writing some rows of an array may change later rows of another, or a parameter. */
  #entangled(): boolean {
    const { memory } = this.runtime;
    const places = this.#allStaged().map(({ array, size, mode }) => ({ ...placeOf(array), size, mode }));
    return places.some(({ buffer, byteOffset, size, mode }, i) => {
      if (buffer === memory.buffer) return true;
      return places.slice(0, i).some((other) => {
        if (!((mode | other.mode) & WRITTEN)) return false;
        if (buffer !== other.buffer) return isShared(buffer) && isShared(other.buffer);
        if (byteOffset === other.byteOffset) return false;
        return byteOffset < other.byteOffset + other.size * 4 && other.byteOffset < byteOffset + size * 4;
      });
    });
  }

  /** Computes. */
  run(): Operand {
    const { runtime, rows } = this;
    const arrays = this.#staged !== null;
    if (arrays) runtime.settle(); // an array may lie in the memory, where a call under way writes to it
    if (arrays && this.#blockRows < rows) this.#runBlocks();
    else {
      this.#copyIn(0, rows);
      this.#invoke(runtime.kernels as never);
      this.#copyOut(0, rows);
    }
    this.#end();
    return handOut(this.#result as Result);
  }

  #runBlocks(): void {
    const { runtime, rows } = this;
    const kernelCall = this.#invoke(RECORD);
    const sums = sumsRows(kernelCall);
    const fixed = this.#allStaged().flatMap(({ at, pointer }) => (at?.array === null ? [] : [pointer]));
    for (let start = 0; start < rows; start += this.#blockRows) {
      const count = Math.min(this.#blockRows, rows - start);
      this.#copyIn(start, count);
      callRows(runtime.kernels, kernelCall, start, count, sums, fixed);
      if (sums && start + count === rows) addSums(runtime.kernels, kernelCall);
      this.#copyOut(start, count);
    }
  }

  /** Computes without blocking, where the runtime can. */
  async start(): Promise<Operand> {
    if (!this.#concurrent) return this.run();
    const { runtime, rows } = this;
    try {
      if (this.#allStaged().some(({ array }) => isShared(placeOf(array).buffer))) runtime.settle();
      this.#copyIn(0, rows);
      await runtime.start(this.#invoke(RECORD));
      this.#copyOut(0, rows);
    } finally {
      this.#end();
    }
    return handOut(this.#result as Result);
  }

  /** Copies some rows of arrays to the memory, and with the first row what all rows share. */
  #copyIn(start: number, count: number): void {
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.mode & READ && (staged.rowSize > 0 || start === 0)) this.#copy(staged, start, count, true);
    }
  }

  /** Copies them back, what all rows share with the last row. */
  #copyOut(start: number, count: number): void {
    for (let staged = this.#staged; staged !== null; staged = staged.next) {
      if (staged.mode & WRITTEN && (staged.rowSize > 0 || start + count === this.rows)) {
        this.#copy(staged, start, count, false);
      }
    }
  }

  #copy({ array, size, rowSize, pointer, at }: Staged, start: number, count: number, inwards: boolean): void {
    const length = rowSize === 0 ? size : count * rowSize;
    if (length === 0) return;
    const rows = length === size ? array : viewOf(array, start * rowSize, length);
    const copy = this.runtime.view(at?.array === null ? pointer + start * rowSize * 4 : pointer, length);
    if (inwards) copy.set(rows);
    else set.call(rows, copy);
  }

  /** Gives back all that was made for a call that can't be made. */
  #abandon(): void {
    if (this.#made !== undefined) for (const tensor of this.#made) tensor.dispose();
    this.#end();
  }

  /** Gives the scratch memory back. */
  #end(): void {
    if (this.#scratch === undefined) return;
    this.runtime.giveBack(this.#scratch);
    this.#scratch = undefined;
  }
}

/**
 * How an array is copied for a call. Does nothing for a Tensor.
 * @param rowSize how many of its floats belong to a row; 0 where all rows share them
 * @param at another array of the call, to share the place of its copy, or a storage with room for all rows
 */
function copied(operand: Place | null, rowSize: number, mode: number, at: Place | null = null): void {
  if (operand === null || operand.array === null) return;
  operand.rowSize = rowSize;
  operand.mode = mode;
  operand.at = at;
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
