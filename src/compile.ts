/**
 * From what a WebAssembly module may come in, to the module.
 * @module
 */

import { describe } from "./check.js";

/** What a response of `fetch` has that is used here. */
export interface ResponseLike {
  readonly ok: boolean;
  readonly status: number;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** A compiled `WebAssembly.Module`, or the bytes of one. In words that need no library of the browser's. */
export type ModuleSource = object;

/** One that takes a while: a `Response`, or a promise of one, of bytes or of a module. */
export type LaterModuleSource = ResponseLike | PromiseLike<ModuleSource>;

/** The bytes that a string of hexadecimal digits stands for: brotli and gzip find in them what they would in the bytes. */
function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

/** A module at once, from one, from its bytes, or from those in hexadecimal; `name` says which in an error. @internal */
export function compile(where: string, name: string, source: unknown): WebAssembly.Module {
  const { Module } = supported(where);
  if (Object.prototype.toString.call(source) === "[object WebAssembly.Module]") {
    // A module of another realm, as that of an edge route in Next.js is, becomes one of this: the loader asks `instanceof`.
    return source instanceof Module ? source : Object.setPrototypeOf(source, Module.prototype);
  }
  let bytes = typeof source === "string" ? bytesOf(source) : source;
  if (ArrayBuffer.isView(bytes)) bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  else if (!(bytes instanceof ArrayBuffer)) {
    throw new TypeError(
      `${where}: ${name} is ${describe(source)}, expected a WebAssembly.Module, its bytes, a Response, or a promise of one`,
    );
  }
  try {
    return new Module(bytes as BufferSource);
  } catch (cause) {
    throw refusal(`${where}: ${name}`, bytes as BufferSource, cause);
  }
}

/** Whether there is something to wait for before `compile`. @internal */
export function isLater(source: unknown): source is LaterModuleSource {
  const { then, arrayBuffer } = (source ?? {}) as { then?: unknown; arrayBuffer?: unknown };
  return typeof then === "function" || typeof arrayBuffer === "function";
}

/** What `compile` takes, from what is yet to come; a Response of the right type is compiled while it arrives. @internal */
export async function arrived(where: string, name: string, source: unknown): Promise<unknown> {
  const value = await source;
  if (!isLater(value)) return value;
  const response = value as ResponseLike;
  if (!response.ok) throw new TypeError(`${where}: ${name}: ${response.url} answered ${response.status}`);
  const { compileStreaming } = supported(where);
  if (!compileStreaming || response.headers.get("content-type") !== "application/wasm") return response.arrayBuffer();
  return compileStreaming(response as Response).catch((cause: Error) => {
    throw new Error(`${where}: ${name} was not compiled: ${cause.message}; if that is for a rule, ${FORBIDDEN}`, {
      cause,
    });
  });
}

function supported(where: string): typeof WebAssembly {
  if (typeof WebAssembly === "object") return WebAssembly;
  throw new Error(`${where}: this engine has no WebAssembly, or it is turned off (iOS does so in lockdown mode)`);
}

const FORBIDDEN = `a page has to allow 'wasm-unsafe-eval' in the script-src of its Content-Security-Policy; an edge host's bundler has to resolve with the condition "workerd" or "edge-light", or to import "layernorm-wasm/layernorm.wasm" and "layernorm-wasm/heap.wasm" as modules, for Runtime.create({ module, heap })`;

/** What to do about an engine that didn't compile `bytes`. */
function refusal(where: string, bytes: BufferSource, cause: unknown): Error {
  const advice = WebAssembly.validate(bytes)
    ? `may not be compiled here: ${FORBIDDEN}`
    : "is no WebAssembly module to this engine, which needs SIMD: Chrome 91, Firefox 89, Safari 16.4, Node 16.4 or newer";
  return new Error(`${where} ${advice}`, { cause });
}
