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

const NOT_LOADED =
  'worker.js was not loaded; it must lie beside the code (esbuild and Rollup: an entry point "layernorm-wasm/worker.js" of its own), and its response needs the header "Cross-Origin-Embedder-Policy: require-corp", as the page\'s does';

/**
 * @param ready called once the thread waits for jobs
 * @param failed called with the reason when it fails, or ends by itself
 */
export function spawn(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.addEventListener("message", ready);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    failed(event.message || NOT_LOADED);
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
