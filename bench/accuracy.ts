// How far each library is off, on the same float32 inputs: the table of the README.
//
// Units, and the limits that ours is held to, are those of test/reference.ts: forward with weight 1 and bias 0; backward
// with a weight, from the library's own statistics. eps is 1e-5. The inputs are those on which kernels of floats go wrong.

import { cpus } from "node:os";
import { layerNormBackward, layerNormWithStats } from "../src/index.js";
import { inputOf, type Pattern, type Recipe } from "../test/recipe.js";
import { errorsOf, LIMITS, type Results } from "../test/reference.js";
import { SHOWN } from "./contenders.js";
import { type Pass, type Problem, problemOf } from "./problem.js";

const ROWS = 16;
const COLS = [768, 4096];
const EPS = 1e-5;

const bells = { kind: "bell" } as const;
const outlier = (column: number, value: number): Pattern => ({ ...bells, spikes: [[column, 1, value]] });

const FORWARD: Record<string, Pattern> = {
  "N(0,1)": bells,
  "N(0,1) + 10^3": { ...bells, offset: 1e3 },
  "N(0,1) + 10^4": { ...bells, offset: 1e4 },
  "N(0,1) + 10^7": { ...bells, offset: 1e7 },
  "N(0,1), first element 10^4": outlier(0, 1e4),
  "N(0,1), one element 10^6": outlier(300, 1e6),
  "N(0,1), 256 elements 5000": { ...bells, spikes: [[100, 256, 5e3]] },
  "half 0, half 1.3": { kind: "runs", values: [1.3, 0], lengths: [384] },
  "64 of 1.037, 63 of -0.011": { kind: "runs", values: [1.0373228788375854, -0.010819167830049992], lengths: [64, 63] },
  "runs of four values": {
    kind: "runs",
    values: [3.3254449367523193, 4.677950859069824, 1.3376740217208862, -1.0524789094924927],
    lengths: [32, 32, 32, 31],
  },
  "0.006 + 10^-5 N(0,1)": { kind: "runs", values: [0.006], noise: 1e-5 },
  "0.006 + 10^-7 N(0,1)": { kind: "runs", values: [0.006], noise: 1e-7 },
  "0.006 and the float after it": { kind: "runs", values: [0.006, 0.006 + 4.66e-10] },
  "10^-6 N(0,1)": { ...bells, scale: 1e-6 },
  "10^18 N(0,1)": { ...bells, scale: 1e18 },
  "10^20 N(0,1)": { ...bells, scale: 1e20 },
  "3 10^37 N(0,1)": { ...bells, scale: 3e37 },
};

const ones: Pattern = { kind: "runs", values: [1] };
const weight: Pattern = { ...bells, seed: 3 };
type Inputs = Record<string, Partial<Recipe> & Pick<Recipe, "x">>;
const inputs: Inputs = Object.fromEntries(Object.entries(FORWARD).map(([name, x]) => [name, { x }]));
/** N(0, 1) as dy where none is said. */
const BACKWARD: Inputs = {
  ...inputs,
  "a constant dy of 6 10^36": { x: bells, dy: { kind: "runs", values: [6e36] }, weight: ones },
  "dy * weight to 10^40, x to 10^10": {
    x: { ...bells, scale: 1e10 },
    dy: { ...bells, scale: 1e30 },
    weight: { ...weight, scale: 1e10 },
  },
  "an outlier, dy of few values": {
    x: { kind: "runs", values: [0.7123, -0.71311], spikes: [[5, 1, 20]] },
    dy: { kind: "runs", values: [1.1, 1.1, -1.3, -0.7], lengths: [192] },
    weight: ones,
  },
  "64 rows of a constant dy": { x: bells, dy: { kind: "runs", values: [1.9402961730957031] }, rows: 64 },
  "64 equal rows": { x: { kind: "runs", values: [0.7, -1.9, 0.3] }, dy: { kind: "runs", values: [1.614] }, rows: 64 },
  "N(0,1), 65536 rows of 64": { x: bells, rows: 65536, cols: 64 },
};

const figure = (units: number | undefined) => {
  if (units === undefined) return "";
  if (units === Infinity) return "NaN";
  return units < 1e4 ? units.toPrecision(units < 10 ? 2 : 3) : units.toExponential(1);
};

/** Whoever gives some of the results of a problem. */
interface Rival {
  name: string;
  version: string;
  results(problem: Problem): Promise<Partial<Results>> | Partial<Results>;
}

const ours: Rival = {
  name: "layernorm-wasm",
  version: "this",
  results({ x, dy, weight, bias, cols, eps }) {
    const { y, mean, rstd } = layerNormWithStats(x, cols, weight, bias, eps);
    return { y, mean, rstd, ...layerNormBackward(dy, x, mean, rstd, weight, { eps }) };
  },
};

async function rivals(pass: Pass): Promise<Rival[]> {
  const found = [ours];
  for (const { name, prepare, library, only = pass } of SHOWN) {
    if (!library || only !== pass) continue;
    try {
      const first = await prepare(problemOf(1, 16), pass, {});
      await first.end?.();
      const results = async (problem: Problem) => {
        const entry = await prepare(problem, pass, {});
        const result = (await entry.result()) ?? [];
        const gradients = await entry.gradients?.();
        await entry.end?.();
        return pass === "forward" ? { y: result } : { dx: result, ...gradients };
      };
      found.push({ name, version: first.version ?? "", results });
    } catch (error) {
      console.log(`without ${name}: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  return found;
}

let missed = 0;

/** A table: for each input the units of each rival for each result, and whether ours is within its limits. */
async function compare(pass: Pass, names: (keyof Results)[], inputs: Inputs) {
  const contenders = await rivals(pass);
  const width = names.length === 1 ? 28 : 46;
  const print = (cells: string[]) => {
    const padded = cells.map((cell, i) => cell.padEnd(i === 0 ? 34 : width));
    console.log(padded.join("").trimEnd());
  };
  console.log(`\n${pass}, units off: ${names.join(", ")}, cols = ${COLS.join(" / ")}\n`);
  print(["input", ...contenders.map(({ name }) => name), "limits"]);
  print(["", ...contenders.map(({ version }) => version), names.map((name) => LIMITS.layerNorm[name]).join(", ")]);
  for (const [name, given] of Object.entries(inputs)) {
    const cells = contenders.map(() => [] as string[]);
    let good = true;
    for (const cols of given.cols ? [given.cols] : COLS) {
      const input = inputOf({ norm: "layerNorm", rows: ROWS, cols, eps: EPS, ...given });
      const { x, dy = x, rows } = input;
      const [weight, bias] = [input.weight ?? new Float32Array(cols).fill(1), new Float32Array(cols)];
      for (const [i, contender] of contenders.entries()) {
        const problem = { rows, cols, x: x.slice(), dy: dy.slice(), weight: weight.slice(), bias, eps: EPS };
        const results = Object.entries(await contender.results(problem));
        const wanted = results.filter(([name]) => names.includes(name as keyof Results));
        const errors = errorsOf(Object.fromEntries(wanted), input);
        const figures = names.map((name) => figure(errors[name])).filter(Boolean);
        cells[i]?.push(figures.join(", "));
        if (i === 0) good &&= names.every((name) => (errors[name] ?? Infinity) <= LIMITS.layerNorm[name]);
      }
    }
    if (!good) missed++;
    print([name, ...cells.map((units) => units.join(" / ")), good ? "✓" : "✗"]);
  }
}

console.log(`${new Date().toISOString().slice(0, 10)}, Node ${process.version}, ${cpus()[0]?.model}`);
await compare("forward", ["y"], inputs);
const dy = { ...bells, seed: 2 };
const backward = Object.entries(BACKWARD).map(([name, given]) => [name, { dy, weight, ...given }]);
await compare("backward", ["dx", "dweight", "dbias"], Object.fromEntries(backward));
console.log(missed === 0 ? "\nAll within their limits." : `\n${missed} beyond their limits.`);
process.exit(missed === 0 ? 0 : 1);
