// npm run bench:rows: what kinds of rows cost our kernel, as times of N(0, 1) rows of the same shape, and how long the
// kernel of 2026-11-21 takes beside it. Each result of ours is first verified against float64.

import { Tensor } from "../dist/index.js";
import { inputOf, type Pattern, type Recipe } from "../test/recipe.js";
import { beyond } from "../test/reference.js";
import { earlierKernels } from "./earlier.js";

const SHAPES = [
  [1024, 768],
  [16384, 64],
] as const;
const ROUNDS = 20;
const CALLS = 5;
const EPS = 1e-5;
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
  const tensor = (shape: number[]) => new Tensor(shape);
  const matrices = Array.from({ length: 4 }, () => tensor([rows, cols]));
  const vectors = Array.from({ length: 4 }, () => tensor([cols]));
  const stats = Array.from({ length: 2 }, () => tensor([rows]));
  const { kernels, memory } = matrices[0]!.runtime;
  const earlier = earlierKernels(memory);
  const workspace = tensor([
    Math.max(kernels.layerNormBackwardWorkspace(rows, cols), earlier.layerNormBackwardWorkspace(rows, cols)) / 4,
  ]);
  const at = (tensors: Tensor[]) => tensors.map(({ pointer }) => pointer) as [number, number, number, number];
  const [x, dy, y, dx] = at(matrices);
  const [weight, bias, dweight, dbias] = at(vectors);
  const [mean, rstd] = at(stats);
  vectors[0]!.data.fill(1);
  // biome-ignore format: a call a line
  const passes = [
    () => kernels.layerNormForward(y, 0, mean, rstd, x, 0, weight, bias, rows, cols, EPS),
    () => earlier.layerNormForward(y, mean, rstd, x, weight, bias, rows, cols, EPS),
    () => kernels.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, 0, rows, cols, workspace.pointer),
    () => earlier.layerNormBackward(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace.pointer),
  ] as const;
  const inputs = Object.values(KINDS).map(({ map, ...kind }) => {
    const input = inputOf({ norm: "layerNorm", rows, cols, eps: EPS, ...kind });
    if (map) input.x.set(input.x.map(map));
    return input;
  });
  const place = (kind: number): void => {
    matrices[0]!.data.set(inputs[kind]!.x);
    matrices[1]!.data.set(inputs[kind]!.dy!);
    passes[0]();
  };
  const best = inputs.map((input, kind) => {
    place(kind);
    for (const sum of vectors.slice(2)) sum.data.fill(0);
    passes[2]();
    const [dweight, dbias] = vectors.slice(2).map(({ data }) => data) as [Float32Array, Float32Array];
    const off = beyond({ y: matrices[2]!.data, dx: matrices[3]!.data, dweight, dbias }, input);
    if (Object.keys(off).length > 0) throw new Error(`off by units: ${JSON.stringify(off)}`);
    return passes.map(() => Infinity);
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of inputs.keys()) {
      place(kind);
      for (const pass of passes.keys()) {
        const start = performance.now();
        for (let call = 0; call < CALLS; call++) passes[pass]!();
        best[kind]![pass] = Math.min(best[kind]![pass]!, performance.now() - start);
      }
    }
  }
  console.log(`\nNode ${process.version}, ${rows} x ${cols}${" ".repeat(14)}forward   earlier  backward   earlier`);
  for (const [kind, name] of Object.keys(KINDS).entries()) {
    const [forward, before, backward, beforeThat] = best[kind]! as [number, number, number, number];
    const ratios = [forward / best[0]![0]!, before / forward, backward / best[0]![2]!, beforeThat / backward];
    console.log(`${name.padEnd(24)}${ratios.map((ratio) => ratio.toFixed(2).padStart(10)).join("")}`);
  }
}
