// npm run bench:threads: one call of 768 columns on two threads beside one, the lower quartile in microseconds, as other
// work only ever adds. Awake: calls follow one another. Asleep: half a millisecond lies between them, in which threads fall
// asleep. What it takes to hand over a job, and from which size that is worth it, is in WORTH of src/threads/index.ts.

import { createThreadedRuntime } from "../dist/threads.js";
import { moduleCalls } from "./ours.js";
import { PASSES, problemOf } from "./problem.js";
import { race, repeat } from "./race.js";

const COLS = 768;
const ROWS = [43, 64, 86, 128, 256, 512, 768, 1024, 1536];
const PAUSE_MS = 0.5;

const runtimes = [await createThreadedRuntime({ threads: 1 }), await createThreadedRuntime({ threads: 2 })];
const what = "lower quartile in microseconds on 1 and 2 threads, and how many × as long 1 takes";
console.log(`Node ${process.version}: one call of rows x ${COLS}, ${what}\n`);

function pause(): void {
  for (const until = performance.now() + PAUSE_MS; performance.now() < until; );
}

for (const pass of PASSES) {
  for (const rows of ROWS) {
    const problem = problemOf(rows, COLS);
    const calls = runtimes.map((runtime) => repeat(moduleCalls(problem, pass, runtime)[pass]));
    const cells = [];
    for (const prepare of [undefined, pause]) {
      const runners = calls.map((call) => (prepare ? { call, prepare } : { call }));
      const times = await race(runners, prepare ? { rounds: 300, roundMs: 0 } : { rounds: 100, roundMs: 1 });
      const [one, two] = times.map((sorted) => 1000 * sorted[sorted.length >> 2]!) as [number, number];
      cells.push(`${one.toFixed(1).padStart(9)}${two.toFixed(1).padStart(9)}${(one / two).toFixed(2).padStart(7)}`);
    }
    console.log(`${`${pass} ${rows}`.padEnd(14)}awake${cells[0]}    asleep${cells[1]}`);
  }
}
for (const runtime of runtimes) await runtime.close();
