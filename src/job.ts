/**
 * A job that threads share: its words in shared memory, and how a thread takes its part of it.
 *
 * The words are set by the thread that calls, `TICKETS` last of all: from then on each thread draws tickets, a chunk for each,
 * until there are none. A thread that comes late draws none, as the tickets of a job are at 0 or below before the next is set.
 * @module
 */

import type { Kernels } from "./runtime.js";

/** The kernels over a shared memory: assembly/threads.ts. */
export interface SharedKernels extends Kernels {
  /** The bytes of workspace for all chunks. */
  layerNormBackwardSlots(rows: number, cols: number): number;
  /** The rows of a chunk. */
  layerNormBackwardChunk(rows: number): number;
  layerNormBackwardPart(...pointersSizesWorkspaceAndChunk: number[]): void;
  layerNormBackwardEnd(dweight: number, dbias: number, rows: number, cols: number, workspace: number): void;
}

/** What a thread is started with. */
export interface Start {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** Of the Control. */
  pointer: number;
}

// Words of 32 bits.
/** Chunks that nobody has taken yet. */
export const TICKETS = 0;
/** Counts jobs. Idle threads sleep on it. */
export const JOBS = 1;
/** Chunks of this job that are done; the caller sleeps on it, and is woken by the last. */
export const DONE = 2;
/** All chunks of this job. */
export const CHUNKS = 3;
/** Chunks that ended in an error. */
export const FAILED = 4;
/** Idle threads that sleep. */
export const SLEEPERS = 5;
/** 1 when the threads are to end. */
export const CLOSED = 6;
const WORDS = 8;

// What a job's numbers are: its kind, the rows of a chunk, and the arguments of the kernel.
export const FORWARD = 0;
export const BACKWARD = 1;
const NUMBERS = 14;

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

/** Draws tickets and computes their chunks until there are none. */
export function work(kernels: SharedKernels, { words, numbers }: Control): void {
  for (let left = Atomics.sub(words, TICKETS, 1); left > 0; left = Atomics.sub(words, TICKETS, 1)) {
    const chunks = Atomics.load(words, CHUNKS);
    try {
      compute(kernels, numbers, chunks - left);
    } catch {
      Atomics.add(words, FAILED, 1);
    }
    if (Atomics.add(words, DONE, 1) + 1 === chunks) Atomics.notify(words, DONE);
  }
}

/** A chunk of a job. The numbers are read one by one: spread, they would cost more than a chunk may. */
function compute(kernels: SharedKernels, numbers: Float64Array, chunk: number): void {
  const at = (index: number) => numbers[index] as number;
  const block = at(1);
  const start = chunk * block;
  const row = start * 4;
  if (at(0) === FORWARD) {
    const [mean, rstd, rows, cols] = [at(3), at(4), at(8), at(9)];
    kernels.layerNormForward(
      at(2) + row * cols,
      mean && mean + row,
      rstd && rstd + row,
      at(5) + row * cols,
      at(6),
      at(7),
      Math.min(block, rows - start),
      cols,
      at(10),
    );
    return;
  }
  const [dx, dweight, dbias, dy, x, mean] = [at(2), at(3), at(4), at(5), at(6), at(7)];
  const [rstd, weight, rows, cols, workspace] = [at(8), at(9), at(10), at(11), at(12)];
  if (dweight || dbias) {
    kernels.layerNormBackwardPart(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace, chunk);
    return;
  }
  const offset = row * cols;
  const count = Math.min(block, rows - start);
  const dxAt = dx && dx + offset;
  kernels.layerNormBackward(dxAt, 0, 0, dy + offset, x + offset, mean + row, rstd + row, weight, count, cols, 0);
}
