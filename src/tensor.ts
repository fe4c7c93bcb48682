/**
 * A shape and a pointer, seen as a Float32Array.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import { checkNumbers, checkOptions, checkShape, describe, sizeOf } from "./check.js";
import { type LinearMemory, Runtime } from "./runtime.js";

export interface TensorOptions {
  /** Where the tensor lives; by default `Runtime.default`. */
  runtime?: Runtime | undefined;
  /**
   * The address of memory that is somebody else's, to be seen as a tensor: it is neither allocated nor cleared nor freed.
   * A multiple of 4.
   */
  pointer?: number | undefined;
}

/** What a tensor in shared memory is to another thread: it can be posted to a worker. */
export interface TensorHandle {
  readonly memory: LinearMemory;
  readonly pointer: number;
  readonly shape: readonly number[];
}

/** `Symbol.dispose`, or where the engine has none yet (WebKit), the one that compiled `using` looks for. */
export const dispose: typeof Symbol.dispose = Symbol.dispose ?? Symbol.for("Symbol.dispose");

/** Marks a tensor of a Scope, whose contents are about to be written: they are left as they were found. */
const UNINITIALIZED: readonly number[] = [];

/** Frees the block of a tensor that was dropped without `dispose`: the safety net, not the plan. */
function track(tensor: Tensor): void {
  dropped.register(tensor, { runtime: tensor.runtime, pointer: tensor.pointer }, tensor);
}

const dropped = new FinalizationRegistry<{ runtime: Runtime; pointer: number }>(({ runtime, pointer }) =>
  runtime.free(pointer),
);

/** An n-dimensional array of float32, row-major, in the linear memory of a runtime. */
export class Tensor {
  readonly shape: readonly number[];
  /** The number of elements. */
  readonly size: number;
  readonly #runtime: Runtime;
  /** 0 once disposed. */
  #pointer: number;
  readonly #owned: boolean;
  #view: Float32Array | undefined;

  /**
   * @param shape integers of 0 or more; `[]` is a single number
   * @param data as many numbers as the shape has elements, copied; zeros by default
   * @throws TypeError, RangeError for a shape, data or pointer that doesn't fit; RangeError when the memory is full
   */
  constructor(shape: readonly number[], data?: ArrayLike<number>, options: TensorOptions = {}) {
    this.shape = checkShape("Tensor: shape", shape, 0);
    this.size = sizeOf(this.shape);
    if (data !== undefined && data !== UNINITIALIZED) {
      checkNumbers("Tensor: data", data);
      if (data.length !== this.size) {
        throw new RangeError(
          `Tensor: data has ${data.length} elements, expected ${this.size} for the shape ${describe(shape)}`,
        );
      }
    }
    checkOptions("Tensor", options, ["runtime", "pointer"]);
    const { runtime = Runtime.default, pointer } = options;
    if (!(runtime instanceof Runtime)) {
      throw new TypeError(`Tensor: runtime is ${describe(runtime)}, expected a Runtime`);
    }
    this.#runtime = runtime;
    this.#owned = pointer === undefined;
    if (pointer !== undefined) {
      this.#pointer = checkPointer(pointer, this.size, runtime);
      if (data) this.data.set(data);
    } else {
      const source = data && live(data, runtime);
      this.#pointer = runtime.allocate(this.size * 4);
      if (data === UNINITIALIZED) return;
      if (source) this.data.set(source());
      else this.data.fill(0);
      track(this);
    }
  }

  /**
   * The tensor that a handle stands for, in this thread: the same elements, to be read and written. The one it was taken from
   * must not be disposed or dropped meanwhile.
   * @throws TypeError, RangeError for what is no handle
   */
  static from(handle: TensorHandle): Tensor {
    return tensorOf(handle);
  }

  get runtime(): Runtime {
    return this.#runtime;
  }

  /**
   * What to post to a worker, for `Tensor.from` to make the tensor of there.
   * @throws TypeError where the memory isn't shared: it is that of a runtime of several threads
   */
  get handle(): TensorHandle {
    const { memory } = this.#runtime;
    if (memory.buffer instanceof ArrayBuffer) {
      throw new TypeError(
        "Tensor: handle of a memory that isn't shared, as that of a runtime of createThreadedRuntime is",
      );
    }
    return { memory, pointer: this.pointer, shape: this.shape };
  }

  /** The address of the first element. */
  get pointer(): number {
    if (this.#pointer === 0) throw new TypeError("Tensor: used after it was disposed");
    return this.#pointer;
  }

  /**
   * The elements, live: writing to them writes to the tensor. The view is made anew after the memory has grown, so take it
   * from here each time rather than keeping it.
   */
  get data(): Float32Array {
    const { buffer } = this.#runtime.memory;
    const pointer = this.pointer;
    if (this.#view?.buffer === buffer) return this.#view;
    this.#view = new Float32Array(buffer, pointer, this.size);
    return this.#view;
  }

  get disposed(): boolean {
    return this.#pointer === 0;
  }

  /** Gives the memory back. A second time is harmless; any other use afterwards is an error. */
  dispose(): void {
    if (this.#pointer === 0) return;
    if (this.#owned) {
      dropped.unregister(this);
      this.#runtime.free(this.#pointer);
    }
    this.#pointer = 0;
  }

  [dispose](): void {
    this.dispose();
  }
}

// Not in the class: esbuild renames a class that names itself, and errors tell the name.
function tensorOf(handle: TensorHandle): Tensor {
  const { memory, pointer, shape } = (handle ?? {}) as Partial<TensorHandle>;
  if (!(memory instanceof WebAssembly.Memory)) {
    throw new TypeError(`Tensor.from: handle is ${describe(handle)}, expected what tensor.handle gives`);
  }
  return new Tensor(shape as readonly number[], undefined, { runtime: Runtime.of(memory), pointer });
}

/** A tensor that is learned: it has a gradient beside it. */
export class Parameter extends Tensor {
  /** Whether `backward` computes the gradient; false leaves `grad` as it is. */
  requiresGrad = true;
  readonly #gradient: Tensor;

  /** @param shape, data, options as for `Tensor` */
  constructor(shape: readonly number[], data?: ArrayLike<number>, options: TensorOptions = {}) {
    super(shape, data, options);
    try {
      this.#gradient = new Tensor(shape, undefined, { runtime: this.runtime });
    } catch (error) {
      super.dispose();
      throw error;
    }
  }

  /** The gradient, of the same shape, live like `data`. `backward` adds to it; `zeroGrad` clears it. */
  get grad(): Float32Array {
    return this.#gradient.data;
  }

  /** `grad` as a tensor. @internal */
  get gradient(): Tensor {
    return this.#gradient;
  }

  override dispose(): void {
    super.dispose();
    this.#gradient.dispose();
  }
}

/** The tensors made for one call: all but those it keeps are given back when it ends, however it ends. */
export class Scope {
  readonly #runtime: Runtime;
  /** undefined until there is one: a call that makes none leaves no garbage. */
  #made: Tensor[] | undefined;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** A tensor whose elements are yet to be written. */
  make(shape: readonly number[]): Tensor {
    const tensor = new Tensor(shape, UNINITIALIZED, { runtime: this.#runtime });
    this.#made ??= [];
    this.#made.push(tensor);
    return tensor;
  }

  /** Lets those of the tensors that were made here outlive the call. */
  keep(...tensors: Tensor[]): void {
    this.#made = this.#made?.filter((tensor) => {
      if (!tensors.includes(tensor)) return true;
      track(tensor);
      return false;
    });
  }

  end(): void {
    for (const tensor of this.#made ?? []) tensor.dispose();
  }
}

/** A way to reach `array` that stays right when the memory of `runtime`, in which it may lie, grows. */
export function live<T extends ArrayLike<number>>(array: T, runtime: Runtime): () => T {
  const { memory } = runtime;
  if (!ArrayBuffer.isView(array) || array.buffer !== memory.buffer) return () => array;
  const { byteOffset, length } = array;
  const View = array.constructor as new (buffer: ArrayBufferLike, byteOffset: number, length: number) => T;
  return () => (array.buffer === memory.buffer ? array : new View(memory.buffer, byteOffset, length));
}

function checkPointer(pointer: unknown, size: number, runtime: Runtime): number {
  if (typeof pointer !== "number") throw new TypeError(`Tensor: pointer is ${describe(pointer)}, expected a number`);
  const end = runtime.memory.buffer.byteLength;
  if (!Number.isInteger(pointer) || pointer <= 0 || pointer % 4 !== 0 || pointer + size * 4 > end) {
    throw new RangeError(
      `Tensor: pointer is ${pointer}, expected a multiple of 4 with room for ${size * 4} bytes in a memory of ${end}`,
    );
  }
  return pointer;
}
