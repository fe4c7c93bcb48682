/**
 * WebAssembly modules from all that one may be given as, linked to a memory.
 * @module
 */

import { bytesOf, classOf, hasBytes, wrongType } from "./check.js";
import type { LinearMemory } from "./memory.js";

/** A compiled `WebAssembly.Module`, or the bytes of one. Declared so that the types need no library of the DOM's. */
export type ModuleSource = object;

/** A module that is yet to arrive, as that of `WebAssembly.compileStreaming(fetch(url))`. */
export type LaterModuleSource = PromiseLike<ModuleSource>;

/** Reads a text that `textOf` in scripts/build.mjs has written, one number after the other; NaN at its end. */
function reader(text: string): () => number {
  let at = 0;
  return () => {
    let code = text.charCodeAt(at++);
    if (code < 35) code = (code - 31) * 92 + text.charCodeAt(at++);
    return (code + 218) % 256;
  };
}

/**
 * The bytes of an inlined binary, which `textsOf` in scripts/build.mjs has written. A module that was imported in its
 * place is returned as it is. @internal
 */
export function inlined(binary: string[] | WebAssembly.Module): ModuleSource {
  if (!Array.isArray(binary)) return binary;
  const [nextByte, nextVariable] = binary.map(reader) as [() => number, () => number];
  const bytes: number[] = [];
  let last = 0;
  for (let byte = nextByte(); byte >= 0; byte = nextByte()) {
    bytes.push(byte);
    if (byte >> 2 === 8 && last !== 4) bytes.push(nextVariable());
    last = byte;
  }
  return Uint8Array.from(bytes);
}

const isModule = (source: unknown): source is WebAssembly.Module => classOf(source) === "WebAssembly.Module";

/** Whether there is something to wait for before a module can be compiled. @internal */
export const isLater = (source: unknown): source is LaterModuleSource =>
  typeof (source as Partial<LaterModuleSource> | undefined)?.then === "function";

/** A source that is of a kind that `link` or `linkLater` takes. @internal */
export function checkSource<T>(where: string, source: T): T {
  if (isModule(source) || hasBytes(source) || isLater(source)) return source;
  wrongType(where, source, "a WebAssembly.Module, its bytes, or a promise, as of WebAssembly.compileStreaming");
}

/**
 * The exports of a module over a memory, at once.
 * @param where which module it is, for an error
 * @param source the module or its bytes @internal
 */
export function link<T>(where: string, source: object, memory: LinearMemory): T {
  try {
    const module = isModule(source) ? source : new WebAssembly.Module(bytesOf(source));
    return new WebAssembly.Instance(module, { env: { memory: memory as WebAssembly.Memory } }).exports as T;
  } catch (cause) {
    refuse(where, source, cause as Error);
  }
}

/** `link` without blocking, also for a module that is yet to arrive. @internal */
export async function linkLater<T>(where: string, source: unknown, memory: LinearMemory): Promise<T> {
  const arrived = checkSource(where, await source);
  try {
    const module = isModule(arrived) ? arrived : await WebAssembly.compile(bytesOf(arrived));
    return (await WebAssembly.instantiate(module, { env: { memory: memory as WebAssembly.Memory } })).exports as T;
  } catch (cause) {
    refuse(where, arrived, cause as Error);
  }
}

/** WebAssembly, where the engine has it. @internal */
export function supported(where: string): typeof WebAssembly {
  if (typeof WebAssembly === "object") return WebAssembly;
  throw new Error(`${where}: WebAssembly is missing or turned off, as in iOS in lockdown mode`);
}

const FORBIDDEN = `a page needs 'wasm-unsafe-eval' in the script-src of its Content-Security-Policy; an edge host needs the condition "workerd" or "edge-light", or imports of "layernorm-wasm/layernorm.wasm" and "layernorm-wasm/heap.wasm" for Runtime.create({ module, heap })`;

/** Says what to do about an engine that didn't compile or link a module. @internal */
export function refuse(where: string, source: unknown, cause: Error): never {
  const { name, message } = cause;
  let advice = `may not be compiled here, ${message}; ${FORBIDDEN}`;
  if (name === "RangeError") {
    advice = `was not compiled, ${message}; a page in Chrome before 115 needs Runtime.default = await Runtime.create({ async: true }) first`;
  } else if (isModule(source) || name === "LinkError" || name === "TypeError") {
    advice = `is no module of this package, ${message}`;
  } else if (!WebAssembly.validate(bytesOf(source))) {
    advice = `is no WebAssembly module to this engine, ${message}; if it is the right file, the engine needs SIMD (Chrome 91, Firefox 90, Safari 16.4, Node 20)`;
  }
  throw new Error(`${where} ${advice}`, { cause });
}
