// npm run bench:rows: what kinds of rows cost our kernel, as times of N(0, 1) rows of the same shape, and how long the
// kernel of 2026-11-21 takes beside it. Each result of ours is first verified against float64.

import { inputOf, type Pattern, type Recipe } from "../test/recipe.js";
import { beyond } from "../test/reference.js";
import { earlierCalls } from "./ours.js";
import { kernelCalls, problemOf } from "./problem.js";
import { race, repeat } from "./race.js";

const SHAPES = [
  [1024, 768],
  [16384, 64],
] as const;
const TIMES = { rounds: 20, roundMs: 1 };
const bell: Pattern = { kind: "bell" };
const dy: Pattern = { kind: "bell", seed: 2 };

const gelu = (v: number) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));

const KINDS: Record<string, Pick<Recipe, "x" | "dy"> & { map?: (value: number) => number }> = {
  "N(0, 1), dy N(0, 1)": { x: bell, dy },
  "after a ReLU": { x: bell, dy, map: (v) => Math.max(v, 0) },
  "after a GELU": { x: bell, dy, map: gelu },
  "bytes / 255": {
    x: { kind: "bell", offset: 128, scale: 64 },
    dy,
    map: (v) => Math.round(Math.min(255, Math.max(0, v))) / 255,
  },
  "10 % zeros": { x: bell, dy, map: (v) => (Math.abs(v) < 0.1257 ? 0 : v) },
  "mean 3": { x: { kind: "bell", offset: 3 }, dy },
  "mean 100": { x: { kind: "bell", offset: 100 }, dy },
  "mean 40, spread 0.17": { x: { kind: "bell", offset: 40, scale: 0.17 }, dy },
  "mean 100,000": { x: { kind: "bell", offset: 1e5 }, dy },
  "an outlier of 30": { x: { kind: "bell", spikes: [[5, 1, 30]] }, dy },
  "two values": { x: { kind: "runs", values: [0, 1], lengths: [3, 4] }, dy },
  "all equal": { x: { kind: "runs", values: [0.5] }, dy },
  "dy N(1, 1)": { x: bell, dy: { ...dy, offset: 1 } },
  "dy 1": { x: bell, dy: { kind: "runs", values: [1] } },
  "dy 0": { x: bell, dy: { kind: "runs", values: [0] } },
  "dy the same as xhat": { x: bell, dy: { kind: "xhat" } },
};

for (const [rows, cols] of SHAPES) {
  const problem = problemOf(rows, cols);
  problem.weight.fill(1);
  problem.bias.fill(0);
  const { placed, forward, backward } = kernelCalls(problem);
  const earlier = earlierCalls(problem, placed);
  const keep = [placed, earlier]; // Tensors whose addresses are used
  const { x, dy, y, dx, dweight, dbias } = placed.tensors;
  const runners = Object.entries(KINDS).flatMap(([name, { map, ...kind }]) => {
    const input = inputOf({ norm: "layerNorm", rows, cols, eps: problem.eps, ...kind });
    if (map) input.x.set(input.x.map(map));
    const prepare = () => {
      x.data.set(input.x);
      dy.data.set(input.dy!);
      forward();
    };
    prepare();
    for (const sum of [dweight, dbias]) sum.data.fill(0);
    backward();
    const off = beyond({ y: y.data, dx: dx.data, dweight: dweight.data, dbias: dbias.data }, input);
    if (Object.keys(off).length > 0) throw new Error(`${name}: off by units: ${JSON.stringify(off)}`);
    return [forward, earlier.forward, backward, earlier.backward].map((call) => ({
      prepare,
      call: repeat(call),
      keep,
    }));
  });
  const best = (await race(runners, TIMES)).map(([fastest]) => fastest!);
  console.log(`\nNode ${process.version}, ${rows} x ${cols}${" ".repeat(14)}forward   earlier  backward   earlier`);
  for (const [kind, name] of Object.keys(KINDS).entries()) {
    const [forward, before, backward, beforeThat] = best.slice(4 * kind) as [number, number, number, number];
    const ratios = [forward / best[0]!, before / forward, backward / best[2]!, beforeThat / backward];
    console.log(`${name.padEnd(24)}${ratios.map((ratio) => ratio.toFixed(2).padStart(10)).join("")}`);
  }
}
