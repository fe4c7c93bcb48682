// The allocator's module: AssemblyScript's TLSF heap over the imported memory. It stands apart from the kernels
// because it keeps state (a root structure at the bottom of the memory), and they must not.
//
// Each large block starts STEP bytes behind the last, modulo 4 KiB. This is against 4K aliasing: a processor first
// compares addresses by their last 12 bits. In blocks of whole pages, loads from x would wait for stores to y. On wide
// rows out of the caches, forward was a fifth faster if the last 12 bits of y were 768 to 2048 more than those of x.

// Only blocks of this size or more are moved: the room that it takes is then at most a sixteenth of the block.
const LARGE: usize = 1 << 16;
// The largest block of the heap, less the room that moving takes.
const LARGEST: usize = (1 << 30) - (1 << 13);
const PAGE: usize = 1 << 12;
// A bit of the word before a block. The heap never sets it while the block is in use.
const MOVED: usize = 1;

// The last 12 bits of two blocks that are made one after the other, or with one between them, then differ as above.
const STEP: usize = 768;

let place: usize = 0;

/** Returns a block of at least `size` bytes, aligned to 16. Grows the memory when needed; traps when that fails. */
export function allocate(size: usize): usize {
  if (size < LARGE || size > LARGEST) return heap.alloc(size);
  const start = heap.alloc(size + PAGE + 16);
  const first = start + 16;
  const block = first + ((place - first) & (PAGE - 1));
  place += STEP;
  store<usize>(block - 4, start | MOVED);
  return block;
}

/** Gives back a block that `allocate` returned. */
export function free(block: usize): void {
  const word = load<usize>(block - 4);
  heap.free(word & MOVED ? word ^ MOVED : block);
}
