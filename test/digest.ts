// The golden digest: SHA-256 over the bits of what the kernels make of seeded shapes and hard inputs. Every build and every
// engine must give the same. Nothing here depends on an engine either: inputs are made by integer arithmetic and sums alone,
// since Math.log and Math.cos differ between engines in the last bit.

import type { Kernels } from "../src/index.js";
import { bell, uniform } from "./random.js";

/** Changes when a kernel's arithmetic does, and only then: `npm test` shows the new one. */
export const GOLDEN = "8a946314abc6dcd4699ea8ef7e3a208226b040b0c1ea8339f0b7b340f5f792e0";

/** What the digest needs of a runtime. */
interface Machine {
  kernels: Kernels;
  memory: { readonly buffer: ArrayBufferLike };
  allocate(bytes: number): number;
}

type Values = (size: number, cols: number, next: () => number) => ArrayLike<number>;

const bells =
  (offset: number, scale: number): Values =>
  (size, _, next) =>
    Array.from({ length: size }, () => bell(next) * scale + offset);

const INPUTS: Record<string, Values> = {
  ordinary: bells(0, 1),
  "near the border of a shift": bells(1, 1),
  "with a shift": bells(3, 1),
  far: bells(1e4, 1),
  "very far": bells(-1e7, 1),
  "squares overflow": bells(0, 1e20),
  "nearly everything overflows": bells(0, 5e37),
  "squares underflow": bells(0, 1e-25),
  subnormal: bells(0, 1e-40),
  "an outlier first": (size, cols, next) => Array.from({ length: size }, (_, i) => (i % cols === 0 ? 1e6 : bell(next))),
  "a misleading start": (size, cols, next) =>
    Array.from({ length: size }, (_, i) => bell(next) + (i % cols < 16 ? 1e3 : 1e4)),
  constant: (size) => new Array(size).fill(-3.7),
  "0 and a": (size) => Array.from({ length: size }, (_, i) => (i % 2) * 1.3),
  zeros: (size) => Array.from({ length: size }, (_, i) => (i % 3 === 0 ? -0 : 0)),
  "NaN and infinity": (size, cols, next) =>
    Array.from({ length: size }, (_, i) => (i === 1 ? NaN : i === cols + 1 ? -Infinity : bell(next))),
};

// Rows to either side of four, of a group, and of chunks of backward; columns around the steps, a block of the sums, and those
// up to which four rows are taken at a time, or are normalized side by side.
const SHAPES =
  "3x1 5x2 4x3 2x7 3x15 5x16 2x17 64x21 65x33 53x24 131x5 3x127 2x129 3x256 9x128 53x264 2x257 2x768 1x1023 3x3072 3300x3";

type Pointers = [number, number, number, number, number, number, number, number];

/** What the kernels make of each input, NaN always as the same bits. */
export function* results(machine: Machine): Generator<Uint32Array<ArrayBuffer>> {
  const { kernels, memory } = machine;
  const place = (values: ArrayLike<number>) => {
    const pointer = machine.allocate(values.length * 4);
    new Float32Array(memory.buffer, pointer, values.length).set(values);
    return pointer;
  };
  const take = (pointer: number, length: number) => {
    const words = new Uint32Array(memory.buffer, pointer, length).slice();
    const floats = new Float32Array(words.buffer);
    for (let i = 0; i < length; i++) if (Number.isNaN(floats[i])) words[i] = 0x7fc00000;
    return words;
  };

  const next = uniform(2026);
  for (const values of Object.values(INPUTS)) {
    for (const shape of SHAPES.split(" ")) {
      const [rows, cols] = shape.split("x").map(Number) as [number, number];
      for (const affine of [true, false]) {
        for (const eps of [1e-5, 0]) {
          const size = rows * cols;
          const x = place(values(size, cols, next));
          const dy = place(bells(0, 1)(size, cols, next));
          const weight = affine ? place(bells(1, 0.5)(cols, cols, next)) : 0;
          const bias = affine ? place(bells(0, 1)(cols, cols, next)) : 0;
          const lengths = { y: size, mean: rows, rstd: rows, dx: size, dweight: cols, dbias: cols };
          const sizes = [size, ...Object.values(lengths), kernels.layerNormBackwardWorkspace(rows, cols) / 4];
          const pointers = sizes.map((length) => place(new Float32Array(length)));
          const [sum, y, mean, rstd, dx, dweight, dbias, workspace] = pointers as Pointers;
          const all = () => Object.values(lengths).map((length, i) => take(pointers[i + 1]!, length));
          kernels.layerNormForward(y, 0, mean, rstd, x, 0, weight, bias, rows, cols, eps);
          kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, 0, rows, cols, workspace);
          yield* all();
          kernels.rmsNormForward(y, sum, rstd, x, dy, weight, rows, cols, eps);
          kernels.rmsNormBackward(dx, dweight, dy, sum, rstd, weight, x, rows, cols, workspace);
          yield take(sum, size);
          yield* all();
        }
      }
    }
  }
}

/** SHA-256 of bits, in hexadecimal. */
export async function hashOf(parts: Iterable<BlobPart>): Promise<string> {
  const blob = new Blob(Array.from(parts));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The digest of a machine. */
export const digest = (machine: Machine): Promise<string> => hashOf(results(machine));
