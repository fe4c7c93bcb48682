// The allocator's module: AssemblyScript's TLSF heap over the imported memory. It stands apart from the kernels because it
// keeps state (a root structure at the bottom of the memory), and they must not.

/** Returns a block of at least `size` bytes, aligned to 16. Grows the memory when needed; traps when that fails. */
export function allocate(size: usize): usize {
  return heap.alloc(size);
}

/** Gives back a block that `allocate` returned. */
export function free(pointer: usize): void {
  heap.free(pointer);
}
