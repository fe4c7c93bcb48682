/**
 * How a host starts a thread: with `Worker`, or in Node with `worker_threads`.
 * @module
 */

import { describe } from "../check.js";
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

const CURE = `give the option worker: where a copy of "layernorm-wasm/worker.js" is, or a function that makes a Worker of it`;
const NOT_LOADED = `worker.js was not loaded. It must lie beside the code: for esbuild and Rollup an entry point of its own, "layernorm-wasm/worker.js"; for the development server of Vite before 8, optimizeDeps: { exclude: ["layernorm-wasm"] }. Its response needs the header "Cross-Origin-Embedder-Policy: require-corp", as the page's does. Or ${CURE}`;

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
  if (typeof worker?.postMessage !== "function") {
    throw new TypeError(`the function worker gave ${describe(worker)}, expected a Worker`);
  }
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

function construct(given: string | { readonly href: string } | undefined): AnyWorker {
  const here: string | undefined = import.meta.url;
  if (given === undefined && !here)
    throw new Error(`the code doesn't know where it is, without import.meta.url; ${CURE}`);
  const NodeWorker = nodeWorker();
  if (NodeWorker) {
    const file = String(given ?? new URL("./worker.js", here));
    try {
      // Node takes a string for a path. Not the options of this process: some, as --input-type, are errors in a worker.
      return new NodeWorker(/^\w{2,}:/.test(file) ? new URL(file) : file, { execArgv: [] });
    } catch (error) {
      // In a renderer of Electron there are both kinds, and Node's can't be made.
      if (typeof Worker !== "function") throw error;
    }
  }
  if (given !== undefined) return new Worker(given as URL, { type: "module" });
  // Bundlers look for this pattern once, and would copy the file for a second one.
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}

/**
 * What `use` gives. Where it fails because of a Content-Security-Policy, the error says so: those of workers rarely do.
 * @internal
 */
export async function underPolicy<T>(use: () => Promise<T>): Promise<T> {
  let forbidden: string | undefined;
  const note = (event: Event) => {
    const { effectiveDirective, blockedURI } = event as SecurityPolicyViolationEvent;
    if (effectiveDirective === "worker-src") forbidden = blockedURI;
  };
  globalThis.addEventListener?.("securitypolicyviolation", note);
  try {
    return await use();
  } catch (cause) {
    await new Promise((resolve) => setTimeout(resolve)); // a violation is told of in a task of its own
    if (forbidden === undefined) throw cause;
    const cure = `its worker-src, or without one its script-src, has to allow ${forbidden}`;
    throw new Error(`the page's Content-Security-Policy forbids it; ${cure}`, { cause });
  } finally {
    globalThis.removeEventListener?.("securitypolicyviolation", note);
  }
}

/** How many threads run at a time. @internal */
export function cores(): number {
  return (
    node?.getBuiltinModule?.("node:os")?.availableParallelism() ?? (globalThis.navigator?.hardwareConcurrency || 1)
  );
}
