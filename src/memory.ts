/**
 * A linear memory and its allocator, as a runtime is given them.
 * @module
 */

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
