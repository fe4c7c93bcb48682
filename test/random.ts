// Seeded numbers, the same in every run.

/** Uniform numbers in (0, 1) from a seed (mulberry32). */
export function uniform(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** `size` numbers of N(0, 1) * scale + offset, as float32. */
export function normal(size: number, seed: number, offset = 0, scale = 1): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next()) * scale + offset,
  );
}

/** Nearly N(0, 1): twelve uniform numbers, less six (Irwin and Hall). The same on every engine, unlike Math.log and Math.cos. */
export function bell(next: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += next();
  return sum;
}

/** `size` uniform numbers from `least` to `most`, as float32. */
export function between(least: number, most: number, size: number, seed: number): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  return Float32Array.from({ length: size }, () => least + (most - least) * next());
}
