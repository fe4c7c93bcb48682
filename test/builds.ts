// The builds of the kernels: one suite runs against each. In other engines than Node test/engines/builds.ts stands in for
// this file.

import { readFileSync } from "node:fs";

export const BUILDS = ["debug", "release"];

export function readBuild(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(new URL(`../build/${name}.wasm`, import.meta.url)));
}

const modules = new Map<string, WebAssembly.Module>();

export function moduleOf(name: string): WebAssembly.Module {
  const module = modules.get(name) ?? new WebAssembly.Module(readBuild(name));
  modules.set(name, module);
  return module;
}
