// What engines.mjs runs in each engine: the kernels' speed on a few shapes, as JSON on standard output or posted by a page.

import { kernelCalls, PASSES, problemOf } from "./problem.js";
import { race, repeat } from "./race.js";

const SHAPES = [
  [128, 768],
  [1024, 768],
  [8192, 768],
  [1024, 4096],
  [4096, 64],
] as const;
const WARM_MS = 300; // engines compile again while they run, so that the first rounds are slower

const gigabytes: Record<string, number> = {};
for (const [rows, cols] of SHAPES) {
  const { placed, forward, backward } = kernelCalls(problemOf(rows, cols));
  for (const [i, call] of [forward, backward].entries()) {
    for (const start = performance.now(); performance.now() < start + WARM_MS; ) call();
    // The clocks of browsers are coarse.
    const [[best]] = (await race([{ call: repeat(call) }], { rounds: 10, roundMs: 20 })) as [[number]];
    gigabytes[`${PASSES[i]} ${rows}x${cols}`] = ((2 + i) * rows * cols * 4) / best / 1e6;
  }
  for (const tensor of Object.values(placed.tensors)) tensor.dispose();
}

if (typeof document === "object") fetch("/report", { method: "POST", body: JSON.stringify(gigabytes) });
else console.log(JSON.stringify(gigabytes));
