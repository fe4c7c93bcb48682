// What engines.mjs runs in each engine: the speed of the kernels on a few shapes, and of those of 2026-11-29, in turns. It
// writes JSON to standard output, or posts it from a page.

import { Tensor } from "../dist/index.js";
import { kernelCalls, PASSES, problemOf } from "./problem.js";
import { race, repeat } from "./race.js";

/** The module of the earlier kernels, which engines.mjs puts here. */
declare const EARLIER: string;

const SHAPES = [
  [128, 768],
  [1024, 768],
  [8192, 768],
  [1024, 4096],
  [4096, 256],
  [4096, 64],
] as const;
const WARM_MS = 300; // engines compile again while they run, so that the first rounds are slower

const module = new WebAssembly.Module(Uint8Array.from(atob(EARLIER), (character) => character.charCodeAt(0)));
type Kernels = Record<"layerNormForward" | "layerNormBackward" | "layerNormBackwardWorkspace", Call>;
type Call = (...args: number[]) => number;

const found: Record<string, { gigabytes: number; earlier: number }> = {};
for (const [rows, cols] of SHAPES) {
  const problem = problemOf(rows, cols);
  const { placed, forward, backward } = kernelCalls(problem);
  const { runtime, tensors, at } = placed;
  const { exports } = new WebAssembly.Instance(module, { env: { memory: runtime.memory as WebAssembly.Memory } });
  const earlier = exports as Kernels;
  const workspace = new Tensor([earlier.layerNormBackwardWorkspace(rows, cols) / 4], undefined, { runtime });
  const { y, mean, rstd, x, weight, bias, dx, dweight, dbias, dy } = at;
  const [sums, { eps }] = [workspace.pointer, problem];
  const calls = [
    [forward, () => earlier.layerNormForward(y, 0, mean, rstd, x, 0, weight, bias, rows, cols, eps)],
    [
      backward,
      () => earlier.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, 0, rows, cols, sums, eps),
    ],
  ];
  for (const [i, both] of calls.entries()) {
    for (const call of both) for (const start = performance.now(); performance.now() < start + WARM_MS; ) call();
    // The clocks of browsers are coarse.
    const runners = both.map((call) => ({ call: repeat(call) }));
    const [[ours], [theirs]] = (await race(runners, { rounds: 10, roundMs: 20 })) as [[number], [number]];
    const gigabytes = ((2 + i) * rows * cols * 4) / ours / 1e6;
    found[`${PASSES[i]} ${rows}x${cols}`] = { gigabytes, earlier: theirs / ours };
  }
  for (const tensor of [...Object.values(tensors), workspace]) tensor.dispose();
}

if (typeof document === "object") fetch("/report", { method: "POST", body: JSON.stringify(found) });
else console.log(JSON.stringify(found));
