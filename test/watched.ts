// A runtime whose blocks are watched.

import { expect } from "vitest";
import { Runtime, Tensor } from "../src/index.js";

/** The bytes between the blocks, and in those given back, alone and as a word: as a float, 13,323,083. */
const GAP = 0x4b;
const GAPS = 0x4b4b4b4b;

/** Blocks lie apart, and each is given out once. */
export class Watched {
  /** The bytes of each block that is held, by its address. */
  readonly held = new Map<number, number>();
  /** How many more there is room for. */
  room = Infinity;
  /** What its allocator does besides. */
  besides: (step: "allocate" | "free") => void = () => {};
  readonly runtime: Runtime;
  readonly #bytes: Uint8Array;
  #taken: number[] = [];

  constructor() {
    const memory = new WebAssembly.Memory({ initial: 32 });
    this.#bytes = new Uint8Array(memory.buffer).fill(GAP);
    let next = 64;
    const allocate = (bytes: number) => {
      this.besides("allocate");
      if (this.room-- <= 0) return 0;
      const pointer = next;
      next += bytes + 64 + (-bytes & 15);
      this.#taken.push(bytes);
      this.held.set(pointer, bytes);
      return next <= this.#bytes.length ? pointer : 0;
    };
    const free = (pointer: number) => {
      this.besides("free");
      const bytes = this.held.get(pointer);
      if (bytes === undefined) throw new Error(`${pointer} is not held`);
      this.#bytes.fill(GAP, pointer, pointer + bytes);
      this.held.delete(pointer);
    };
    this.runtime = Runtime.create({ memory, allocate, free });
  }

  /** The bytes of the blocks that something takes. */
  taken(use: () => unknown): number[] {
    this.#taken = [];
    use();
    return this.#taken;
  }

  /** Has the runtime give back the memory that it keeps between calls, as it does when there is no other. */
  flush(): void {
    this.room = 0;
    expect(() => new Tensor([1], undefined, { runtime: this.runtime })).toThrow(/out of memory/);
    this.room = Infinity;
  }

  /** The address of a word outside of the blocks that was written to, or -1. */
  strayWrite(): number {
    const outside = this.#bytes.slice();
    for (const [pointer, bytes] of this.held) outside.fill(GAP, pointer, pointer + bytes);
    const words = new Uint32Array(outside.buffer);
    for (let i = 0; i < words.length; i++) if (words[i] !== GAPS) return i * 4;
    return -1;
  }
}
