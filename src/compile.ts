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

/** Whether there is something to wait for before a module can be compiled. @internal */
export function isLater(source: unknown): source is LaterModuleSource {
  return typeof (source as PromiseLike<unknown> | undefined)?.then === "function" || isResponse(source);
}

function isResponse(source: unknown): source is ResponseLike {
  return typeof (source as ResponseLike | undefined)?.arrayBuffer === "function";
}

/** That a source is of a kind that `compile` or `compileLater` takes. @internal */
export function checkSource(where: string, name: string, source: unknown): void {
  if (isModule(source) || source instanceof ArrayBuffer || ArrayBuffer.isView(source) || isLater(source)) return;
  wrongType(`${where}: ${name}`, source, "a WebAssembly.Module, its bytes, a Response, or a promise of one");
}

function bytesOf(source: unknown): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset = 0, byteLength } = source as ArrayBufferView;
  return new Uint8Array((buffer ?? source) as ArrayBuffer, byteOffset, byteLength);
}

/** A module at once, from one or from its bytes; `name` says which in an error. @internal */
export function compile(where: string, name: string, source: object): WebAssembly.Module {
  if (isModule(source)) return source as WebAssembly.Module;
  try {
    return new WebAssembly.Module(bytesOf(source));
  } catch (cause) {
    throw refusal(`${where}: ${name}`, cause as Error, bytesOf(source));
  }
}

/** The same without blocking, also from what is yet to arrive. @internal */
export async function compileLater(where: string, name: string, source: unknown): Promise<WebAssembly.Module> {
  let arrived = await source;
  if (isResponse(arrived)) {
    const { ok, status, url } = arrived;
    if (ok === false) throw new TypeError(`${where}: ${name}: ${url || "the request"} was answered with ${status}`);
    arrived = await arrived.arrayBuffer();
  }
  checkSource(where, name, arrived);
  if (isModule(arrived)) return arrived as WebAssembly.Module;
  const bytes = bytesOf(arrived);
  return WebAssembly.compile(bytes).catch((cause: Error) => {
    throw refusal(`${where}: ${name}`, cause, bytes);
  });
}

/** WebAssembly, where the engine has it. @internal */
export function supported(where: string): typeof WebAssembly {
  if (typeof WebAssembly === "object") return WebAssembly;
  throw new Error(`${where}: this engine has no WebAssembly, or it is turned off (iOS does so in lockdown mode)`);
}

const FORBIDDEN = `a page has to allow 'wasm-unsafe-eval' in the script-src of its Content-Security-Policy; an edge host's bundler has to resolve with the condition "workerd" or "edge-light", or to import "layernorm-wasm/layernorm.wasm" and "layernorm-wasm/heap.wasm" as modules, for Runtime.create({ module, heap })`;

/** What to do about an engine that didn't compile `bytes`, or without them, didn't link a module. @internal */
export function refusal(where: string, cause: Error, bytes?: BufferSource): Error {
  const { name, message } = cause;
  let advice = `may not be compiled here, ${message}; ${FORBIDDEN}`;
  if (name === "RangeError") {
    advice = `was not compiled, ${message}; on a page's main thread Chrome before 115 needs, before the first call, Runtime.default = await Runtime.create({ async: true })`;
  } else if (!bytes) {
    advice = `is no module of this package, ${message}`;
  } else if (!WebAssembly.validate(bytes)) {
    advice = `is no WebAssembly module to this engine, ${message}; if it is the right file, the engine is too old: it needs SIMD, as Chrome 91, Firefox 90, Safari 16.4 and Node 20 have it`;
  }
  return new Error(`${where} ${advice}`, { cause });
}
