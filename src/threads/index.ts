/**
 * The norms on all cores: a runtime whose kernels are several threads over one shared memory.
 * @module layernorm-wasm/threads
 */

/// <reference lib="esnext.disposable" preserve="true" />

import * as binaries from "../binaries.shared.js";
import { checkOptions, classOf, wrongType } from "../check.js";
import { inlined, linkLater, refuse, supported } from "../compile.js";
import { type Allocator, type Kernels, type LinearMemory, Runtime } from "../index.js";
import { call, KERNELS, type KernelCall, sumsAnything } from "../kernels.js";
import { Control, type Job } from "./job.js";
import { CLOSED_MESSAGE, Pool } from "./pool.js";
import { cores, hasWorkers, type WorkerSource } from "./spawn.js";

export type { AnyWorker, WorkerSource } from "./spawn.js";

export interface ThreadsOptions {
  /** How many threads compute, the calling one among them; 256 at most. By default the number of logical processors. */
  threads?: number | undefined;
  /** "single": where threads can't be started, a runtime of one thread instead of an error. */
  fallback?: "single" | undefined;
  /**
   * Where `layernorm-wasm/worker.js` is, or a function that makes a worker of it, a `Worker` or one of Node's. By
   * default it is the file beside the code. Bundles in CommonJS or IIFE need it: they don't know where they are.
   */
  worker?: WorkerSource | undefined;
  /** A shared memory to compute in; by default a new one. If it is another module's, give its `allocate` and `free`. */
  memory?: LinearMemory | undefined;
  allocate?: Allocator["allocate"] | undefined;
  free?: Allocator["free"] | undefined;
}

/** `Symbol.asyncDispose`, or where the engine has none yet, the one that compiled `await using` looks for. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
const WHERE = "createThreadedRuntime";
const MOST_THREADS = 256;
const PAGES = [65536, 16384, 4096]; // 4 GiB of addresses, or what the engine has
/**
 * The elements from which on a call is divided among threads. Each of backward counts as one and a half. The first
 * limit holds while threads are awake, as they are for 0.1 ms after a job, the second where they must be woken.
 */
const WORTH = { awake: 49152, asleep: 700_000, backward: 1.5 };
/** Milliseconds between two calls that wake the threads for less, as more are to be expected. */
const BURST_MS = 0.4;
/** Elements of a chunk where the kernels don't say: enough not to notice its ticket, few enough to end together. */
const CHUNK = { least: 4096, most: 32768, each: 8 };
/** How many bytes of arrays are copied at a time: enough to be worth waking threads for. */
const BLOCK_BYTES = 1 << 22;

/**
 * A runtime that computes on several threads, in a memory that other workers can share.
 *
 * @example
 * ```js standalone
 * import { LayerNorm } from "layernorm-wasm";
 * import { createThreadedRuntime } from "layernorm-wasm/threads";
 *
 * const runtime = await createThreadedRuntime({ threads: 2 });
 * const ln = new LayerNorm(4, { runtime });
 * console.log(await ln.forwardAsync(Float32Array.of(1, 2, 3, 4))); // -1.34, -0.45, 0.45, 1.34
 * await runtime.close();
 * ```
 */
export class ThreadedRuntime extends Runtime {
  readonly #threads: number;
  readonly #pool: Pool | undefined;
  readonly #fallbackReason: string | undefined;
  /** The kernels over the memory, each of them on the thread that calls it. */
  readonly #own: Kernels;
  #closed = false;
  /** The buffers of the memory. It has another once it has grown, but the earlier ones still show it. */
  readonly #buffers = new WeakSet<ArrayBufferLike>();
  /** Blocks that were given back while calls were queued, which may still use them, each with the number of those. */
  readonly #late: { pointer: number; queued: number }[] = [];

  /** @internal */
  constructor(
    memory: LinearMemory,
    kernels: Kernels,
    allocator: Allocator,
    { pool, fallbackReason }: { pool?: Pool; fallbackReason?: string } = {},
  ) {
    super(memory, pool ? sharedOut(kernels, pool) : kernels, allocator);
    this.#threads = pool?.threads ?? 1;
    this.#pool = pool;
    this.#fallbackReason = fallbackReason;
    this.#own = kernels;
    this.#buffers.add(memory.buffer);
  }

  /** How many threads compute, the calling one among them. */
  get threads(): number {
    return this.#threads;
  }

  /** Why there are no threads, where `fallback` has given one thread instead; undefined otherwise. */
  get fallbackReason(): string | undefined {
    return this.#fallbackReason;
  }

  override get kernels(): Kernels {
    this.#check();
    return super.kernels;
  }

  /** @internal */
  override get buffer(): ArrayBufferLike {
    const buffer = super.buffer;
    this.#buffers.add(buffer);
    return buffer;
  }

  /** @internal */
  protected override holds(buffer: ArrayBufferLike): boolean {
    return super.holds(buffer) || this.#buffers.has(buffer);
  }

  override allocate(bytes: number): number {
    this.#check();
    this.#freeLate();
    return super.allocate(bytes);
  }

  override free(pointer: number): void {
    this.#freeLate();
    if (this.busy) this.#late.push({ pointer, queued: (this.#pool as Pool).queued });
    else super.free(pointer);
  }

  /** Gives the blocks back that no call uses any more. */
  #freeLate(): void {
    while (this.#late[0] && this.#late[0].queued <= (this.#pool as Pool).done) {
      super.free((this.#late.shift() as { pointer: number }).pointer);
    }
  }

  /** @internal */
  override get busy(): boolean {
    return this.#pool?.busy ?? false;
  }

  /** @internal */
  override get concurrent(): boolean {
    return this.#pool !== undefined;
  }

  /** @internal */
  override settle(): void {
    if (this.busy) this.#pool?.settle();
  }

  /** @internal */
  override blockBytes(sums: boolean): number {
    if (!this.#pool) return super.blockBytes(sums);
    return sums ? Infinity : BLOCK_BYTES;
  }

  /** @internal */
  override async start(kernelCall: KernelCall, then?: () => void): Promise<void> {
    this.#check();
    const pool = this.#pool;
    if (!pool) return super.start(kernelCall, then);
    const job = jobOf(this.#own, pool, kernelCall, true);
    if (!job && !pool.busy) {
      call(this.#own, kernelCall);
      then?.();
      return;
    }
    const done = pool.start(job ?? (() => call(this.#own, kernelCall)));
    await (then ? Promise.all([done, pool.start(then)]) : done);
  }

  /**
   * Ends the threads, after the calls under way. From then on any use of the runtime is an error, but its tensors can
   * still be read. A second call is harmless. A runtime that is dropped without `close` keeps its threads and memory.
   */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#pool?.close();
    this.flush();
    this.#freeLate();
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
 * @throws TypeError, RangeError for an option that doesn't fit. Error where there is no shared memory or a thread
 * doesn't start, unless `fallback` is given.
 */
export async function createThreadedRuntime(options: ThreadsOptions = {}): Promise<ThreadedRuntime> {
  checkOptions(WHERE, options, ["threads", "fallback", "worker", "memory", "allocate", "free"]);
  const { threads = Math.min(cores(), MOST_THREADS), fallback, worker, memory, allocate, free } = options;
  if (typeof threads !== "number") wrongType(`${WHERE}: threads`, threads, "a number");
  if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
    throw new RangeError(`${WHERE}: threads is ${threads}, expected an integer from 1 to ${MOST_THREADS}`);
  }
  if (fallback !== undefined && fallback !== "single") {
    wrongType(`${WHERE}: fallback`, fallback, '"single"');
  }
  if (worker !== undefined && !["string", "function"].includes(typeof worker) && classOf(worker) !== "URL") {
    wrongType(`${WHERE}: worker`, worker, "a URL or a function that makes a Worker");
  }
  Runtime.checkMemory(WHERE, { memory, allocate, free }, true);
  supported(WHERE);

  /** Takes an error for the reason of one thread, where that is wanted. */
  const reasonOf = (error: unknown): string => {
    const { message = String(error), cause } = (error ?? {}) as Partial<Error>;
    if (fallback) return message;
    const text = `${WHERE}: ${message}; { fallback: "single" } gives a runtime of one thread here`;
    throw error instanceof RangeError ? new RangeError(text, { cause }) : new Error(text, { cause });
  };

  let own = memory;
  let fallbackReason: string | undefined;
  try {
    // A given memory is shared, whatever the host says.
    if (threads > 1 || !own) checkHost(worker);
    own ??= sharedMemory();
  } catch (error) {
    fallbackReason = reasonOf(error);
  }
  if (own) {
    const bytes = inlined(binaries.kernels) as Uint8Array<ArrayBuffer>;
    const where = `${WHERE}: module`;
    const module = await WebAssembly.compile(bytes).catch((cause) => refuse(where, bytes, cause));
    const kernels = await linkLater<Kernels>(where, module, own);
    const allocator =
      allocate && free
        ? { allocate: allocate.bind(options), free: free.bind(options) }
        : await linkLater<Allocator>(`${WHERE}: heap`, inlined(binaries.heap), own);
    // Again: meanwhile it may have been taken.
    if (memory) Runtime.checkMemory(WHERE, { memory, allocate, free }, true);
    const single = new ThreadedRuntime(own, kernels, allocator, { fallbackReason });
    if (threads === 1 || fallbackReason !== undefined) return single;
    // Never given back: a thread that has been told to end may still look at it.
    const block = single.allocate(Control.bytes + 4);
    const start = { module, memory: own as WebAssembly.Memory, pointer: Math.ceil(block / 8) * 8 };
    try {
      const pool = await Pool.start(kernels, start, threads - 1, worker);
      return new ThreadedRuntime(own, kernels, allocator, { pool });
    } catch (error) {
      fallbackReason = reasonOf(error);
      if (memory) return new ThreadedRuntime(memory, kernels, allocator, { fallbackReason });
    }
  }
  const single = await Runtime.create({ async: true });
  return new ThreadedRuntime(single.memory, single.kernels, single, { fallbackReason });
}

/** That a host has threads, and memory to share with them. */
function checkHost(worker: WorkerSource | undefined): void {
  if (typeof worker !== "function" && !hasWorkers()) throw new Error("this host has no Worker");
  if (typeof SharedArrayBuffer === "function" && globalThis.crossOriginIsolated !== false) return;
  throw new Error(
    `memory can't be shared with threads here; a page must be cross-origin isolated, by two headers of its response, "Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"`,
  );
}

function sharedMemory(): LinearMemory {
  let cause: unknown;
  for (const maximum of PAGES) {
    try {
      return new WebAssembly.Memory({ initial: 1, maximum, shared: true });
    } catch (error) {
      cause = error;
    }
  }
  throw new RangeError(`out of memory, no room for a shared memory, ${(cause as Error).message}`, { cause });
}

let lastCall = -Infinity;

/** Whether sharing so much work out is faster than doing it at once. */
function worth(work: number, pool: Pool, wake: boolean): boolean {
  if (work <= WORTH.awake) return false;
  if (work > WORTH.asleep || wake || pool.awake) return true;
  const now = performance.now();
  const burst = now - lastCall < BURST_MS;
  lastCall = now;
  return burst;
}

/**
 * A call as a job for all threads; undefined where it is better done by one.
 * @param wake whether to wake threads for what would be faster without them, so as not to block
 */
function jobOf(kernels: Kernels, pool: Pool, kernelCall: KernelCall, wake: boolean): Job | undefined {
  const { kernel, args } = kernelCall;
  const rows = args[kernel.rows] as number;
  const work = rows * (args[kernel.cols] as number);
  if (rows <= 1 || !worth(kernel.workspace < 0 ? work : WORTH.backward * work, pool, wake)) return undefined;
  const sums = sumsAnything(kernelCall);
  // Without a workspace the sums of chunks have no place.
  if (sums && args[kernel.workspace] === 0) return undefined;
  const share = Math.min(Math.max(work / (pool.threads * CHUNK.each), CHUNK.least), CHUNK.most);
  const block = sums ? kernels.sumsChunk(rows) : Math.ceil((share * rows) / work);
  // Another half of a chunk, or less, is not worth a thread.
  if (rows <= 1.5 * block) return undefined;
  return { kernel, args, block, chunks: Math.ceil(rows / block), sums };
}

/** The kernels as a blocking caller sees them: small calls are done at once, larger ones with all threads. */
function sharedOut(kernels: Kernels, pool: Pool): Kernels {
  const workspace = (single: number, rows: number, cols: number) =>
    single >>> 0 && Math.max(single >>> 0, kernels.sumsWorkspace(rows, cols) >>> 0);
  const shared = KERNELS.map((kernel) => [
    kernel.name,
    (...args: number[]): void => {
      const kernelCall = { kernel, args };
      const job = jobOf(kernels, pool, kernelCall, false);
      if (job) pool.run(job);
      else {
        if (pool.busy) pool.settle(); // it may need their results
        call(kernels, kernelCall);
      }
    },
  ]);
  return {
    ...kernels,
    ...Object.fromEntries(shared),
    layerNormBackwardWorkspace: (rows, cols) => workspace(kernels.layerNormBackwardWorkspace(rows, cols), rows, cols),
    rmsNormBackwardWorkspace: (rows, cols) => workspace(kernels.rmsNormBackwardWorkspace(rows, cols), rows, cols),
  };
}
