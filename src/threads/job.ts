/**
 * A job that threads share: its words in shared memory, and how a thread takes its part of it.
 *
 * A job is a call of a kernel whose rows are computed in chunks. The thread that calls sets the words, `TICKETS`
 * last. From then on each thread draws tickets, one for a chunk, until there are none. A thread that comes late draws
 * none, because the tickets of a job are at 0 or below before the next job is set.
 * @module
 */

import { callRows, KERNELS, type KernelCall, type Kernels } from "../kernels.js";

/** What a thread is started with. */
export interface Start {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** The address of the Control. */
  pointer: number;
}

export interface Job extends KernelCall {
  /** The rows of a chunk. */
  block: number;
  chunks: number;
  /** Whether it sums over its rows. */
  sums: boolean;
}

// Words of 32 bits.
/** Chunks that nobody has taken yet. */
export const TICKETS = 0;
/** Counts jobs. Idle threads sleep on it. */
export const JOBS = 1;
/** Chunks of this job that are done. The caller sleeps on it, and is woken by the last. */
export const DONE = 2;
/** All chunks of this job. */
const CHUNKS = 3;
/** Chunks that ended in an error. */
export const FAILED = 4;
/** Idle threads that sleep. */
export const SLEEPERS = 5;
/** 1 when the threads are to end. */
export const CLOSED = 6;
/** The number of this job. Unlike JOBS it is set before the tickets. */
const NUMBER = 7;
const WORDS = 8;

// A job as numbers: the index of its kernel, the rows of a chunk, whether it sums, and the arguments.
const HEAD = 3;
const NUMBERS = HEAD + Math.max(...KERNELS.map(({ moves }) => moves.length));

/** The words and numbers in shared memory. */
export class Control {
  static readonly bytes = WORDS * 4 + NUMBERS * 8;
  readonly words: Int32Array;
  readonly numbers: Float64Array;

  /** @param pointer a multiple of 8 */
  constructor(buffer: ArrayBufferLike, pointer: number) {
    this.words = new Int32Array(buffer, pointer, WORDS);
    this.numbers = new Float64Array(buffer, pointer + WORDS * 4, NUMBERS);
  }
}

/** Sets the words and numbers of a job. From then on threads may take chunks of it. */
export function publish({ words, numbers }: Control, { kernel, args, block, chunks, sums }: Job): void {
  numbers.set([kernel.index, block, Number(sums), ...args.slice(0, kernel.moves.length)]);
  Atomics.store(words, DONE, 0);
  Atomics.store(words, FAILED, 0);
  Atomics.store(words, CHUNKS, chunks);
  Atomics.add(words, NUMBER, 1);
  Atomics.store(words, TICKETS, chunks);
  Atomics.add(words, JOBS, 1);
}

/** Draws tickets and computes their chunks until there are none. */
export function work(kernels: Kernels, { words, numbers }: Control): void {
  let job: KernelCall | undefined;
  let number = 0;
  for (let left = Atomics.sub(words, TICKETS, 1); left > 0; left = Atomics.sub(words, TICKETS, 1)) {
    const chunks = Atomics.load(words, CHUNKS);
    try {
      // Meanwhile the next job may have begun.
      if (!job || number !== Atomics.load(words, NUMBER)) {
        number = Atomics.load(words, NUMBER);
        const kernel = KERNELS[numbers[0] as number] as (typeof KERNELS)[number];
        job = { kernel, args: Array.from(numbers.subarray(HEAD)) };
      }
      const block = numbers[1] as number;
      const start = (chunks - left) * block;
      const rows = job.args[job.kernel.rows] as number;
      callRows(kernels, job, start, Math.min(block, rows - start), numbers[2] === 1);
    } catch {
      Atomics.add(words, FAILED, 1);
    }
    if (Atomics.add(words, DONE, 1) + 1 === chunks) Atomics.notify(words, DONE);
  }
}
