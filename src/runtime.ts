/**
 * One linear memory, the kernels linked to it, and its heap.
 * @module
 */

import * as binaries from "./binaries.js";
import * as check from "./check.js";
import type { LaterModuleSource, ModuleSource } from "./compile.js";
import * as compile from "./compile.js";
import { call, type KernelCall, type Kernels } from "./kernels.js";
import type { Allocator, LinearMemory, MemoryOptions } from "./memory.js";

export interface RuntimeOptions<Async extends boolean = false> extends MemoryOptions {
  /**
   * The module of the kernels, which is `layernorm.wasm` of the package; by default the one that is inlined. It may
   * be a `WebAssembly.Module` or its bytes. With a promise of one, `create` returns a promise.
   */
  module?: ModuleSource | LaterModuleSource | undefined;
  /** The same for the heap's module, `heap.wasm`; not needed with `allocate` and `free`. */
  heap?: ModuleSource | LaterModuleSource | undefined;
  /**
   * With true, `create` compiles without blocking and returns a promise. Chrome before 115 needs it on the main thread
   * of a page: `Runtime.default = await Runtime.create({ async: true })`, before the first call.
   */
  async?: Async | undefined;
}

const WHERE = "Runtime.create";
const MODULE = `${WHERE}: module`;
const HEAP = `${WHERE}: heap`;

/** The runtimes by their memories. */
const owners = new WeakMap<LinearMemory, Runtime>();

function elsewhere(): never {
  throw new TypeError("Runtime of another thread: only the data of its tensors can be read and written");
}

/** A block of the memory that is lent to a call. */
export type Block = { pointer: number; bytes: number };
/** The largest block that is kept between calls. */
const KEPT = 1 << 20;

/**
 * The kernels instantiated over one memory, and the heap that hands out its blocks.
 *
 * @example
 * ```js standalone
 * import { LayerNorm, Runtime } from "layernorm-wasm";
 *
 * const memory = new WebAssembly.Memory({ initial: 16, maximum: 1024 }); // at most 64 MiB
 *
 * const runtime = Runtime.create({ memory });
 * const ln = new LayerNorm(4, { runtime });
 * console.log(ln.weight.data.buffer === memory.buffer); // true
 * ```
 */
export class Runtime extends check.Shown {
  static #default: Runtime | undefined;

  readonly #memory: LinearMemory;
  readonly #kernels: Kernels;
  readonly #allocator: Allocator;
  /** A block that calls borrow, while no call has it. */
  #kept: Block | null = null;
  /** The view that was last made: most calls copy arrays of one size to one place. */
  #view: Float32Array = new Float32Array(0);

  /** Use `Runtime.create`. */
  protected constructor(memory: LinearMemory, kernels: Kernels, allocator: Allocator) {
    super();
    this.#memory = memory;
    this.#kernels = kernels;
    this.#allocator = allocator;
    owners.set(memory, this);
  }

  /** The memory that holds all tensors of this runtime. */
  get memory(): LinearMemory {
    return this.#memory;
  }

  /** The kernels over this memory. */
  get kernels(): Kernels {
    return this.#kernels;
  }

  /**
   * Starts a call of a kernel, which a runtime of several threads leaves to them. Calls are computed in the order in
   * which they were started.
   * @param then what is done before any later call, which may write to the results @internal
   */
  async start(kernelCall: KernelCall, then?: () => void): Promise<void> {
    call(this.kernels, kernelCall);
    then?.();
  }

  /** Waits, by helping, for the calls that were started. @internal */
  settle(): void {}

  /** Whether calls that were started are not done yet. @internal */
  get busy(): boolean {
    return false;
  }

  /** Whether `start` returns before the call is done. @internal */
  get concurrent(): boolean {
    return false;
  }

  /**
   * How many bytes of arrays a blocking call copies to the memory at a time, so that they stay in the second-level
   * cache.
   * @param sums whether it sums over its rows @internal
   */
  blockBytes(_sums: boolean): number {
    return 1 << 18;
  }

  /** As in "Runtime(65536 bytes)". */
  override toString(): string {
    return `Runtime(${this.buffer.byteLength} bytes)`;
  }

  /**
   * Checks that a memory and its allocator fit together.
   * @param shared whether the memory has to be a shared one @internal
   */
  static checkMemory(where: string, { memory, allocate, free }: MemoryOptions, shared: boolean): void {
    for (const [name, value] of Object.entries({ allocate, free })) {
      if (value !== undefined && typeof value !== "function") check.wrongType(`${where}: ${name}`, value, "a function");
    }
    if (!allocate !== !free || (allocate && memory === undefined))
      throw new TypeError(`${where}: allocate and free must be given together, with their memory`);
    if (memory === undefined) return;
    if (check.classOf(memory) !== "WebAssembly.Memory")
      check.wrongType(`${where}: memory`, memory, "a WebAssembly.Memory");
    const other = shared ? "not shared; use Runtime.create" : "shared; use createThreadedRuntime";
    if (check.isShared(memory.buffer) !== shared) throw new TypeError(`${where}: memory is ${other}`);
    if (allocate) return;
    // Another heap would hand out the same bytes.
    if (owners.has(memory)) throw new TypeError(`${where}: memory belongs to another runtime`);
    if (new Int32Array(memory.buffer).some((word) => word !== 0))
      throw new TypeError(`${where}: memory is in use (not all zeros); give its allocate and free`);
  }

  /**
   * The runtime of a memory. Of one that another thread shares it is a runtime whose tensors can be read and written,
   * no more. @internal
   */
  static of(memory: LinearMemory): Runtime {
    return owners.get(memory) ?? new Runtime(memory, {} as Kernels, { allocate: elsewhere, free: elsewhere });
  }

  /** The runtime of all that isn't given another. It is made at its first use. */
  static get default(): Runtime {
    Runtime.#default ??= Runtime.create();
    return Runtime.#default;
  }

  /** Sets another runtime as the default, for what is made from now on. */
  static set default(runtime: Runtime) {
    Runtime.#default = checkRuntime("Runtime.default", runtime ?? null);
  }

  /**
   * A runtime over a memory of its own, or over `memory`; a promise of one with `async`, or where `module` or `heap`
   * is yet to come.
   * @throws TypeError for a memory or module of the wrong kind, a memory in use, or when only one of `allocate` and
   * `free` is given. Error when the engine can't or may not compile the modules; its message says what to do. With
   * `async` all of these reject the promise.
   */
  static create(
    options: RuntimeOptions<boolean> & ({ async: true } | { module: LaterModuleSource } | { heap: LaterModuleSource }),
  ): Promise<Runtime>;
  static create(options?: RuntimeOptions): Runtime;
  static create(options: RuntimeOptions<boolean>): Runtime | Promise<Runtime>;
  static create(options: RuntimeOptions<boolean> = {}): Runtime | Promise<Runtime> {
    return options?.async ? Promise.resolve().then(() => Runtime.#create(options)) : Runtime.#create(options);
  }

  static #create(options: RuntimeOptions<boolean>): Runtime | Promise<Runtime> {
    const { module, heap, memory, allocate, free, async = false } = options ?? {};
    const later = async || compile.isLater(module) || compile.isLater(heap);
    // What is wrong with the options is said first. A promise among them that fails later is then nobody's.
    Promise.all([module, heap]).catch(() => {});
    check.checkOptions(WHERE, options, ["memory", "allocate", "free", "module", "heap", "async"]);
    check.checkBoolean(`${WHERE}: async`, async);
    const kernels = compile.checkSource(MODULE, module ?? compile.inlined(binaries.kernels));
    const manager = compile.checkSource(HEAP, heap ?? compile.inlined(binaries.heap));
    Runtime.checkMemory(WHERE, { memory, allocate, free }, false);
    const own = memory ?? new (compile.supported(WHERE).Memory)({ initial: 1, maximum: 65536 });
    const given = allocate && free && { allocate: allocate.bind(options), free: free.bind(options) };
    const over = ([kernels, allocator]: readonly [Kernels, Allocator]) => {
      if (later) Runtime.checkMemory(WHERE, { memory, allocate, free }, false); // it may have been taken
      if (!kernels.layerNormForward) throw new TypeError(`${MODULE} is not layernorm.wasm`);
      if (!allocator.allocate) throw new TypeError(`${HEAP} is not heap.wasm`);
      return new Runtime(own, kernels, allocator);
    };
    const link = later ? compile.linkLater : compile.link;
    const parts = [link<Kernels>(MODULE, kernels, own), given ?? link<Allocator>(HEAP, manager, own)] as const;
    return later ? Promise.all(parts).then(over) : over(parts as readonly [Kernels, Allocator]);
  }

  /**
   * The address of a new block of `bytes` bytes, a multiple of 4. If the memory grows, all views of it are detached.
   * `Tensor.data` and `Parameter.grad` then give new ones.
   * @throws RangeError when the memory has no room for it, or when it is over 1 GiB, the limit of the heap; nothing is
   * changed then. TypeError when the allocator given to `create` returns what is no address.
   */
  allocate(bytes: number): number {
    if (!Number.isInteger(bytes) || bytes < 0)
      check.wrongValue("Runtime.allocate: bytes", bytes, "an integer of 0 or more");
    // At least a word: an allocator may have no block of 0 bytes.
    const size = Math.max(bytes, 4);
    let pointer = this.#tryAllocate(size);
    if (pointer === 0 && this.flush()) pointer = this.#tryAllocate(size);
    if (pointer === 0) {
      const cure = bytes < 2 ** 30 ? "dispose() of what is no longer needed" : "a block is smaller than 1 GiB";
      throw new RangeError(`Runtime.allocate: out of memory, no room for ${bytes} bytes; ${cure}`);
    }
    // A WebAssembly export returns an address above 2 GiB as a negative number.
    const address = pointer === (Number(pointer) | 0) ? pointer >>> 0 : pointer;
    const where = `Runtime.allocate: what allocate(${size}) returned`;
    return check.checkAddress(where, address, bytes, this.buffer.byteLength, check.wrongType);
  }

  /** A block, or 0 where there is no room: the heap then traps, before it changes anything. */
  #tryAllocate(size: number): number {
    if (size >= 2 ** 32) return 0;
    try {
      return this.#allocator.allocate(size);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) return 0;
      throw error;
    }
  }

  /** Gives back a block that `allocate` returned. Each block once: the heap doesn't check. */
  free(pointer: number): void {
    this.#allocator.free(pointer);
  }

  /** Lends a block for a call: the one that is kept, if it is large enough, or a new one. @internal */
  borrow(bytes: number): Block {
    const kept = this.#kept;
    if (kept !== null && kept.bytes >= bytes) {
      this.#kept = null;
      return kept;
    }
    if (bytes <= KEPT) this.flush();
    return { pointer: this.allocate(bytes), bytes };
  }

  /** Takes back what `borrow` lent. @internal */
  giveBack(block: Block): void {
    if (this.#kept === null && block.bytes <= KEPT) this.#kept = block;
    else this.free(block.pointer);
  }

  /** Frees the block that is kept for calls; false where there is none. @internal */
  flush(): boolean {
    const kept = this.#kept;
    this.#kept = null;
    if (kept !== null) this.free(kept.pointer);
    return kept !== null;
  }

  /** The address of a Float32Array that lies in the memory; 0 for any other, as no block has it. @internal */
  addressOf(array: Float32Array): number {
    // What most arrays are comes first: to ask the memory for its buffer takes longer than to compute a short row.
    if (array.byteOffset === 0 || check.tagOf(array) !== "Float32Array") return 0;
    return this.holds(check.bufferOf(array)) ? check.readTruly(array, "byteOffset") : 0;
  }

  /** Whether a buffer is the memory's. @internal */
  protected holds(buffer: ArrayBufferLike): boolean {
    return buffer === this.buffer;
  }

  /** The buffer of the memory as it is now. @internal */
  get buffer(): ArrayBufferLike {
    return this.#memory.buffer;
  }

  /** Some floats of the memory, valid until it grows. @internal */
  view(pointer: number, length: number): Float32Array {
    // A detached view is empty, and at 0.
    if (this.#view.byteOffset !== pointer || this.#view.length !== length) {
      this.#view = new Float32Array(this.buffer, pointer, length);
    }
    return this.#view;
  }
}

/** That a runtime is one, if it is given. */
export function checkRuntime<R extends Runtime | undefined>(where: string, runtime: R): R {
  if (runtime === undefined || (runtime as unknown) instanceof Runtime) return runtime;
  check.wrongType(where, runtime, "a Runtime");
}
