// A thread of the contender "copy, 2 threads": copies its half each time the first word counts up, and then counts up the second. It
// looks for the next call for a millisecond before it sleeps, so that it is as ready as threads can be.

import { parentPort, workerData } from "node:worker_threads";

const { module, memory, job } = workerData;
const { copy } = new WebAssembly.Instance(module, { env: { memory } }).exports;
const words = new Int32Array(memory.buffer, 0, 2);
parentPort.postMessage("ready");
for (let calls = 0; ; calls++) {
  const until = performance.now() + 1;
  while (Atomics.load(words, 0) === calls && performance.now() < until);
  Atomics.wait(words, 0, calls);
  copy(...job);
  Atomics.add(words, 1, 1);
}
