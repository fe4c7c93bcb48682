// Stands in for test/builds.ts where there are no files: the binaries of the package, as bytes or, in workerd, as modules.

import heap from "layernorm-wasm/heap.wasm";
import release from "layernorm-wasm/layernorm.wasm";

const binaries: Record<string, unknown> = { heap, release };

export const BUILDS = ["release"];

export function readBuild(name: string): Uint8Array<ArrayBuffer> {
  return binaries[name] as Uint8Array<ArrayBuffer>;
}

export function moduleOf(name: string): WebAssembly.Module {
  const binary = binaries[name];
  return binary instanceof WebAssembly.Module ? binary : new WebAssembly.Module(readBuild(name));
}
