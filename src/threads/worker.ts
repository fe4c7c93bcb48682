/**
 * A thread: computes its part of each job, and sleeps between them.
 * @module
 */

import type { Kernels } from "../kernels.js";
import { CLOSED, Control, JOBS, SLEEPERS, type Start, TICKETS, work } from "./job.js";

interface Port {
  addEventListener(type: "message", listen: (event: { data: Start }) => void): void;
  postMessage(message: string): void;
  close?(): void;
  start?(): void;
}

// How long a thread looks for the next job before it sleeps: it takes some 50 microseconds to wake it.
const AWAKE_MS = 0.1;

const port: Port =
  "postMessage" in globalThis
    ? (globalThis as unknown as Port)
    : (process.getBuiltinModule("node:worker_threads").parentPort as unknown as Port);

port.addEventListener("message", ({ data: { module, memory, pointer } }) => {
  const kernels = new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
  const control = new Control(memory.buffer, pointer);
  port.postMessage("ready");
  // Not at once: a thread that blocks here may keep its message.
  setTimeout(() => {
    serve(kernels, control);
    port.close?.();
  });
});
port.start?.();

function serve(kernels: Kernels, control: Control): void {
  const { words } = control;
  for (;;) {
    const jobs = Atomics.load(words, JOBS);
    if (Atomics.load(words, CLOSED)) return;
    work(kernels, control);
    const until = performance.now() + AWAKE_MS;
    while (Atomics.load(words, TICKETS) <= 0 && Atomics.load(words, JOBS) === jobs) {
      if (performance.now() < until) continue;
      Atomics.add(words, SLEEPERS, 1);
      Atomics.wait(words, JOBS, jobs);
      Atomics.sub(words, SLEEPERS, 1);
    }
  }
}
