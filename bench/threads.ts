// npm run bench:threads: one call of 768 columns on two threads beside one, the lower quartile in microseconds, as other
// work only ever adds. Awake: calls follow one another.
// Asleep: half a millisecond lies between them, in which threads fall asleep. What it takes to hand over a job, and from which size
// that is worth it, is in WORTH of src/threads.ts.

import { LayerNorm, Tensor } from "../dist/index.js";
import { createThreadedRuntime } from "../dist/threads.js";

const COLS = 768;
const ROWS = [43, 64, 86, 128, 256, 512, 768, 1024, 1536];
const PAUSE_MS = 0.5;
const ROUNDS = 300;
const IN_A_ROW = 20;

const runtimes = [await createThreadedRuntime({ threads: 1 }), await createThreadedRuntime({ threads: 2 })];
console.log(
  `Node ${process.version}: one call of rows x ${COLS}, lower quartile in microseconds on 1 and 2 threads, and how many × as long 1 takes\n`,
);
for (const pass of ["forward", "backward"] as const) {
  for (const rows of ROWS) {
    const calls = runtimes.map((runtime) => {
      const ln = new LayerNorm(COLS, { runtime });
      const values = Float32Array.from({ length: rows * COLS }, (_, i) => Math.sin(i));
      const x = new Tensor([rows, COLS], values, { runtime });
      const dy = new Tensor([rows, COLS], values.map(Math.cos), { runtime });
      const out = new Tensor([rows, COLS], undefined, { runtime });
      ln.forward(x, { out });
      return pass === "forward" ? () => ln.forward(x, { out }) : () => ln.backward(dy, { out });
    });
    const cells = [false, true].map((asleep) => {
      const times: number[][] = calls.map(() => []);
      for (let round = 0; round < (asleep ? ROUNDS : ROUNDS / 3); round++) {
        for (const [i, call] of calls.entries()) {
          for (let k = 0; k < (asleep ? 1 : IN_A_ROW); k++) {
            const pause = performance.now() + PAUSE_MS;
            while (asleep && performance.now() < pause);
            const start = performance.now();
            call();
            times[i]!.push((performance.now() - start) * 1000);
          }
        }
      }
      const [one, two] = times.map((list) => list.sort((a, b) => a - b)[list.length >> 2]!) as [number, number];
      return `${one.toFixed(1).padStart(9)}${two.toFixed(1).padStart(9)}${(one / two).toFixed(2).padStart(7)}`;
    });
    console.log(`${`${pass} ${rows}`.padEnd(14)}awake${cells[0]}    asleep${cells[1]}`);
  }
}
for (const runtime of runtimes) await runtime.close();
