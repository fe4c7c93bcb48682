/**
 * How a host starts a thread: with `Worker`, or in Node with `worker_threads`.
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

/** What is used here of Node, in words of its own, so that the types need no library of Node's. */
interface NodeHost {
  getBuiltinModule?(name: "node:worker_threads"): { Worker?: new (file: URL, options: { execArgv: [] }) => NodeWorker };
  getBuiltinModule?(name: "node:os"): { availableParallelism(): number };
}

interface NodeWorker extends Thread {
  on(event: "message", listen: () => void): void;
  on(event: "error", listen: (error: Error) => void): void;
  on(event: "exit", listen: (code: number) => void): void;
  postMessage(start: Start): void;
}

/** Modules of Node are asked for at run time, so that no bundler looks for them. */
const node = (globalThis as { process?: NodeHost }).process;
// Bun has it, too, but there only a thread of its own Worker lets the process end.
const nodeWorker = () => ("Bun" in globalThis ? undefined : node?.getBuiltinModule?.("node:worker_threads")?.Worker);

/**
 * @param ready called once the thread waits for jobs
 * @param failed called with the reason when it fails, or ends by itself
 */
export function spawn(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  return nodeWorker() ? spawnNode(start, ready, failed) : spawnWorker(start, ready, failed);
}

function spawnWorker(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.addEventListener("message", ready);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    failed(event.message || NOT_LOADED);
  });
  worker.postMessage(start);
  return worker;
}

function spawnNode(start: Start, ready: () => void, failed: (reason: string) => void): Thread {
  const Worker = nodeWorker() as NonNullable<ReturnType<typeof nodeWorker>>;
  const here = import.meta.url; // bundlers look for the pattern above once, and would copy the file for a second one
  // Not the options of this process: some, as --input-type, are errors in a worker.
  const worker = new Worker(new URL("./worker.js", here), { execArgv: [] });
  worker.on("message", ready);
  worker.on("error", ({ message }) => failed(message));
  worker.on("exit", (code) => failed(`it ended with ${code}`));
  worker.postMessage(start);
  return worker;
}

/** Why there can be no threads here, if there can't. */
export function obstacle(): string | undefined {
  if (nodeWorker() || typeof Worker === "function") return undefined;
  return "this host has no Worker";
}

/** How many threads run at a time. */
export function cores(): number {
  return (
    node?.getBuiltinModule?.("node:os")?.availableParallelism() ?? (globalThis.navigator?.hardwareConcurrency || 1)
  );
}
