// Every kernel of the table: it writes to its outputs and nowhere else, and rows move its arguments as the table says.

import { describe, expect, test } from "vitest";
import type { Runtime } from "../src/index.js";
import { addSums, callRows, KERNELS, type Kernel, sumsAnything } from "../src/kernels.js";
import { BUILDS, moduleOf } from "./builds.js";
import { Arena, normal, shapesOf } from "./helpers.js";
import { machineOf } from "./recipe.js";

/** What the table leaves out: how many of the first arguments are outputs, which may be absent, which is residual or add. */
const OPERANDS: Record<Kernel["name"], { outputs: number; optional: readonly number[]; addend: number }> = {
  layerNormForward: { outputs: 4, optional: [1, 2, 3, 5, 6, 7], addend: 5 },
  layerNormBackward: { outputs: 3, optional: [0, 1, 2, 7, 8], addend: 8 },
  rmsNormForward: { outputs: 3, optional: [1, 2, 4, 5], addend: 4 },
  rmsNormBackward: { outputs: 2, optional: [0, 1, 5, 6], addend: 6 },
};
const SHAPES = shapesOf("0x6 1x1 2x769 3x23 5x64 27x24 27x264 67x17 130x5");

/** A call of a kernel in a memory of its own. Without `misalignment` operands are at multiples of 16. */
function prepare(build: string, kernel: Kernel, rows: number, cols: number, absent?: number, misalignment = 0) {
  const { outputs } = OPERANDS[kernel.name];
  const lengths = kernel.moves.map((move) => (move === 2 ? rows * cols : move === 1 ? rows : cols));
  const arena = new Arena(build, 16 * rows * cols + 16 * cols + 4096 + 64 * rows, misalignment);
  const { kernels } = arena;
  const results: [number, number][] = [];
  const args = lengths.map((length, i) => {
    if (i === kernel.rows) return rows;
    if (i === kernel.cols) return cols;
    if (i === kernel.workspace) return 0;
    if (i > kernel.cols) return 1e-5;
    if (i === absent) return 0;
    if (i >= outputs) return arena.input(normal(length, i).map(Math.abs));
    const sum = [kernel.dweight, kernel.dbias].includes(i);
    const pointer = arena.output(length, true, sum ? normal(length, 50 + i) : undefined);
    results.push([pointer, length]);
    return pointer;
  });
  if (kernel.workspace >= 0) {
    const bytes = kernels[`${kernel.name as "layerNormBackward"}Workspace`](rows, cols);
    const all = kernels.sumsWorkspace(rows, cols);
    // Workspace is as all sums need, which is more than one call does.
    if (bytes > 0) args[kernel.workspace] = arena.output(Math.max(bytes, all) / 4);
  }
  arena.seal();
  return {
    arena,
    args,
    bits: () => results.map(([at, length]) => new Uint32Array(arena.floats(at, length).buffer)),
  };
}

test("the table names every kernel that is tested here", () => {
  expect(KERNELS.map(({ name }) => name).sort()).toEqual(Object.keys(OPERANDS).sort());
});

describe.each(BUILDS)("%s", (build) => {
  describe.each(KERNELS.map((kernel) => [kernel.name, kernel] as const))("%s", (name, kernel) => {
    const run = (kernels: Arena["kernels"], args: readonly number[]) =>
      (kernels[name] as (...args: readonly number[]) => void)(...args);

    test.each(SHAPES)("of %i rows of %i writes to its outputs alone", (rows, cols) => {
      for (const absent of [undefined, ...OPERANDS[name].optional]) {
        for (const misalignment of [0, 4, 8, 12]) {
          const { arena, args } = prepare(build, kernel, rows, cols, absent, misalignment);
          run(arena.kernels, args);
          expect(arena.strayWrite(), `without argument ${absent}, ${misalignment} bytes off`).toBe(-1);
        }
      }
    });

    test.each(SHAPES)("of %i rows of %i adds to the bits of an addition of its own", (rows, cols) => {
      const { addend } = OPERANDS[name];
      const fused = prepare(build, kernel, rows, cols);
      const apart = prepare(build, kernel, rows, cols, addend);
      const floats = (at: number | undefined) => fused.arena.floats(at as number, rows * cols);
      const added = floats(fused.args[addend]);
      run(fused.arena.kernels, fused.args);
      if (kernel.workspace < 0) {
        // x, before the residual, is the sum already.
        const x = apart.args[addend - 1] as number;
        const sum = floats(fused.args[addend - 1]).map((value, i) => value + (added[i] as number));
        expect(floats(fused.args[1])).toEqual(sum);
        new Float32Array(apart.arena.memory.buffer, x, sum.length).set(sum);
      }
      run(apart.arena.kernels, apart.args);
      let first = apart.arena.floats(apart.args[0] as number, rows * cols);
      if (kernel.workspace >= 0) first = first.map((value, i) => value + (added[i] as number));
      expect(floats(fused.args[0])).toEqual(first);
    });

    test.each(shapesOf("3x23 67x17 130x5 261x33 203x24"))(
      "of %i rows of %i gives the same bits in parts",
      (rows, cols) => {
        const whole = prepare(build, kernel, rows, cols);
        run(whole.arena.kernels, whole.args);
        const parts = prepare(build, kernel, rows, cols);
        const { kernels } = parts.arena;
        const kernelCall = { kernel, args: parts.args };
        const sums = sumsAnything(kernelCall) && parts.args[kernel.workspace] !== 0;
        // Sums without a workspace are taken in the order of the rows. With one, parts are chunks, here the last one first.
        const count = sums ? kernels.sumsChunk(rows) : 2;
        const starts = Array.from({ length: Math.ceil(rows / count) }, (_, i) => i * count);
        if (sums) starts.reverse();
        for (const start of starts) callRows(kernels, kernelCall, start, Math.min(count, rows - start), sums);
        if (sums) addSums(kernels, kernelCall);
        expect(parts.arena.strayWrite()).toBe(-1);
        expect(parts.bits()).toEqual(whole.bits());
      },
    );
  });
});

describe.each(BUILDS)("%s", (build) => {
  test("the workspace of more columns is no smaller, also where its bytes can't be counted in 32 bits", () => {
    const { kernels } = machineOf(moduleOf(build));
    const cols = 178_956_971; // 24 bytes of each are 8 bytes more than 4 GiB
    for (const name of ["layerNormBackwardWorkspace", "rmsNormBackwardWorkspace", "sumsWorkspace"] as const) {
      expect(kernels[name](1, cols) >>> 0).toBeGreaterThanOrEqual(kernels[name](1, cols - 1) >>> 0);
    }
  });

  test("addSums adds all chunks of a workspace that ends where the memory of 4 GiB does", () => {
    const memory = new WebAssembly.Memory({ initial: 65536 });
    const { exports } = new WebAssembly.Instance(moduleOf(build), { env: { memory } });
    const kernels = exports as unknown as Runtime["kernels"];
    const [rows, cols] = [200, 8];
    const floats = (pointer: number, length: number) => new Float32Array(memory.buffer, pointer, length);
    floats(65536, rows * cols).fill(1); // dy and x
    floats(131072, rows).fill(1); // rstd
    const workspace = 2 ** 32 - kernels.sumsWorkspace(rows, cols);
    kernels.rmsNormBackwardRows(0, 1024, 65536, 65536, 131072, 0, 0, rows, cols, workspace, 0, rows);
    kernels.addSums(1024, 0, rows, cols, workspace);
    expect([...floats(1024, cols)]).toEqual(Array(cols).fill(rows));
  });
});
