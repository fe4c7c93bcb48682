/**
 * spawn.ts for Node.
 * @module
 */

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Start } from "./job.js";
import type { Thread } from "./spawn.js";

export function spawn(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  const worker = new Worker(new URL("./worker.js", import.meta.url));
  worker.on("message", ready);
  worker.on("error", ({ message }) => failed(message));
  worker.on("exit", (code) => failed(`it ended with ${code}`));
  worker.postMessage(start);
  return worker;
}

export function obstacle(): string | undefined {
  return undefined;
}

export function cores(): number {
  return availableParallelism();
}
