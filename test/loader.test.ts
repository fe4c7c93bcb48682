// What a developer sees of a failing assert: AssemblyScript's loader reports its place in the source. The package itself needs no loader.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { instantiate } from "@assemblyscript/loader";
import { beforeAll, expect, test } from "vitest";

interface Heap extends Record<string, unknown> {
  allocate(bytes: number): number;
  free(pointer: number): void;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const OUT = "build/heap-debug.wasm";

/** The heap with the assertions of AssemblyScript's runtime, which a release leaves out. */
async function debugHeap(): Promise<Heap> {
  const memory = new WebAssembly.Memory({ initial: 1 });
  return (await instantiate<Heap>(readFileSync(`${root}/${OUT}`), { env: { memory } })).exports;
}

beforeAll(() => {
  const asc = "node_modules/assemblyscript/bin/asc.js";
  const flags = ["--config", "none", "--runtime", "minimal", "--importMemory", "--debug", "--outFile", OUT];
  execFileSync(process.execPath, [asc, "assembly/heap.ts", ...flags], { cwd: root });
});

test("a failing assert in a debug build is reported with its file and line", async () => {
  const heap = await debugHeap();
  const block = heap.allocate(24);
  heap.free(block);
  expect(() => heap.free(block)).toThrow(/^abort: .* at ~lib\/rt\/tlsf\.ts:\d+:\d+$/);
});

test("an error of the runtime is reported with its message", async () => {
  const heap = await debugHeap();
  expect(() => heap.allocate(2 ** 31)).toThrow(/^abort: .*allocation too large.* at ~lib\/rt\/tlsf\.ts:\d+:\d+$/i);
});
