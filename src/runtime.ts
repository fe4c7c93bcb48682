/**
 * One linear memory, the kernels linked to it, and its heap.
 * @module
 */

import { instantiateSync } from "@assemblyscript/loader";
import * as binaries from "./binaries.js";
import { checkOptions, describe } from "./check.js";
import {
  arrived,
  checkSource,
  compile,
  inlined,
  isLater,
  type LaterModuleSource,
  type ModuleSource,
} from "./compile.js";

/**
 * The kernels' ABI: outputs, then inputs, then sizes. Pointers are byte addresses in the memory, multiples of 4; 0 stands for
 * an operand that is absent. `y` may be `x` and `dx` may be `dy`; nothing else may overlap.
 */
export interface Kernels {
  /**
   * y, mean, rstd = normalized x. `y` and `x` are [rows, cols]; `mean` and `rstd` [rows] or 0; `weight` and `bias` [cols] or 0.
   */
  layerNormForward(
    y: number,
    mean: number,
    rstd: number,
    x: number,
    weight: number,
    bias: number,
    rows: number,
    cols: number,
    eps: number,
  ): void;
  /**
   * dx = the gradient of x; `dweight` and `dbias` [cols] are added to. Each of the three may be 0. `mean` and `rstd` are what
   * the forward pass gave. `workspace`: as many bytes as `layerNormBackwardWorkspace` says, in which the sums over
   * many rows are kept in double; without it, or with 0, they are summed row by row in float32.
   */
  layerNormBackward(
    dx: number,
    dweight: number,
    dbias: number,
    dy: number,
    x: number,
    mean: number,
    rstd: number,
    weight: number,
    rows: number,
    cols: number,
    workspace?: number,
  ): void;
  /** The bytes of workspace for `layerNormBackward`; 0 for few rows, which need none. */
  layerNormBackwardWorkspace(rows: number, cols: number): number;
}

/** What of a `WebAssembly.Memory` is used here; in words of its own, so that its types need no library of the browser's. */
export interface LinearMemory {
  readonly buffer: ArrayBufferLike;
  grow(pages: number): number;
}

/**
 * An allocator of a memory: `allocate` returns the address of a block, a multiple of 4 inside the memory, which it grows
 * where it has to, or 0 when there is no room.
 */
export interface Allocator {
  allocate(bytes: number): number;
  free(pointer: number): void;
}

export interface RuntimeOptions {
  allocate?: Allocator["allocate"] | undefined;
  free?: Allocator["free"] | undefined;
  /**
   * The memory to compute in; by default a new one. Given alone, the runtime manages the whole of it, and it must be unused
   * (all zeros); a memory that belongs to another module comes with that module's `allocate` and `free`.
   */
  memory?: LinearMemory | undefined;
  /**
   * The kernels' module, the package's `layernorm.wasm`, where the one inlined in the package may not be compiled or is to be
   * fetched: a `WebAssembly.Module` or its bytes; a `Response` or a promise makes `create` return a promise.
   */
  module?: ModuleSource | LaterModuleSource | undefined;
  /** The same for the heap's module, `heap.wasm`; not needed with `allocate` and `free`. */
  heap?: ModuleSource | LaterModuleSource | undefined;
}

const PAGE = 65536;
const PAGES_MAX = 65536;

/** The memories that an allocator manages. Another heap would hand out the same bytes. */
const taken = new WeakSet<LinearMemory>();

/** The runtimes by their memories. */
const owners = new WeakMap<LinearMemory, Runtime>();

function elsewhere(): never {
  throw new TypeError(
    "Runtime: that of another thread; here its tensors can be read and written, by their data, and nothing else be made or computed",
  );
}

/** A memory that is free to be used, or one with its allocator. */
function checkMemory({ memory, allocate, free }: RuntimeOptions): void {
  if ((allocate === undefined) !== (free === undefined)) {
    throw new TypeError("Runtime.create: allocate and free must be given together");
  }
  if (memory === undefined) {
    if (allocate) throw new TypeError("Runtime.create: allocate and free need the memory they manage");
  } else if (!(memory instanceof WebAssembly.Memory)) {
    throw new TypeError(`Runtime.create: memory is ${describe(memory)}, expected a WebAssembly.Memory`);
  } else if (!(memory.buffer instanceof ArrayBuffer)) {
    throw new TypeError("Runtime.create: memory is shared, expected an unshared WebAssembly.Memory");
  } else if (!allocate) {
    if (taken.has(memory)) throw new TypeError("Runtime.create: memory is managed by another Runtime");
    if (new BigUint64Array(memory.buffer).some((word) => word !== 0n)) {
      throw new TypeError(
        "Runtime.create: memory is in use (not all zeros); give the allocate and free of the module it belongs to",
      );
    }
  }
}

/** The kernels instantiated over one memory, and the heap that hands out its blocks. */
export class Runtime {
  static #default: Runtime | undefined;

  readonly memory: LinearMemory;
  readonly #kernels: Kernels;
  readonly #allocator: Allocator;

  /** Use `Runtime.create`. */
  protected constructor(memory: LinearMemory, kernels: Kernels, allocator: Allocator) {
    this.memory = memory;
    this.#kernels = kernels;
    this.#allocator = allocator;
    owners.set(memory, this);
  }

  get kernels(): Kernels {
    return this.#kernels;
  }

  /** Whether calls are under way that don't block, of several threads. @internal */
  get busy(): boolean {
    return false;
  }

  /** Waits, by helping, for the calls under way. @internal */
  settle(): void {}

  /** What `compute` returns, once the kernels it called are done; with several threads, without blocking. @internal */
  async later<T>(compute: (kernels: Kernels) => T): Promise<T> {
    return compute(this.#kernels);
  }

  /** The runtime of a memory; of one that another thread shares, a runtime whose tensors can be read and written, no more. @internal */
  static of(memory: LinearMemory): Runtime {
    return owners.get(memory) ?? new Runtime(memory, {} as Kernels, { allocate: elsewhere, free: elsewhere });
  }

  /** The runtime of everything that is not given another, made at its first use. */
  static get default(): Runtime {
    Runtime.#default ??= Runtime.create();
    return Runtime.#default;
  }

  /** Sets another runtime as the default, for what is made from now on. */
  static set default(runtime: Runtime) {
    if (!(runtime instanceof Runtime)) {
      throw new TypeError(`Runtime.default is ${describe(runtime)}, expected a Runtime`);
    }
    Runtime.#default = runtime;
  }

  /**
   * A runtime over a memory of its own, or over `memory`; a promise of one where `module` or `heap` is yet to come.
   * @throws TypeError for a memory or module of the wrong kind, a memory in use, or when only one of `allocate` and `free` is
   * given. Error when the engine can't, or must not, compile the modules: its message says what to do.
   */
  static create(
    options: RuntimeOptions & ({ module: LaterModuleSource } | { heap: LaterModuleSource }),
  ): Promise<Runtime>;
  static create(options?: RuntimeOptions): Runtime;
  static create(options: RuntimeOptions = {}): Runtime | Promise<Runtime> {
    const { module, heap } = options ?? {};
    const arrivals =
      isLater(module) || isLater(heap)
        ? Promise.all([arrived("Runtime.create", "module", module), arrived("Runtime.create", "heap", heap)])
        : undefined;
    // What is wrong with the options is said at once; a promise among them that fails later is then nobody's.
    arrivals?.catch(() => {});
    checkOptions("Runtime.create", options, ["memory", "allocate", "free", "module", "heap"]);
    if (module !== undefined) checkSource("Runtime.create", "module", module);
    if (heap !== undefined) checkSource("Runtime.create", "heap", heap);
    checkMemory(options);
    if (!arrivals) return Runtime.#link(options, module, heap);
    return arrivals.then(([module, heap]) => {
      checkMemory(options); // again: meanwhile it may have been taken
      return Runtime.#link(options, module, heap);
    });
  }

  static #link(options: RuntimeOptions, module: unknown, heap: unknown): Runtime {
    const { memory, allocate } = options;
    const modules = [compile("Runtime.create", "module", module ?? inlined(binaries.kernels))];
    if (!allocate) modules.push(compile("Runtime.create", "heap", heap ?? inlined(binaries.heap)));
    const env = {
      memory: (memory ?? new WebAssembly.Memory({ initial: 1, maximum: PAGES_MAX })) as WebAssembly.Memory,
    };
    const [kernels, allocator = options] = modules.map((module) => instantiateSync(module, { env }).instance.exports);
    if (!kernels?.layerNormForward) throw new TypeError("Runtime.create: module is another than layernorm.wasm");
    if (!allocator.allocate) throw new TypeError("Runtime.create: heap is another than heap.wasm");
    taken.add(env.memory);
    return new Runtime(env.memory as LinearMemory, kernels as unknown as Kernels, allocator as Allocator);
  }

  /**
   * The address of a new block of `bytes` bytes, a multiple of 4. May grow the memory, which detaches all views of it but
   * those of `Tensor.data` and `Parameter.grad`, which are made anew.
   * @throws RangeError when the memory has no room for it, or when it is over 1 GiB, which is as far as the heap goes; nothing
   * is changed then. TypeError when the allocator given to `create` returns what is no address.
   */
  allocate(bytes: number): number {
    if (!Number.isInteger(bytes) || bytes < 0) {
      throw new RangeError(`Runtime.allocate: bytes is ${describe(bytes)}, expected an integer of 0 or more`);
    }
    let pointer = 0;
    if (bytes < PAGES_MAX * PAGE) {
      try {
        pointer = this.#allocator.allocate(bytes);
      } catch (error) {
        // The heap traps before it changes anything.
        if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      }
    }
    if (pointer === 0) {
      throw new RangeError(
        `Runtime.allocate: out of memory, no room for ${bytes} bytes; dispose() of what is no longer needed`,
      );
    }
    // A WebAssembly export returns an address above 2 GiB as a negative number.
    const address = pointer >>> 0;
    if (typeof pointer !== "number" || address % 4 !== 0 || address + bytes > this.memory.buffer.byteLength) {
      throw new TypeError(
        `Runtime.allocate: allocate(${bytes}) returned ${describe(pointer)}, expected a multiple of 4 with room for them in a memory of ${this.memory.buffer.byteLength} bytes`,
      );
    }
    return address;
  }

  /** Gives back a block that `allocate` returned. Each block once: the heap doesn't check. */
  free(pointer: number): void {
    this.#allocator.free(pointer);
  }
}
