// The parts of bench/ that decide whether its figures are right, and whether it ends.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import { race } from "../bench/race.js";

const folder = fileURLToPath(new URL("../bench", import.meta.url));

test("no file of the bench imports itself, by way of others", () => {
  const files = readdirSync(folder).filter((file) => /\.(ts|mjs)$/.test(file));
  const imported = (file: string) =>
    [...readFileSync(join(folder, file), "utf8").matchAll(/from "\.\/([\w-]+)\.(m?)js"/g)].map(
      ([, name, kind]) => `${name}.${kind ? "mjs" : "ts"}`,
    );
  // Files that import none of those left go first. What never goes is in a circle, or imports one that is.
  let left = files;
  for (const _ of files) left = left.filter((file) => imported(file).some((name) => left.includes(name)));
  expect(left).toEqual([]);
});

/** What a contender is called with while each call lasts as long as `lasts` says, by a clock of its own. */
async function callsOf(lasts: (turn: number) => number): Promise<number[]> {
  let time = 0;
  const turns: number[] = [];
  const clock = vi.spyOn(performance, "now").mockImplementation(() => time);
  const call = (calls: number) => {
    time += lasts(turns.length) * calls;
    turns.push(calls);
    return undefined;
  };
  await race([{ call }], { rounds: 25, roundMs: 8 }).finally(() => clock.mockRestore());
  return turns;
}

test("a contender whose first turn was disturbed still takes rounds of 8 ms", async () => {
  const turns = await callsOf((turn) => (turn === 0 ? 20 : 0.125));
  expect(turns.slice(-25)).toEqual(Array(25).fill(64));
});

test("a contender that has become slow since its calls were counted takes three rounds", async () => {
  const turns = await callsOf((turn) => (turn < 8 ? 0.125 : 40));
  expect(turns).toEqual([1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64]);
});

test("a thread of the bench sleeps while it waits for the other", () => {
  const source = `import { Worker } from "node:worker_threads";
import { until } from ${JSON.stringify(join(folder, "copier.mjs"))};
const words = new Int32Array(new SharedArrayBuffer(8));
const other = \`const { workerData } = require("node:worker_threads");
setTimeout(() => { Atomics.store(workerData, 0, 1); Atomics.notify(workerData, 0); }, 1000);\`;
new Worker(other, { eval: true, execArgv: [], workerData: words });
const { user } = process.cpuUsage();
until(words, 0, 1);
console.log(process.cpuUsage().user - user);`;
  const args = ["--input-type=module", "-e", source];
  // Microseconds of both threads. One that looked all the time would take a million.
  expect(Number(execFileSync(process.execPath, args, { encoding: "utf8", timeout: 30_000 }))).toBeLessThan(250_000);
});
