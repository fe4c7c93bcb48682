/**
 * Layer normalization on all cores: a runtime whose kernels are several threads over one shared memory.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import { instantiateSync } from "@assemblyscript/loader";
import * as binaries from "./binaries.shared.js";
import { checkOptions, describe } from "./check.js";
import { compile, inlined } from "./compile.js";
import { type Allocator, type Kernels, type LinearMemory, Runtime } from "./index.js";
import { BACKWARD, Control, FORWARD, type SharedKernels } from "./job.js";
import { CLOSED_MESSAGE, type Job, Pool } from "./pool.js";
import { cores, obstacle } from "./spawn.js";

export interface ThreadsOptions {
  /** How many threads compute, the calling one among them, 256 at most; by default as many as the machine runs at a time. */
  threads?: number | undefined;
  /** "single": where threads are impossible, an ordinary runtime instead of an error. Its `threads` is 1. */
  fallback?: "single" | undefined;
}

/** `Symbol.asyncDispose`, or where the engine has none yet, the one that compiled `await using` looks for. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
const WHERE = "createThreadedRuntime";
const MOST_THREADS = 256;
const PAGES = [65536, 16384, 4096]; // 4 GiB of addresses, or what the engine has
/**
 * From how many elements on a call is shared out, each element of backward as one and a half: where threads are awake, as they are for
 * 0.1 ms after a job, it is faster from here on, and where they must be woken from there.
 */
const WORTH = { awake: 49152, asleep: 700_000, backward: 1.5 };
/** Milliseconds between two calls that wake the threads for less, as there are more to be expected. */
const BURST_MS = 0.4;
/** Elements of a chunk where the kernels don't say: enough not to notice its ticket, few enough for all to end at a time. */
const CHUNK = { least: 4096, most: 32768, each: 8 };

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

  /** @internal */
  constructor(memory: LinearMemory, kernels: Kernels, allocator: Allocator, threads: number, pool?: Pool) {
    const now = (job: Job) => (pool as Pool).run(job);
    super(memory, pool ? sharedOut(kernels as SharedKernels, pool, now, false) : kernels, allocator);
    this.threads = threads;
    this.#pool = pool;
    if (!pool) return;
    const later = (job: Job) => {
      this.#last = pool.later(job);
    };
    this.#laterKernels = sharedOut(kernels as SharedKernels, pool, later, true);
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
  override settle(): void {
    if (this.busy) this.#pool?.settle();
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
   * Ends the threads, after the calls under way. From now on any use of the runtime is an error, but its tensors can still be read.
   * A second time is harmless. A runtime that is dropped without it keeps its threads and memory.
   */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#pool?.close();
  }

  /** `close`, for `await using`. */
  async [asyncDispose](): Promise<void> {
    await this.close();
  }

  #check(): void {
    if (this.#closed) throw new TypeError(CLOSED_MESSAGE);
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
    return new ThreadedRuntime(single.memory, single.kernels, single, 1);
  }
  const memory = sharedMemory();
  const env = { memory };
  const module = compile(WHERE, "module", inlined(binaries.kernels));
  const heap = compile(WHERE, "heap", inlined(binaries.heap));
  const kernels = instantiateSync(module, { env }).instance.exports as unknown as SharedKernels;
  const allocator = instantiateSync(heap, { env }).instance.exports as unknown as Allocator;
  if (threads === 1) return new ThreadedRuntime(memory, kernels, allocator, 1);
  const pointer = allocator.allocate(Control.bytes);
  const pool = await Pool.start(kernels, { module, memory, pointer }, threads - 1);
  return new ThreadedRuntime(memory, kernels, allocator, threads, pool);
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

/**
 * The kernels as one caller sees them: small calls done at once, larger ones by `dispatch`.
 * @param wake whether threads are woken for what would be faster without them, so as not to block
 */
function sharedOut(kernels: SharedKernels, pool: Pool, dispatch: (job: Job) => void, wake: boolean): Kernels {
  let last = -Infinity;
  const worth = (work: number): boolean => {
    if (work <= WORTH.awake) return false;
    if (work > WORTH.asleep || wake || pool.awake) return true;
    const now = performance.now();
    const burst = now - last < BURST_MS;
    last = now;
    return burst;
  };
  /** The rows of a chunk of rows that know nothing of each other. */
  const blockOf = (rows: number, cols: number) => {
    const share = (rows * cols) / (pool.threads * CHUNK.each);
    return Math.ceil(Math.min(Math.max(share, CHUNK.least), CHUNK.most) / cols);
  };
  /** After the jobs under way, whose results it may need. */
  const alone = (end: () => void) => dispatch({ numbers: [], chunks: 0, end });
  return {
    layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, eps) {
      if (rows > 1 && worth(rows * cols)) {
        const block = blockOf(rows, cols);
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
      // Without workspace, sums are those of one row after the other.
      const apart = rows > 1 && worth(WORTH.backward * rows * cols) && (!sums || workspace);
      const block = !apart ? rows : sums ? kernels.layerNormBackwardChunk(rows) : blockOf(rows, cols);
      // Another half of a chunk, or less, is not worth a thread.
      if (rows > 1.5 * block) {
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
