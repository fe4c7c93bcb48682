/**
 * A linear memory, its allocator, and the modules that are instantiated over it.
 * @module
 */

import { classOf, isShared, wrongType } from "./check.js";

/** The part of a `WebAssembly.Memory` that is used here. Declared so that the types need no library of the DOM's. */
export interface LinearMemory {
  readonly buffer: ArrayBufferLike;
  grow(pages: number): number;
}

/**
 * An allocator of a memory. `allocate` returns the address of a block, a multiple of 4, or 0 when there is no room. It
 * grows the memory where it has to.
 */
export interface Allocator {
  allocate(bytes: number): number;
  free(pointer: number): void;
}

/** The options that say which memory a runtime is over. */
export interface MemoryOptions {
  /**
   * The memory to compute in; by default a new one. Without `allocate` and `free` it must be unused (all zeros), and
   * the runtime manages the whole of it. For the memory of another module, give that module's `allocate` and `free`.
   */
  memory?: LinearMemory | undefined;
  allocate?: Allocator["allocate"] | undefined;
  free?: Allocator["free"] | undefined;
}

/**
 * That a memory and its allocator fit together.
 * @param shared whether the memory has to be a shared one
 * @param owned whether a runtime manages a memory already
 */
export function checkMemory(
  where: string,
  { memory, allocate, free }: MemoryOptions,
  shared: boolean,
  owned: (memory: LinearMemory) => boolean,
): void {
  for (const [name, value] of Object.entries({ allocate, free })) {
    if (value !== undefined && typeof value !== "function") wrongType(`${where}: ${name}`, value, "a function");
  }
  if (!allocate !== !free) throw new TypeError(`${where}: allocate and free must be given together`);
  if (memory === undefined) {
    if (allocate) throw new TypeError(`${where}: allocate and free need the memory they manage`);
    return;
  }
  if (classOf(memory) !== "WebAssembly.Memory") wrongType(`${where}: memory`, memory, "a WebAssembly.Memory");
  if (isShared(memory.buffer) !== shared) {
    const words = shared
      ? "not shared, expected a shared WebAssembly.Memory; Runtime.create takes an unshared one"
      : "shared, expected an unshared WebAssembly.Memory; createThreadedRuntime takes a shared one";
    throw new TypeError(`${where}: memory is ${words}`);
  }
  if (allocate) return;
  if (owned(memory)) throw new TypeError(`${where}: memory is managed by another Runtime`);
  if (new BigUint64Array(memory.buffer).some((word) => word !== 0n))
    throw new TypeError(`${where}: memory is in use (not all zeros); give the allocate and free of its module`);
}
