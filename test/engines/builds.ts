// Stands in for test/builds.ts where there are no files: the binaries of the package, as bytes or, in workerd, as modules.

import heap from "layernorm-wasm/heap.wasm";
import release from "layernorm-wasm/layernorm.wasm";

const binaries: Record<string, unknown> = { heap, release };

export const BUILDS = ["release"];

export function readBuild(name: string): Uint8Array<ArrayBuffer> {
  return binaries[name] as Uint8Array<ArrayBuffer>;
}

const modules = new Map<string, WebAssembly.Module>();

export function moduleOf(name: string): WebAssembly.Module {
  const binary = binaries[name];
  const module =
    modules.get(name) ?? (binary instanceof WebAssembly.Module ? binary : new WebAssembly.Module(readBuild(name)));
  modules.set(name, module);
  return module;
}
