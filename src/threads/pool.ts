/**
 * Threads over one shared memory, and the jobs that they and the calling thread do together.
 * @module
 */

import { addSums, type Kernels } from "../kernels.js";
import { CLOSED, Control, DONE, FAILED, JOBS, type Job, publish, SLEEPERS, type Start, TICKETS, work } from "./job.js";
import { spawn, type Thread, underPolicy, type WorkerSource } from "./spawn.js";

/** What is done in its turn: a job for the threads, or a small one that the calling thread does alone. */
type Turn = Job | (() => void);

/** One that somebody waits for without blocking. */
interface Queued {
  turn: Turn;
  resolve(): void;
  reject(error: Error): void;
}

// How often the caller looks whether the others are done before it sleeps: for some 50 microseconds.
const LOOKS = 2000;
// How long it sleeps, and how often in a row without a chunk done before it gives the threads up. A chunk takes
// milliseconds.
const SLEEP_MS = 100;
const SLEEPS = 50;
const START_MS = 30_000;

export const CLOSED_MESSAGE = "ThreadedRuntime: used after it was closed; create another";

/** `Atomics.waitAsync`, where the engine has it. */
const { waitAsync } = Atomics as unknown as {
  waitAsync?(words: Int32Array, index: number, value: number, timeout: number): { value: Promise<string> | string };
};

export class Pool {
  readonly #kernels: Kernels;
  readonly #control: Control;
  readonly #threads: Thread[] = [];
  readonly #mayBlock: boolean;
  /** In the order in which they are done. The first is under way. */
  readonly #queue: Queued[] = [];
  /** Whether the first is published. */
  #begun = false;
  #driven = false;
  #started = false;
  /** How many were queued, and how many of these are done. */
  #queued = 0;
  #done = 0;
  /** Why it can't be used any more. */
  #over: Error | undefined;

  private constructor(kernels: Kernels, control: Control) {
    this.#kernels = kernels;
    this.#control = control;
    this.#mayBlock = mayBlock(control.words);
  }

  /** A pool of so many threads beside the calling one, all of them ready. */
  static async start(kernels: Kernels, start: Start, threads: number, worker: WorkerSource | undefined): Promise<Pool> {
    const control = new Control(start.memory.buffer, start.pointer);
    control.words.fill(0); // an allocator doesn't clear its blocks
    const pool = new Pool(kernels, control);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`it was not ready in ${START_MS / 1000} s`)), START_MS);
    });
    try {
      await underPolicy(() =>
        Promise.race([Promise.all(Array.from({ length: threads }, () => pool.#add(worker, start))), late]),
      );
    } catch (cause) {
      await pool.#stop(new Error(`a thread did not start: ${(cause as Error).message}`, { cause }));
      throw pool.#over;
    } finally {
      clearTimeout(timer);
    }
    pool.#started = true;
    for (const thread of pool.#threads) thread.unref?.();
    return pool;
  }

  #add(worker: WorkerSource | undefined, start: Start): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (reason: string) => {
        reject(new Error(reason));
        if (this.#started) this.#stop(broken(`a thread failed: ${reason}`));
      };
      this.#threads.push(spawn(worker, start, resolve, failed));
    });
  }

  /** Does a job with all threads, after those that are queued. */
  run(job: Job): void {
    this.settle();
    this.#publish(job, job.chunks - 1);
    this.#finish(job);
    this.#conclude(job);
  }

  /** Has something done after what is queued. The promise settles when it is done. */
  start(turn: Turn): Promise<void> {
    this.check();
    return new Promise((resolve, reject) => {
      this.#queue.push({ turn, resolve, reject });
      this.#queued++;
      if (this.#driven) return;
      this.#drive().catch(() => {}); // the error is that of the promise
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

  /** Whether something is queued or under way. */
  get busy(): boolean {
    return this.#queue.length > 0;
  }

  /** How many were queued until now. */
  get queued(): number {
    return this.#queued;
  }

  /** How many of these are done. They are done in their order. */
  get done(): number {
    return this.#done;
  }

  /** Helps what is queued to its end. */
  settle(): void {
    this.check();
    for (let first = this.#queue[0]; first; first = this.#queue[0]) {
      this.#begin(first);
      if (typeof first.turn !== "function") this.#finish(first.turn);
      this.#end(first);
    }
  }

  /** Throws when it is closed or broken. */
  check(): void {
    if (this.#over) throw this.#over;
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    if (!this.#over) this.settle();
    await this.#stop(new TypeError(CLOSED_MESSAGE));
  }

  /**
   * Does what is queued, until nothing is left. One loop for all of them: if each started the next, thousands of
   * small ones would exhaust the stack.
   */
  async #drive(): Promise<void> {
    this.#driven = true;
    for (const thread of this.#threads) thread.ref?.(); // nothing else keeps the process waiting
    try {
      for (let first = this.#queue[0]; first; first = this.#queue[0]) {
        this.#begin(first);
        if (typeof first.turn !== "function") {
          for (const done of this.#unfinished(first.turn)) {
            await pause(this.#control.words, done);
            if (this.#queue[0] !== first) break; // a call that blocks has ended it, or the threads are over
          }
        }
        if (this.#queue[0] === first) this.#end(first);
      }
    } finally {
      this.#driven = false;
      if (!this.#over) for (const thread of this.#threads) thread.unref?.();
    }
  }

  /** Publishes the first of the queue, if that has not been done. */
  #begin({ turn }: Queued): void {
    if (this.#begun) return;
    this.#begun = true;
    if (typeof turn !== "function") this.#publish(turn, turn.chunks);
  }

  /** After the last chunk of the first of the queue. */
  #end({ turn, resolve, reject }: Queued): void {
    if (typeof turn !== "function") this.#conclude(turn);
    else {
      try {
        turn();
      } catch (error) {
        reject(error as Error); // as where an array was detached meanwhile
      }
    }
    this.#queue.shift();
    this.#begun = false;
    this.#done++;
    resolve();
  }

  #publish(job: Job, helpers: number): void {
    const { words } = this.#control;
    publish(this.#control, job);
    if (Atomics.load(words, SLEEPERS) > 0) Atomics.notify(words, JOBS, helpers);
  }

  /** Does what is left of the job that is published, and waits for the threads that have the rest. */
  #finish(job: Job): void {
    work(this.#kernels, this.#control);
    const { words } = this.#control;
    for (let look = 0; look < LOOKS && Atomics.load(words, DONE) < job.chunks; look++);
    for (const done of this.#unfinished(job)) sleep(words, done, this.#mayBlock);
  }

  /** How many chunks are done, to be waited on, until all are. Throws when the number stays the same for too long. */
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

  /** What the caller does once all chunks are done. */
  #conclude(job: Job): void {
    try {
      if (Atomics.load(this.#control.words, FAILED) > 0) throw new Error("one did not end its part");
      if (job.sums) addSums(this.#kernels, job);
    } catch (error) {
      this.#stop(broken(`a thread failed: ${(error as Error).message}`));
      this.check();
    }
  }

  /** For good: whoever waits is told why. */
  async #stop(reason: Error): Promise<void> {
    if (!this.#over) {
      this.#over = reason;
      for (const { reject } of this.#queue.splice(0)) reject(reason);
      const { words } = this.#control;
      Atomics.store(words, TICKETS, 0);
      Atomics.store(words, CLOSED, 1);
      Atomics.add(words, JOBS, 1);
      Atomics.notify(words, JOBS);
    }
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
