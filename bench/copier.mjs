// The second thread of the contender "copy, 2 threads": copies its half each time the caller gives it the turn.
//
// Each of two words has one writer: the caller the first, this thread the second. A thread that waits looks for a moment and
// then sleeps. Two threads that only looked could be put on one core, and stand in each other's way for milliseconds a call.

import { parentPort, workerData } from "node:worker_threads";

const LOOKS = 2000; // some 10 microseconds

/** Until the word is `turn`. No wake-up is lost, as `wait` compares the word with what is waited on before it sleeps. */
export function until(words, index, turn) {
  for (let look = 0; look < LOOKS && Atomics.load(words, index) !== turn; look++);
  Atomics.wait(words, index, 1 - turn);
}

export function set(words, index, turn) {
  Atomics.store(words, index, turn);
  Atomics.notify(words, index);
}

if (workerData?.job) {
  const { module, memory, job } = workerData;
  const { copy } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const words = new Int32Array(memory.buffer, 0, 2);
  parentPort.postMessage("ready");
  for (let turn = 1; ; turn = 1 - turn) {
    until(words, 0, turn);
    copy(...job);
    set(words, 1, turn);
  }
}
