/**
 * A shape and a pointer, seen as a Float32Array.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import * as check from "./check.js";
import type { LinearMemory } from "./memory.js";
import { checkRuntime, Runtime } from "./runtime.js";

export interface TensorOptions {
  /** Where the tensor lives; by default `Runtime.default`. */
  runtime?: Runtime | undefined;
  /**
   * The address of memory that belongs to somebody else, a multiple of 4. The tensor is then a view of it: the memory
   * is not allocated, cleared or freed.
   */
  pointer?: number | undefined;
}

/** A tensor in shared memory, as it is posted to a worker. */
export interface TensorHandle {
  readonly memory: LinearMemory;
  readonly pointer: number;
  readonly shape: readonly number[];
}

/** `Symbol.dispose`, or where the engine has none yet (WebKit), the one that compiled `using` looks for. */
export const dispose: typeof Symbol.dispose = Symbol.dispose ?? Symbol.for("Symbol.dispose");

const NONE = new Float32Array(0);

/** What a tensor is made of. A call works on this, whatever a subclass of Tensor has put over its properties. */
export class Storage {
  /** The address of the first element; 0 once disposed. */
  pointer: number;
  /** Whether the memory is given back when the tensor is disposed or dropped. */
  readonly owned: boolean;
  /** Not an array: see `ArrayOperand`. */
  readonly array = null;
  /** How many calls have written to it, and which argument of which call was the last. */
  version = 0;
  writer = "";
  written = "";
  #view: Float32Array = NONE;

  /** @param shape not frozen, because engines take far longer to read a frozen list, and never given away */
  constructor(
    readonly runtime: Runtime,
    readonly shape: readonly number[],
    readonly size: number,
    pointer?: number,
  ) {
    this.owned = pointer === undefined;
    this.pointer = pointer ?? runtime.allocate(size * 4);
  }

  /** The elements. */
  get data(): Float32Array {
    // A view that is detached, because the memory has grown, is empty. Asking the memory for its buffer takes far
    // longer.
    if (this.#view.length > 0) return this.#view;
    if (this.pointer === 0) throw new TypeError("Tensor was disposed");
    this.#view = new Float32Array(this.runtime.buffer, this.pointer, this.size);
    return this.#view;
  }

  /** Notes that a call writes to it, for a module that needs what was there. An allocator may have disposed of it. */
  overwrite(writer: string, written: string): void {
    if (this.pointer === 0) throw new TypeError(`${writer}: ${written} was disposed`);
    this.version++;
    this.writer = writer;
    this.written = written;
  }

  /** That nothing was written to it since it had a version. */
  checkVersion(where: string, name: string, version: number): void {
    if (this.pointer === 0) throw new TypeError(`${where}: ${name} was disposed`);
    if (this.version === version) return;
    const by = `${this.writer} (${this.written}); give that call its own ${this.written}`;
    throw new TypeError(`${where}: ${name} was overwritten by ${by}`);
  }

  /** Gives the memory back. */
  free(): void {
    const { pointer } = this;
    if (pointer === 0) return;
    this.pointer = 0;
    this.#view = NONE;
    dropped?.unregister(this);
    if (this.owned) this.runtime.free(pointer);
  }
}

/** Frees the memory of a tensor that was dropped without `dispose`, where the engine can tell. */
const dropped: FinalizationRegistry<Storage> | undefined =
  globalThis.FinalizationRegistry && new FinalizationRegistry((storage) => storage.free());

/** The storage of a Tensor. */
export let storageOf: (tensor: Tensor) => Storage;

let isTensor: (value: Tensor) => boolean;

/** The storage of what may be a Tensor; undefined for anything else. It takes long beside a short row. */
export const storageIn = (value: unknown): Storage | undefined =>
  value instanceof Tensor && isTensor(value) ? storageOf(value) : undefined;

/** The storage of a Parameter's gradient. */
export let gradientOf: (parameter: Parameter) => Storage;

/**
 * An n-dimensional array of float32, row-major, in the linear memory of a runtime.
 *
 * @example
 * ```js standalone
 * import { LayerNorm, Tensor } from "layernorm-wasm";
 *
 * const x = new Tensor([2, 2], [1, 3, 5, 9]); // a copy of the numbers
 *
 * const y = new LayerNorm(2, { eps: 0 }).forward(x); // a Tensor for a Tensor, without a copy
 * console.log(y.data); // -1, 1, -1, 1
 * y.dispose(); // gives the memory back at once
 * ```
 */
export class Tensor extends check.Shown {
  readonly #storage: Storage;
  #shape: readonly number[] | undefined;

  /** Lets `storageOf` in. A field instead of a static block, which Chrome before 94 doesn't know. @internal */
  protected static readonly friend = (() => {
    storageOf = (tensor) => tensor.#storage;
    isTensor = (value) => #storage in value; // and no Proxy of one
  })();

  /**
   * @param shape integers of 0 or more; `[]` is a single number
   * @param data as many numbers as the shape has elements, copied; zeros by default
   * @throws TypeError, RangeError for a shape, data or pointer that doesn't fit; RangeError when the memory is full
   */
  constructor(shape: readonly number[], data?: ArrayLike<number>, options: TensorOptions = {}) {
    super();
    if ((shape as unknown) instanceof Storage) {
      this.#storage = shape as unknown as Storage;
      if (data === undefined) dropped?.register(this, this.#storage, this.#storage);
      return;
    }
    const own = check.checkShape("Tensor: shape", shape, 0, "a list of integers");
    const size = check.sizeOf(own);
    const expected = `a Float32Array or a list of numbers; ${check.INTEGERS}`;
    const source =
      data === undefined ? undefined : check.checkNumbers("Tensor: data", data, /^(?!B|Uint16)./, expected);
    if (source && source.length !== size)
      check.wrongSize("Tensor: data", source.length, `${size} for the shape ${check.describe(own)}`);
    check.checkOptions("Tensor", options, ["runtime", "pointer"]);
    const runtime = checkRuntime("Tensor: runtime", options.runtime) ?? Runtime.default;
    // A pointer that is there but undefined is a mistake in a computation, not a wish for new memory.
    const given = "pointer" in options;
    const end = runtime.buffer.byteLength;
    const pointer = given ? check.checkAddress("Tensor: pointer", options.pointer, size * 4, end) : undefined;
    // The memory may grow here, and detach an array that lies in it.
    const numbers = source?.buffer === runtime.memory.buffer ? new Float32Array(source as Float32Array) : source;
    this.#storage = new Storage(runtime, own, size, pointer);
    if (numbers) this.#storage.data.set(numbers);
    else if (pointer === undefined) this.#storage.data.fill(0);
    if (this.#storage.owned) dropped?.register(this, this.#storage, this.#storage);
  }

  /**
   * The tensor of a handle, in this thread: the same elements, to be read and written. Keep the tensor that the handle
   * was taken from until this one is no longer used.
   * @throws TypeError, RangeError for what is no handle
   */
  static from(handle: TensorHandle): Tensor {
    return tensorOf(handle);
  }

  get runtime(): Runtime {
    return this.#storage.runtime;
  }

  get shape(): readonly number[] {
    this.#shape ??= Object.freeze(this.#storage.shape.slice());
    return this.#shape;
  }

  /** The number of elements. */
  get size(): number {
    return this.#storage.size;
  }

  /**
   * To be posted to a worker, where `Tensor.from` makes a tensor of it.
   * @throws TypeError where the memory isn't shared. That of a runtime of several threads is
   */
  get handle(): TensorHandle {
    const { runtime, pointer, shape } = this;
    if (!check.isShared(runtime.buffer)) throw new TypeError("Tensor: handle needs memory of createThreadedRuntime");
    return { memory: runtime.memory, pointer, shape };
  }

  /** The address of the first element. */
  get pointer(): number {
    const { pointer } = this.#storage;
    if (pointer === 0) throw new TypeError("Tensor was disposed");
    return pointer;
  }

  /**
   * The elements, live: writing to them writes to the tensor. After the memory has grown this is a new view, and the
   * old one is empty. So take it from here each time rather than keeping it.
   */
  get data(): Float32Array {
    return this.#storage.data;
  }

  /** As in "Tensor [64, 768]". */
  override toString(): string {
    const { shape, pointer } = this.#storage;
    return `${this instanceof Parameter ? "Parameter" : "Tensor"} [${shape.join(", ")}]${pointer === 0 ? ", disposed" : ""}`;
  }

  get disposed(): boolean {
    return this.#storage.pointer === 0;
  }

  /** Gives the memory back. A second time is harmless; any other use afterwards is an error. */
  dispose(): void {
    this.#storage.free();
  }

  [dispose](): void {
    this.dispose();
  }
}

// Not in the class: esbuild renames a class that names itself, and errors tell the name.
function tensorOf(handle: TensorHandle): Tensor {
  const { memory, pointer, shape } = handle ?? {};
  if (memory instanceof WebAssembly.Memory)
    return new Tensor(shape, undefined, { runtime: Runtime.of(memory), pointer });
  check.wrongType("Tensor.from: handle", handle, "what tensor.handle gives");
}

/** A tensor of a storage that a call or a module has made: nothing about it is checked. */
export const tensorFrom = (storage: Storage) => new Tensor(storage as never);

/**
 * A tensor that is learned: it has a gradient beside it.
 *
 * @example
 * ```js standalone
 * import { LayerNorm, Parameter } from "layernorm-wasm";
 *
 * const weight = new Parameter([2], [2, 2]);
 * const ln = new LayerNorm(2, { eps: 0, weight, bias: false });
 * ln.forward(Float32Array.of(3, 5));
 * ln.backward(Float32Array.of(1, 1));
 * console.log(weight.grad); // -1, 1
 * ```
 */
export class Parameter extends Tensor {
  /** Whether `backward` computes the gradient; false leaves `grad` as it is. */
  requiresGrad = true;
  readonly #gradient: Storage;
  /** A tensor whose elements it has. It is kept alive, and not freed. */
  readonly #source: Tensor | undefined;

  /** Lets `gradientOf` in. @internal */
  protected static override readonly friend = (() => {
    gradientOf = (parameter) => parameter.#gradient;
  })();

  /**
   * @param shape as for `Tensor`
   * @param data as for `Tensor`
   * @param options as for `Tensor`
   */
  constructor(shape: readonly number[], data?: ArrayLike<number>, options: TensorOptions = {}) {
    super(shape, data, options);
    const { runtime, shape: own, size } = storageOf(this);
    this.#source = (data as unknown) instanceof Tensor ? (data as unknown as Tensor) : undefined;
    try {
      this.#gradient = new Storage(runtime, own, size);
    } catch (error) {
      if (!this.#source) super.dispose();
      throw error;
    }
    this.#gradient.data.fill(0);
    dropped?.register(this, this.#gradient, this.#gradient);
  }

  /** The gradient, of the same shape, live like `data`. `backward` adds to it; `zeroGrad` clears it. */
  get grad(): Float32Array {
    return this.#gradient.data;
  }

  override dispose(): void {
    if (!this.#source) super.dispose();
    this.#gradient.free();
  }
}

/** A parameter in the memory of a tensor, with a gradient of its own. */
export const parameterOver = (tensor: Tensor) => new Parameter(storageOf(tensor) as never, tensor as never);
