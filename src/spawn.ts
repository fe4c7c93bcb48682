/**
 * How a host starts a thread: pages and other hosts with `Worker`. spawn.node.ts stands in for it in Node.
 * @module
 */

import type { Start } from "./job.js";

export interface Thread {
  /** Ends it at once. */
  terminate(): unknown;
  /** Whether it keeps the process alive. */
  ref?(): unknown;
  unref?(): unknown;
}

/**
 * @param ready called once the thread waits for jobs
 * @param failed called with the reason when it fails, or ends by itself
 */
export function spawn(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.addEventListener("message", ready);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    failed(event.message || "worker.js was not loaded");
  });
  worker.postMessage(start);
  return worker;
}

/** Why there can be no threads here, if there can't. */
export function obstacle(): string | undefined {
  if (typeof Worker !== "function") return "this host has no Worker";
  return undefined;
}

/** How many threads run at a time. */
export function cores(): number {
  return navigator.hardwareConcurrency || 1;
}
