// Speed: our kernels and module beside the limits of the memory and beside others, one thread, float32.
//
//   npm run bench                              the shapes that the goals are about, and the goals
//   npm run bench -- --all                     every shape
//   npm run bench -- --shape 1024x768,16x64    these
//   npm run bench -- --only kernel,copy        contenders whose names have one of these in them
//   npm run bench -- --json                    the results as JSON on standard output, the tables on standard error
//   npm run bench -- --save NAME               results as bench/results/NAME.json, and pictures of them (chart.ts)
//
// Each contender is first verified against the float64 reference, then timed in rounds in which all take turns. See README.md.

import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { LayerNorm } from "../dist/index.js";
import { normal } from "../test/helpers.js";
import { referenceBackward, referenceForward, UNIT } from "../test/reference.js";
import { draw } from "./chart.js";
import { CONTENDERS, type Contender, type Entry, type Pass, type Problem, variant, type Work } from "./contenders.js";
import { type Goal, goals, reached } from "./goals.js";

export interface Result {
  rows: number;
  cols: number;
  pass: Pass;
  name: string;
  /** Our kernel that does the same work. */
  ours: string;
  /** Milliseconds of a call: the fastest round, the median, and how far the middle half of the rounds is apart, of the median. */
  best: number;
  median: number;
  spread: number;
  /** Of the fastest round, each tensor counted once: x and y, with a residual that and the sum; x, dy and dx; what a limit reads and writes. */
  gigabytes: number;
}

/** What is saved of a run. */
export interface Report {
  date: string;
  node: string;
  cpu: string | undefined;
  /** Of the contenders that have one. */
  versions: Record<string, string>;
  results: Result[];
  goals: Goal[];
}

const GOAL_SHAPES = [
  ...["1x768", "16x768", "128x768", "1024x768", "8192x768", "1024x1024", "1024x2048", "1024x4096"],
  ...[
    "1x16",
    "1x64",
    "128x128",
    "64x256",
    "65536x256",
    "65536x768",
    "4096x4096",
    "2048x8192",
    "4096x8",
    "4096x16",
    "4096x32",
    "4096x64",
    "16384x64",
    "16384x128",
    "4096x256",
    "2048x4096",
  ],
];
const ROWS = [1, 16, 128, 1024, 8192, 65536];
const COLS = [64, 256, 768, 1024, 2048, 4096, 8192, 16384];
const ALL_SHAPES = ROWS.flatMap((rows) =>
  COLS.filter((cols) => rows * cols <= 2 ** 26).map((cols) => `${rows}x${cols}`),
);

const ROUNDS = 25;
const ROUND_MS = 8; // what a round of one contender lasts at least
const MOST_CALLS = 32_768;
const SLOW_MS = 100; // a call from which a contender takes three rounds
const EPS = 1e-5;
// What rivals are verified to, in units of 2^-23 of the largest value: some sum in float32, on up to 16384 columns.
const LIMIT = 2000;

const { values: options } = parseArgs({
  options: {
    shape: { type: "string" },
    only: { type: "string" },
    all: { type: "boolean" },
    json: { type: "boolean" },
    save: { type: "string" },
  },
});
const print = options.json ? console.error : console.log;
const shapes = options.shape?.split(",") ?? (options.all ? ALL_SHAPES : GOAL_SHAPES);
const wanted = options.only?.split(",");
const missing = new Map<string, string>();
const versions: Record<string, string> = {};
const results: Result[] = [];

print(`${new Date().toISOString().slice(0, 10)}, Node ${process.version}, ${process.arch}, ${cpus()[0]?.model}\n`);
print(`${dataLoop()}\n`); // first, as in a program of its own
for (const [i, shape] of shapes.entries()) {
  const [rows, cols] = shape.split("x").map(Number);
  if (!rows || !cols) throw new Error(`${shape}: expected rows x cols, as in 1024x768`);
  const size = rows * cols;
  const problem: Problem = {
    rows,
    cols,
    x: normal(size, 1),
    dy: normal(size, 2),
    weight: normal(cols, 3, 1, 0.5),
    bias: normal(cols, 4),
    eps: EPS,
  };
  for (const pass of ["forward", "backward"] as const) {
    const found = await measure(problem, pass, `${i + 1}/${shapes.length} ${shape} ${pass}`);
    if (found.length > 0) table(found);
    results.push(...found);
  }
}
for (const [name, version] of Object.entries(versions)) print(`${name}: ${version}`);
for (const [name, reason] of missing) print(`without ${name}: ${reason}`);
const met = wanted ? [] : goals(results);
if (met.length > 0) {
  print(`\nGoals, as ratios of times in this run\n`);
  for (const goal of met) {
    const name = `${goal.pass}, ${goal.goal}`.padEnd(104);
    print(`${reached(goal) ? "✓" : "✗"} ${name} ${goal.got.toFixed(2).padStart(8)}   ${goal.bound} ${goal.limit}`);
  }
}
const report: Report = {
  date: new Date().toISOString(),
  node: process.version,
  cpu: cpus()[0]?.model,
  versions,
  results,
  goals: met,
};
if (options.json) console.log(JSON.stringify(report, null, 2));
if (options.save) {
  writeFileSync(new URL(`results/${options.save}.json`, import.meta.url), `${JSON.stringify(report, null, 2)}\n`);
  draw(options.save);
}
process.exit(0);

/** All contenders of a pass on one problem. */
async function measure(problem: Problem, pass: Pass, progress: string): Promise<Result[]> {
  const { rows, cols } = problem;
  const size = rows * cols;
  const entries: { contender: Contender; entry: Entry; calls: number; rounds: number; times: number[] }[] = [];
  const references = new Map<string, Float64Array>();
  for (const contender of CONTENDERS) {
    if (contender.pass !== pass || size > (contender.most ?? Infinity)) continue;
    if (wanted && !wanted.some((part) => contender.name.includes(part))) continue;
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progress}: ${contender.name}`);
    try {
      const entry = await contender.prepare(problem);
      if (contender.version) versions[contender.name] ??= await contender.version();
      await entry.call(1);
      const result = await entry.result();
      const work = JSON.stringify([contender.work?.rms, contender.work?.residual].map(Boolean));
      if (!references.has(work)) references.set(work, reference(problem, pass, contender.work));
      if (result) verify(result, references.get(work)!, `${contender.name}, ${progress}`);
      // Twice as many calls each time, until they last a round: a first call is not compiled yet, and takes far longer.
      let calls = 1;
      let each = Infinity;
      for (; ; calls *= 2) {
        const start = performance.now(); // of the wall: a contender's own clock may leave out most of a call
        await entry.call(calls);
        each = (performance.now() - start) / calls;
        if (calls * each >= ROUND_MS || calls >= MOST_CALLS) break;
      }
      entries.push({ contender, entry, calls, rounds: each > SLOW_MS ? 3 : ROUNDS, times: [] });
    } catch (error) {
      missing.set(contender.name, (error as Error).message.split("\n")[0] ?? "");
    }
  }
  for (let round = 0; round < ROUNDS; round++) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progress}: round ${round + 1} of ${ROUNDS}`);
    for (const { entry, calls, rounds, times } of entries) if (round < rounds) times.push(await timed(entry, calls));
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  for (const { entry } of entries) await entry.end?.();
  return entries.map(({ contender, entry, times }) => {
    const sorted = (entry.times?.() ?? times).sort((a, b) => a - b);
    const at = (rank: number) => sorted[Math.round(rank * (sorted.length - 1))]!;
    const forward = contender.work?.residual ? 4 : 2;
    const tensors =
      contender.name === "read" ? 1 : contender.name.startsWith("copy") ? 2 : pass === "forward" ? forward : 3;
    const gigabytes = (tensors * size * 4) / at(0) / 1e6;
    return {
      rows,
      cols,
      pass,
      name: contender.name,
      ours: `kernel${variant(contender.work)}`,
      best: at(0),
      median: at(0.5),
      spread: (at(0.75) - at(0.25)) / at(0.5),
      gigabytes,
    };
  });
}

/** Milliseconds of one call, over so many. */
async function timed(entry: Entry, calls: number): Promise<number> {
  const start = performance.now();
  const own = await entry.call(calls);
  return own ?? (performance.now() - start) / calls;
}

/** y or dx in float64. */
function reference(problem: Problem, pass: Pass, { rms, residual }: Work = {}): Float64Array {
  const x = residual ? problem.x.map((value, i) => value + problem.dy[i]!) : problem.x;
  const input = { ...problem, x, ...(rms && { norm: "rmsNorm" as const, bias: null }) };
  return pass === "forward" ? referenceForward(input).y : referenceBackward(input).dx;
}

function verify(got: Float32Array, reference: Float64Array, what: string): void {
  let largest = 0;
  let furthest = 0;
  for (let i = 0; i < reference.length; i++) {
    largest = Math.max(largest, Math.abs(reference[i]!));
    const off = Math.abs(got[i]! - reference[i]!);
    if (!(off <= furthest)) furthest = off;
  }
  if (!(furthest <= LIMIT * UNIT * largest)) throw new Error(`${what} is ${furthest} off the reference`);
}

function table(found: Result[]): void {
  const [{ rows, cols, pass }] = found as [Result];
  const width = 2 + Math.max(...found.map(({ name }) => name.length));
  const line = (name: string, cells: string[]) => print(name.padEnd(width) + cells.map((c) => c.padStart(10)).join(""));
  print(`\n${pass}, ${rows} x ${cols}`);
  line("", ["GB/s", "ms", "median", "spread", "× as long"]);
  for (const { name, ours, best, median, spread, gigabytes } of found) {
    const own = found.find(({ name }) => name === ours);
    const cells = [gigabytes.toFixed(1), best.toPrecision(3), median.toPrecision(3), `${(100 * spread).toFixed(0)} %`];
    line(name, [...cells, own ? (best / own.best).toFixed(2) : ""]);
  }
}

/** How a loop over the live data of a parameter compares with one over an array. */
function dataLoop(): string {
  const cols = 768;
  const { weight } = new LayerNorm(cols);
  const array = new Float32Array(cols);
  const gradient = new Float32Array(cols);
  const live = () => {
    for (let i = 0; i < cols; i++) weight.data[i]! -= 0.01 * weight.grad[i]!;
  };
  const local = () => {
    for (let i = 0; i < cols; i++) array[i]! -= 0.01 * gradient[i]!;
  };
  const best = [Infinity, Infinity];
  for (let round = 0; round < 4 * ROUNDS; round++) {
    for (const [k, loop] of [live, local].entries()) {
      const start = performance.now();
      for (let call = 0; call < 200; call++) loop();
      best[k] = Math.min(best[k]!, performance.now() - start);
    }
  }
  return `p.data[i] -= rate * p.grad[i] in a loop: ${(best[0]! / best[1]!).toFixed(2)} × as long as over local arrays`;
}
