/**
 * Threads over one shared memory, and the jobs that they and the calling thread do together.
 * @module
 */

import {
  CHUNKS,
  CLOSED,
  Control,
  DONE,
  FAILED,
  JOBS,
  type SharedKernels,
  SLEEPERS,
  type Start,
  TICKETS,
  work,
} from "./job.js";
import { spawn, type Thread } from "./spawn.js";

export interface Job {
  /** Its kind, the rows of a chunk, and the arguments of the kernel. */
  numbers: readonly number[];
  chunks: number;
  /** What the caller does once all chunks are done. */
  end?: () => void;
}

/** A job that somebody waits for without blocking. */
interface Later {
  job: Job;
  resolve(): void;
  reject(error: Error): void;
}

// How often the caller looks whether the others are done before it sleeps: for some 50 microseconds.
const LOOKS = 2000;
// How long it sleeps, and how often in a row without a chunk done before it gives the threads up. A chunk takes milliseconds.
const SLEEP_MS = 100;
const SLEEPS = 50;
const START_MS = 30_000;

export const CLOSED_MESSAGE = "ThreadedRuntime: used after it was closed; create another";

/** `Atomics.waitAsync`, where the engine has it. */
const { waitAsync } = Atomics as unknown as {
  waitAsync?(words: Int32Array, index: number, value: number, timeout: number): { value: Promise<string> | string };
};

export class Pool {
  readonly #kernels: SharedKernels;
  readonly #control: Control;
  readonly #threads: Thread[] = [];
  readonly #mayBlock: boolean;
  /** Begun is the first of them. */
  readonly #later: Later[] = [];
  #started = false;
  /** Why it can't be used any more. */
  #over: Error | undefined;

  private constructor(kernels: SharedKernels, control: Control) {
    this.#kernels = kernels;
    this.#control = control;
    this.#mayBlock = mayBlock(control.words);
  }

  /** With so many threads beside the calling one, all of them ready. */
  static async start(kernels: SharedKernels, start: Start, threads: number): Promise<Pool> {
    const pool = new Pool(kernels, new Control(start.memory.buffer, start.pointer));
    const ready = Array.from({ length: threads }, () => pool.#add(start));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`it was not ready in ${START_MS / 1000} s`)), START_MS);
    });
    try {
      await Promise.race([Promise.all(ready), late]);
    } catch (cause) {
      pool.#stop(new Error(`createThreadedRuntime: a thread did not start: ${(cause as Error).message}`, { cause }));
      throw pool.#over;
    } finally {
      clearTimeout(timer);
    }
    pool.#started = true;
    for (const thread of pool.#threads) thread.unref?.();
    return pool;
  }

  #add(start: Start): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (reason: string) => {
        reject(new Error(reason));
        if (this.#started) this.#stop(broken(`a thread failed: ${reason}`));
      };
      this.#threads.push(spawn(start, resolve, failed));
    });
  }

  /** Does a job with all threads, after those that were begun before it. */
  run(job: Job): void {
    this.settle();
    this.#publish(job, job.chunks - 1);
    this.#finish(job);
  }

  /** Leaves a job to the threads; the promise is that of its end. */
  later(job: Job): Promise<void> {
    this.check();
    return new Promise((resolve, reject) => {
      this.#later.push({ job, resolve, reject });
      if (this.#later.length === 1) this.#begin();
    });
  }

  /** How many threads compute, the calling one among them. */
  get threads(): number {
    return this.#threads.length + 1;
  }

  /** Whether some of the threads would see a job at once. */
  get awake(): boolean {
    return Atomics.load(this.#control.words, SLEEPERS) < this.#threads.length;
  }

  /** Whether a job is under way. */
  get busy(): boolean {
    return this.#later.length > 0;
  }

  /** Helps the jobs under way to their end. */
  settle(): void {
    this.check();
    for (let first = this.#later[0]; first; first = this.#later[0]) {
      this.#finish(first.job, first);
    }
  }

  /** Throws when it is closed or broken. */
  check(): void {
    if (this.#over) throw this.#over;
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    if (this.#over) return;
    this.settle();
    await this.#stop(new TypeError(CLOSED_MESSAGE));
  }

  #publish({ numbers, chunks }: Job, helpers: number): void {
    const { words } = this.#control;
    this.#control.numbers.set(numbers);
    Atomics.store(words, DONE, 0);
    Atomics.store(words, FAILED, 0);
    Atomics.store(words, CHUNKS, chunks);
    Atomics.store(words, TICKETS, chunks);
    Atomics.add(words, JOBS, 1);
    if (Atomics.load(words, SLEEPERS) > 0) Atomics.notify(words, JOBS, helpers);
  }

  /** Does what is left of the job that is published, and waits for the threads that have the rest. */
  #finish(job: Job, later?: Later): void {
    work(this.#kernels, this.#control);
    const { words } = this.#control;
    for (let look = 0; look < LOOKS && Atomics.load(words, DONE) < job.chunks; look++);
    for (const done of this.#unfinished(job)) sleep(words, done, this.#mayBlock);
    this.#conclude(job, later);
  }

  /** How many chunks are done, to be waited on, until all are; throws when it is the same for too long. */
  *#unfinished({ chunks }: Job): Generator<number> {
    const { words } = this.#control;
    let still = 0;
    for (let done = Atomics.load(words, DONE); done < chunks; ) {
      yield done;
      const now = Atomics.load(words, DONE);
      still = now === done ? still + 1 : 0;
      done = now;
      if (still >= SLEEPS) {
        this.#stop(broken(`a thread did not do its part in ${(SLEEPS * SLEEP_MS) / 1000} s`));
        this.check();
      }
    }
  }

  /** After the last chunk. */
  #conclude(job: Job, later?: Later): void {
    try {
      if (Atomics.load(this.#control.words, FAILED) > 0) throw new Error("one did not end its part");
      job.end?.();
    } catch (error) {
      this.#stop(broken(`a thread failed: ${(error as Error).message}`));
      this.check();
    }
    if (!later) return;
    this.#later.shift();
    later.resolve();
    if (this.#later.length > 0) this.#begin();
    else for (const thread of this.#threads) thread.unref?.();
  }

  /** Publishes the first of the jobs for later, and looks after it. */
  #begin(): void {
    const [first] = this.#later as [Later];
    for (const thread of this.#threads) thread.ref?.(); // there would be nothing else that keeps the process waiting
    this.#publish(first.job, first.job.chunks);
    this.#watch(first).catch(() => {}); // the error is the promise's, too
  }

  async #watch(later: Later): Promise<void> {
    for (const done of this.#unfinished(later.job)) {
      await pause(this.#control.words, done);
      if (this.#later[0] !== later) return; // a call that blocks has finished it, or the threads are over
    }
    this.#conclude(later.job, later);
  }

  /** For good: whoever waits is told why. */
  async #stop(reason: Error): Promise<void> {
    if (this.#over) return;
    this.#over = reason;
    for (const { reject } of this.#later.splice(0)) reject(reason);
    const { words } = this.#control;
    Atomics.store(words, TICKETS, 0);
    Atomics.store(words, CLOSED, 1);
    Atomics.add(words, JOBS, 1);
    Atomics.notify(words, JOBS);
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
  }
}

function broken(why: string): Error {
  return new Error(
    `ThreadedRuntime: ${why}; the results of this call are not to be used, and the runtime is broken: create another`,
  );
}

/** Whether this thread may sleep: the main thread of a page may not. */
function mayBlock(words: Int32Array): boolean {
  try {
    Atomics.wait(words, DONE, Atomics.load(words, DONE) + 1, 0);
    return true;
  } catch {
    return false;
  }
}

/** Until `DONE` is no longer `done`, for `SLEEP_MS` at most. */
function sleep(words: Int32Array, done: number, mayBlock: boolean): void {
  if (mayBlock) {
    Atomics.wait(words, DONE, done, SLEEP_MS);
    return;
  }
  const until = performance.now() + SLEEP_MS;
  while (Atomics.load(words, DONE) === done && performance.now() < until);
}

/** The same without blocking. */
async function pause(words: Int32Array, done: number): Promise<void> {
  if (waitAsync) await waitAsync(words, DONE, done, SLEEP_MS).value;
  else {
    const until = performance.now() + SLEEP_MS;
    while (Atomics.load(words, DONE) === done && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}
