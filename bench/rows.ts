// npm run bench:rows: what kinds of rows cost, as times of N(0, 1) rows of the same shape. Each result is first verified
// against float64.

import { LayerNorm, Tensor } from "../dist/index.js";
import { inputOf, type Pattern, type Recipe } from "../test/recipe.js";
import { beyond } from "../test/reference.js";

const SHAPES = [
  [1024, 768],
  [16384, 64],
] as const;
const ROUNDS = 30;
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
  const calls = Object.values(KINDS).map(({ map, ...kind }) => {
    const input = inputOf({ norm: "layerNorm", rows, cols, eps: EPS, ...kind });
    if (map) input.x.set(input.x.map(map));
    const ln = new LayerNorm(cols, { eps: EPS });
    const tensor = (values?: Float32Array) => new Tensor([rows, cols], values);
    const [x, dy, y, dx] = [tensor(input.x), tensor(input.dy), tensor(), tensor()];
    const forward = () => void ln.forward(x, { out: y });
    const backward = () => void ln.backward(dy, { out: dx });
    forward();
    backward();
    const results = { y: y.data, dx: dx.data, dweight: ln.weight.grad, dbias: ln.bias.grad };
    const off = beyond(results, input);
    if (Object.keys(off).length > 0) throw new Error(`off by units: ${JSON.stringify(off)}`);
    return [forward, backward];
  });
  const best = calls.map(() => [Infinity, Infinity]);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [kind, passes] of calls.entries()) {
      for (const [pass, call] of passes.entries()) {
        const start = performance.now();
        call();
        best[kind]![pass] = Math.min(best[kind]![pass]!, performance.now() - start);
      }
    }
  }
  console.log(`\nNode ${process.version}, ${rows} x ${cols}${" ".repeat(20)}forward  backward`);
  for (const [kind, name] of Object.keys(KINDS).entries()) {
    const ratios = best[kind]!.map((time, pass) => (time / best[0]![pass]!).toFixed(2).padStart(10));
    console.log(`${name.padEnd(32)}${ratios.join("")}`);
  }
}
