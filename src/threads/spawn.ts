/**
 * How a host starts a thread: with `Worker`, or in Node with `worker_threads`.
 * @module
 */

import type { Start } from "./job.js";

/** What is used here of a worker, a page's or Node's. Declared so that the types need no library of theirs. */
export interface AnyWorker {
  postMessage(message: unknown): void;
  /** Ends it at once. */
  terminate(): unknown;
}

/** Where worker.js is, or what makes a worker of it. */
export type WorkerSource = string | { readonly href: string } | (() => AnyWorker);

/** @internal */
export interface Thread extends AnyWorker {
  /** Whether it keeps the process alive. */
  ref?(): unknown;
  unref?(): unknown;
}

interface NodeWorker extends Thread {
  on(event: "message", listen: () => void): void;
  on(event: "error", listen: (error: Error & { code?: string }) => void): void;
  on(event: "exit", listen: (code: number) => void): void;
}

/** What is used here of Node, in words of its own, so that the types need no library of Node's. */
interface NodeHost {
  getBuiltinModule?(name: "node:worker_threads"): {
    Worker?: new (file: URL | string, options: { execArgv: [] }) => NodeWorker;
  };
  getBuiltinModule?(name: "node:os"): { availableParallelism(): number };
}

const CURE =
  'give createThreadedRuntime the option worker, the URL of a copy of "layernorm-wasm/worker.js" or a function that makes a Worker of it';
const NOT_LOADED = `worker.js was not loaded; it must lie beside the code (esbuild and Rollup: an entry point "layernorm-wasm/worker.js" of its own; the development server of Vite before 8: optimizeDeps: { exclude: ["layernorm-wasm"] }), and its response needs the header "Cross-Origin-Embedder-Policy: require-corp", as the page's does; or ${CURE}`;

/** Modules of Node are asked for at run time, so that no bundler looks for them. */
const node = (globalThis as { process?: NodeHost }).process;
// Bun has it, too, but there only a thread of its own Worker lets the process end.
const nodeWorker = () => ("Bun" in globalThis ? undefined : node?.getBuiltinModule?.("node:worker_threads")?.Worker);

/** Whether this host has workers. @internal */
export function hasWorkers(): boolean {
  return typeof Worker === "function" || nodeWorker() !== undefined;
}

/**
 * @param ready called once the thread waits for jobs
 * @param failed called with the reason when it fails, or ends by itself @internal
 */
export function spawn(
  source: WorkerSource | undefined,
  start: Start,
  ready: () => void,
  failed: (reason: string) => void,
): Thread {
  const worker = (typeof source === "function" ? source() : construct(source)) as NodeWorker | Worker;
  if ("on" in worker) {
    worker.on("message", ready);
    worker.on("error", ({ message, code }) =>
      failed(/MODULE_NOT_FOUND/.test(code ?? "") ? `${message}; ${CURE}` : message),
    );
    worker.on("exit", (code) => failed(`it ended with ${code}`));
  } else {
    worker.addEventListener("message", ready);
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      failed(event.message || NOT_LOADED);
    });
  }
  worker.postMessage(start);
  return worker;
}

function construct(file: string | { readonly href: string } | undefined): AnyWorker {
  const here: string | undefined = import.meta.url; // see below
  if (file === undefined && !here)
    throw new Error(`this bundle doesn't know where it is, as it has no import.meta.url; ${CURE}`);
  const NodeWorker = nodeWorker();
  if (NodeWorker) {
    // As URLs, where they are: Node takes a string for a path.
    const place = file ?? new URL("./worker.js", here);
    try {
      // Not the options of this process: some, as --input-type, are errors in a worker.
      return new NodeWorker(/^\w{2,}:/.test(String(place)) ? new URL(String(place)) : String(place), {
        execArgv: [],
      });
    } catch (error) {
      // In a renderer of Electron there are both, and Node's don't work.
      if (typeof Worker !== "function") throw error;
    }
  }
  if (file !== undefined) return new Worker(file as URL | string, { type: "module" });
  // Bundlers look for this pattern, and would copy the file once more for a second one.
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}

/** How many threads run at a time. @internal */
export function cores(): number {
  return (
    node?.getBuiltinModule?.("node:os")?.availableParallelism() ?? (globalThis.navigator?.hardwareConcurrency || 1)
  );
}
