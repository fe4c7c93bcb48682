/**
 * Layer normalization on all cores: a runtime whose kernels are several threads over one shared memory.
 * @module
 */

import { instantiateSync } from "@assemblyscript/loader";
import * as binaries from "./binaries.shared.js";
import { checkOptions, describe } from "./check.js";
import { compile, inlined } from "./compile.js";
import { type Allocator, type Kernels, type LinearMemory, Runtime } from "./index.js";
import { BACKWARD, Control, FORWARD, type SharedKernels } from "./job.js";
import { type Job, Pool } from "./pool.js";
import { cores, obstacle } from "./spawn.js";

export interface ThreadsOptions {
  /** How many threads compute, the calling one among them; by default as many as the machine runs at a time. */
  threads?: number | undefined;
  /** "single": where threads are impossible, an ordinary runtime instead of an error. Its `threads` is 1. */
  fallback?: "single" | undefined;
}

const WHERE = "createThreadedRuntime";
const MOST_THREADS = 256;
const PAGES = [65536, 32768, 16384]; // 4 GiB of addresses, or what the engine has
/** Elements up to which a call stays on the calling thread: to share them out takes longer than it saves. */
const SMALL = 32768;
/** Elements of a chunk, about, where the kernels don't say: 128 KiB, a stream that the hardware still follows. */
const CHUNK = 32768;

/** A runtime that computes on several threads, in a memory that other workers can share. */
export class ThreadedRuntime extends Runtime {
  /** How many threads compute, the calling one among them. */
  readonly threads: number;
  readonly #pool: Pool | undefined;
  /** The kernels as `later` calls them. */
  readonly #laterKernels: Kernels | undefined;
  /** The job that they were last called for. */
  #last: Promise<void> | undefined;
  #closed = false;
  /** Blocks given back while jobs are under way, which may still write to them. */
  readonly #kept: number[] = [];

  private constructor(memory: LinearMemory, kernels: Kernels, allocator: Allocator, threads: number, pool?: Pool) {
    super(memory, pool ? sharedOut(kernels as SharedKernels, pool, (job) => pool.run(job)) : kernels, allocator);
    this.threads = threads;
    this.#pool = pool;
    if (!pool) return;
    this.#laterKernels = sharedOut(kernels as SharedKernels, pool, (job) => {
      this.#last = pool.later(job);
    });
  }

  /** @internal */
  static over(
    memory: LinearMemory,
    kernels: Kernels,
    allocator: Allocator,
    threads: number,
    pool?: Pool,
  ): ThreadedRuntime {
    return new ThreadedRuntime(memory, kernels, allocator, threads, pool);
  }

  override get kernels(): Kernels {
    this.#check();
    return super.kernels;
  }

  override allocate(bytes: number): number {
    this.#check();
    if (!this.busy) for (const pointer of this.#kept.splice(0)) super.free(pointer);
    return super.allocate(bytes);
  }

  override free(pointer: number): void {
    if (this.busy) this.#kept.push(pointer);
    else super.free(pointer);
  }

  /** @internal */
  override get busy(): boolean {
    return this.#pool?.busy ?? false;
  }

  /** @internal */
  override async later<T>(compute: (kernels: Kernels) => T): Promise<T> {
    if (!this.#laterKernels) return super.later(compute);
    this.#check();
    this.#last = undefined;
    const result = compute(this.#laterKernels);
    await this.#last;
    return result;
  }

  /**
   * Ends the threads, after what they are at. Any later use of the runtime is an error, but its tensors can still be read.
   * A second time is harmless.
   */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#pool?.close();
  }

  #check(): void {
    if (this.#closed) throw new TypeError("ThreadedRuntime: used after it was closed");
    this.#pool?.check();
  }
}

/**
 * A runtime that computes on several threads.
 * @throws TypeError, RangeError for an option that doesn't fit. Error where there is no shared memory or a thread doesn't start.
 */
export async function createThreadedRuntime(options: ThreadsOptions = {}): Promise<ThreadedRuntime> {
  checkOptions(WHERE, options, ["threads", "fallback"]);
  const { threads = Math.min(cores(), MOST_THREADS), fallback } = options;
  if (typeof threads !== "number") throw new TypeError(`${WHERE}: threads is ${describe(threads)}, expected a number`);
  if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
    throw new RangeError(`${WHERE}: threads is ${threads}, expected an integer from 1 to ${MOST_THREADS}`);
  }
  if (fallback !== undefined && fallback !== "single") {
    throw new TypeError(`${WHERE}: fallback is ${describe(fallback)}, expected "single"`);
  }
  const why = obstacle() ?? unshared();
  if (why) {
    if (!fallback) throw new Error(`${WHERE}: ${why}; { fallback: "single" } gives a runtime of one thread here`);
    const single = Runtime.create();
    return ThreadedRuntime.over(single.memory, single.kernels, single, 1);
  }
  const memory = sharedMemory();
  const env = { memory };
  const module = compile(WHERE, "module", inlined(binaries.kernels));
  const heap = compile(WHERE, "heap", inlined(binaries.heap));
  const kernels = instantiateSync(module, { env }).instance.exports as unknown as SharedKernels;
  const allocator = instantiateSync(heap, { env }).instance.exports as unknown as Allocator;
  if (threads === 1) return ThreadedRuntime.over(memory, kernels, allocator, 1);
  const pointer = allocator.allocate(Control.bytes);
  const pool = await Pool.start(kernels, { module, memory, pointer }, threads - 1);
  return ThreadedRuntime.over(memory, kernels, allocator, threads, pool);
}

/** Why no memory can be shared with a thread here, if that is so. */
function unshared(): string | undefined {
  if (typeof SharedArrayBuffer === "function" && globalThis.crossOriginIsolated !== false) return undefined;
  return `memory can't be shared with threads here; a page must be cross-origin isolated, by two headers of its response, "Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"`;
}

function sharedMemory(): WebAssembly.Memory {
  let cause: unknown;
  for (const maximum of PAGES) {
    try {
      return new WebAssembly.Memory({ initial: 1, maximum, shared: true });
    } catch (error) {
      cause = error;
    }
  }
  throw new RangeError(`${WHERE}: out of memory, no room for a shared memory`, { cause });
}

/** The kernels as one caller sees them: small calls done at once, larger ones by `dispatch`. */
function sharedOut(kernels: SharedKernels, pool: Pool, dispatch: (job: Job) => void): Kernels {
  /** After the jobs under way, whose results it may need. */
  const alone = (end: () => void) => dispatch({ numbers: [], chunks: 0, end });
  return {
    layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps) {
      if (rows * cols > SMALL && rows > 1) {
        const block = Math.ceil(CHUNK / cols);
        const numbers = [FORWARD, block, y, mean, rstd, x, weight, bias, rows, cols, eps];
        dispatch({ numbers, chunks: Math.ceil(rows / block) });
      } else if (pool.busy) {
        alone(() => kernels.layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps));
      } else {
        kernels.layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps);
      }
    },

    layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace = 0) {
      const sums = dweight || dbias;
      // Without workspace, as where a few rows need none, sums are those of one row after the other.
      if (rows * cols > SMALL && rows > 1 && !(sums && !workspace)) {
        const block = sums ? kernels.layerNormBackwardChunk(rows) : Math.ceil(CHUNK / cols);
        const numbers = [BACKWARD, block, dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace];
        const chunks = Math.ceil(rows / block);
        if (sums) {
          const end = () => kernels.layerNormBackwardEnd(dweight, dbias, rows, cols, workspace);
          dispatch({ numbers, chunks, end });
        } else dispatch({ numbers, chunks });
      } else if (pool.busy) {
        alone(() => kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace));
      } else {
        kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace);
      }
    },

    layerNormBackwardWorkspace(rows, cols) {
      const single = kernels.layerNormBackwardWorkspace(rows, cols) >>> 0;
      return single && Math.max(single, kernels.layerNormBackwardSlots(rows, cols) >>> 0);
    },
  };
}
