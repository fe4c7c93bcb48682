// npm run bench:rows: what kinds of rows cost, as times of N(0, 1) rows of the same shape. Each result is first verified
// against float64.

import { LayerNorm, Tensor } from "../dist/index.js";
import { inputOf, LIMITS, type Pattern, type Recipe } from "../test/recipe.js";
import { errorsOf } from "../test/reference.js";

const SHAPES = [
  [1024, 768],
  [4096, 64],
] as const;
const ROUNDS = 40;
const EPS = 1e-5;
const bell: Pattern = { kind: "bell" };
const dy: Pattern = { kind: "bell", seed: 2 };

const KINDS: Record<string, Pick<Recipe, "x" | "dy">> = {
  "N(0, 1), dy N(0, 1)": { x: bell, dy },
  "mean 40, spread 0.17": { x: { kind: "bell", offset: 40, scale: 0.17 }, dy },
  "mean 10,000 times the spread": { x: { kind: "bell", offset: 1e4 }, dy },
  "an outlier of 30": { x: { kind: "bell", spikes: [[5, 1, 30]] }, dy },
  "two values": { x: { kind: "runs", values: [0, 1], lengths: [3, 4] }, dy },
  "all equal": { x: { kind: "runs", values: [0.5] }, dy },
  "dy N(1, 1)": { x: bell, dy: { ...dy, offset: 1 } },
  "dy 1": { x: bell, dy: { kind: "runs", values: [1] } },
  "dy the same as xhat": { x: bell, dy: { kind: "xhat" } },
};

for (const [rows, cols] of SHAPES) {
  const calls = Object.values(KINDS).map((kind) => {
    const input = inputOf({ norm: "layerNorm", rows, cols, eps: EPS, ...kind });
    const ln = new LayerNorm(cols, { eps: EPS });
    const tensor = (values?: Float32Array) => new Tensor([rows, cols], values);
    const [x, dy, y, dx] = [tensor(input.x), tensor(input.dy), tensor(), tensor()];
    const forward = () => void ln.forward(x, { out: y });
    const backward = () => void ln.backward(dy, { out: dx });
    forward();
    backward();
    const results = { y: y.data, dx: dx.data, dweight: ln.weight.grad, dbias: ln.bias.grad };
    for (const [name, units] of Object.entries(errorsOf(results, input)))
      if (!(units <= LIMITS[name as keyof typeof LIMITS])) throw new Error(`${name} is off by ${units} units`);
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
