/**
 * WebAssembly modules from all that one may be given as.
 * @module
 */

import { classOf, wrongType } from "./check.js";

/** The part of a `Response` of `fetch` that is used here. */
export interface ResponseLike {
  readonly ok: boolean;
  readonly status: number;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** A compiled `WebAssembly.Module`, or the bytes of one. Declared so that the types need no library of the DOM's. */
export type ModuleSource = object;

/** A module that is yet to arrive: a `Response`, or a promise of one, of bytes or of a `WebAssembly.Module`. */
export type LaterModuleSource = ResponseLike | PromiseLike<ModuleSource>;

/**
 * The bytes of an inlined binary, which `text` in scripts/build.mjs has written. A module that was imported in its
 * place is returned as it is. @internal
 */
export function inlined(binary: string | WebAssembly.Module): ModuleSource {
  if (typeof binary !== "string") return binary;
  const bytes: number[] = [];
  let more = 0;
  for (let i = 0; i < binary.length; i++) {
    const code = binary.charCodeAt(i);
    if (code < 35) more = (code - 31) * 92;
    else {
      bytes.push(code - 38 + more);
      more = 0;
    }
  }
  return Uint8Array.from(bytes);
}

function isModule(source: unknown): boolean {
  return classOf(source) === "WebAssembly.Module";
}

/** That a source is of a kind that `compile` or `arrived` takes. @internal */
export function checkSource(where: string, name: string, source: unknown): void {
  if (isModule(source) || source instanceof ArrayBuffer || ArrayBuffer.isView(source) || isLater(source)) return;
  wrongType(`${where}: ${name}`, source, "a WebAssembly.Module, its bytes, a Response, or a promise of one");
}

/** A module at once, from one or from its bytes; `name` says which in an error. @internal */
export function compile(where: string, name: string, source: unknown): WebAssembly.Module {
  const { Module } = supported(where);
  checkSource(where, name, source);
  if (isModule(source)) return source as WebAssembly.Module;
  const { buffer, byteOffset = 0, byteLength } = source as ArrayBufferView;
  const bytes = new Uint8Array((buffer ?? source) as ArrayBuffer, byteOffset, byteLength);
  try {
    return new Module(bytes);
  } catch (cause) {
    throw refusal(`${where}: ${name}`, bytes, cause as Error);
  }
}

/** Whether there is something to wait for before `compile`. @internal */
export function isLater(source: unknown): source is LaterModuleSource {
  const { then, arrayBuffer } = (source ?? {}) as { then?: unknown; arrayBuffer?: unknown };
  return typeof then === "function" || typeof arrayBuffer === "function";
}

/** Waits for a module, for `compile`. A Response of the right type is compiled while it arrives. @internal */
export async function arrived(where: string, name: string, source: unknown): Promise<unknown> {
  const value = await source;
  if (!isLater(value)) return value;
  const response = value as ResponseLike;
  if (!response.ok)
    throw new TypeError(`${where}: ${name}: ${response.url || "the request"} was answered with ${response.status}`);
  const { compileStreaming } = supported(where);
  if (!compileStreaming || response.headers.get("content-type") !== "application/wasm") return response.arrayBuffer();
  return compileStreaming(response as Response).catch((cause: Error) => {
    throw new Error(`${where}: ${name} was not compiled: ${cause.message}; if that is for a rule, ${FORBIDDEN}`, {
      cause,
    });
  });
}

/** WebAssembly, where the engine has it. @internal */
export function supported(where: string): typeof WebAssembly {
  if (typeof WebAssembly === "object") return WebAssembly;
  throw new Error(`${where}: this engine has no WebAssembly, or it is turned off (iOS does so in lockdown mode)`);
}

const FORBIDDEN = `a page has to allow 'wasm-unsafe-eval' in the script-src of its Content-Security-Policy; an edge host's bundler has to resolve with the condition "workerd" or "edge-light", or to import "layernorm-wasm/layernorm.wasm" and "layernorm-wasm/heap.wasm" as modules, for Runtime.create({ module, heap })`;

/** What to do about an engine that didn't compile `bytes`. */
function refusal(where: string, bytes: BufferSource, cause: Error): Error {
  const advice = WebAssembly.validate(bytes)
    ? `may not be compiled here: ${FORBIDDEN}`
    : `is no WebAssembly module to this engine, ${cause.message}; if it is the right file, the engine is too old: it needs SIMD, as Chrome 91, Firefox 90, Safari 16.4 and Node 20 have it`;
  return new Error(`${where} ${advice}`, { cause });
}
