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

import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { LayerNorm } from "../dist/index.js";
import { referenceBackward, referenceForward, UNIT } from "../test/reference.js";
import { type Report, save } from "./chart.js";
import { CONTENDERS, type Contender, kernelFor } from "./contenders.js";
import { GOAL_SHAPES, goals, type Result, reached } from "./goals.js";
import { type Entry, PASSES, type Pass, type Problem, problemOf, type Work } from "./problem.js";
import { race, repeat, verify } from "./race.js";

const ROWS = [1, 16, 128, 1024, 8192, 65536];
const COLS = [64, 256, 768, 1024, 2048, 4096, 8192, 16384];
const ALL_SHAPES = ROWS.flatMap((rows) =>
  COLS.filter((cols) => rows * cols <= 2 ** 26).map((cols) => `${rows}x${cols}`),
);
// What rivals are verified to, of the largest value: some sum in float32, on up to 16384 columns.
const TOLERANCE = 2000 * UNIT;

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
const [date, cpu] = [new Date().toISOString(), cpus()[0]?.model];

if (shapes.length === 1) {
  const [shape] = shapes as [string];
  const [rows, cols] = shape.split("x").map(Number);
  if (!rows || !cols) throw new Error(`${shape}: expected rows x cols, as in 1024x768`);
  print(`${date.slice(0, 10)}, Node ${process.version}, ${process.arch}, ${cpu}\n`);
  print(`${await dataLoop()}\n`); // first, as in a program of its own
  const problem = problemOf(rows, cols);
  for (const pass of PASSES) {
    const found = await measure(problem, pass, `${shape} ${pass}`);
    if (found.length > 0) table(found);
    results.push(...found);
  }
} else {
  // Each shape in a process of its own: some contenders keep the memory that they had.
  for (const shape of shapes) {
    const own = ["--json", "--shape", shape, ...(options.only ? ["--only", options.only] : [])];
    try {
      const report = execFileSync(process.execPath, [...process.execArgv, process.argv[1] as string, ...own], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
        maxBuffer: 2 ** 26,
      });
      const part: Report = JSON.parse(report);
      Object.assign(versions, part.versions);
      results.push(...part.results);
    } catch (error) {
      const { signal, message } = error as Error & { signal?: string };
      missing.set(shape, signal ?? message);
      process.exitCode = 1;
    }
  }
}
for (const [name, version] of Object.entries(versions)) print(`${name}: ${version}`);
for (const [name, reason] of missing) print(`without ${name}: ${reason}`);
const met = wanted ? [] : goals(results);
if (met.length > 0) print("\nGoals, as ratios of times in this run\n");
for (const goal of met) {
  const name = `${goal.pass}, ${goal.goal}`.padEnd(104);
  print(`${reached(goal) ? "✓" : "✗"} ${name} ${goal.got.toFixed(2).padStart(8)}   ${goal.bound} ${goal.limit}`);
}
const report: Report = { date, node: process.version, cpu, versions, results, goals: met };
if (options.json) console.log(JSON.stringify(report, null, 2));
if (options.save && process.exitCode === undefined) save(options.save, report);
process.exit();

/** All contenders of a pass on one problem. */
async function measure(problem: Problem, pass: Pass, progress: string): Promise<Result[]> {
  const { rows, cols, x } = problem;
  const note = (what = "") => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${what && `${progress}: ${what}`}`);
  };
  const entries: { contender: Contender; entry: Entry }[] = [];
  const references: Record<string, Float64Array> = {};
  for (const contender of CONTENDERS) {
    const { name, only = pass, least = 0, most = 2 ** 24, work = {} } = contender;
    if (only !== pass || x.length < least || x.length > most || !(wanted?.some((part) => name.includes(part)) ?? true))
      continue;
    note(name);
    try {
      const entry = await contender.prepare(problem, pass, work);
      if (entry.version) versions[name] = entry.version;
      await entry.prepare?.();
      await entry.call(1);
      const result = await entry.result();
      const expected = () => (references[kernelFor(work)] ??= reference(problem, pass, work));
      if (result) verify(`${name}, ${progress}`, result, expected(), TOLERANCE);
      entries.push({ contender, entry });
    } catch (error) {
      missing.set(name, (error as Error).message.split("\n")[0] ?? "");
    }
  }
  const raced = await race(
    entries.map(({ entry }) => entry),
    { note },
  );
  note();
  for (const { entry } of entries) await entry.end?.();
  return entries.map(({ contender: { name, work, tensors }, entry }, i) => {
    const moved = tensors ?? (pass === "backward" ? 3 : work?.residual ? 4 : 2);
    const times = entry.times?.() ?? raced[i]!;
    const at = (rank: number) => times[Math.round(rank * (times.length - 1))]!;
    const [best, median, spread] = [at(0), at(0.5), (at(0.75) - at(0.25)) / at(0.5)];
    const gigabytes = (moved * x.length * 4) / best / 1e6;
    return { rows, cols, pass, name, ours: kernelFor(work), best, median, spread, gigabytes };
  });
}

/** y or dx in float64. */
function reference(problem: Problem, pass: Pass, { rms, residual }: Work): Float64Array {
  const x = residual ? problem.x.map((value, i) => value + problem.dy[i]!) : problem.x;
  const input = { ...problem, x, ...(rms && { norm: "rmsNorm" as const, bias: null }) };
  return pass === "forward" ? referenceForward(input).y : referenceBackward(input).dx;
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
async function dataLoop(): Promise<string> {
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
  const [[slow], [fast]] = (await race([{ call: repeat(live) }, { call: repeat(local) }])) as [[number], [number]];
  return `p.data[i] -= rate * p.grad[i] in a loop: ${(slow / fast).toFixed(2)} × as long as over local arrays`;
}
