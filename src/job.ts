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
      const [kind = 0, ...rest] = numbers;
      KINDS[kind]?.(kernels, chunks - left, ...rest);
    } catch {
      Atomics.add(words, FAILED, 1);
    }
    if (Atomics.add(words, DONE, 1) + 1 === chunks) Atomics.notify(words, DONE);
  }
}

/** Chunk by chunk what layerNormForward does; pointers and sizes are those of the whole. */
function forward(
  kernels: SharedKernels,
  chunk: number,
  block: number,
  y: number,
  mean: number,
  rstd: number,
  x: number,
  weight: number,
  bias: number,
  rows: number,
  cols: number,
  eps: number,
): void {
  const start = chunk * block;
  const at = start * cols * 4;
  const row = start * 4;
  const count = Math.min(block, rows - start);
  kernels.layerNormForward(y + at, mean && mean + row, rstd && rstd + row, x + at, weight, bias, count, cols, eps);
}

/** The same of layerNormBackward, but for the end of it where dweight or dbias is wanted. */
function backward(
  kernels: SharedKernels,
  chunk: number,
  block: number,
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
  workspace: number,
): void {
  if (dweight || dbias) {
    kernels.layerNormBackwardPart(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace, chunk);
    return;
  }
  const start = chunk * block;
  const at = start * cols * 4;
  const row = start * 4;
  const count = Math.min(block, rows - start);
  kernels.layerNormBackward(dx && dx + at, 0, 0, dy + at, x + at, mean + row, rstd + row, weight, count, cols, 0);
}

const KINDS: ((kernels: SharedKernels, chunk: number, ...numbers: number[]) => void)[] = [forward, backward];
