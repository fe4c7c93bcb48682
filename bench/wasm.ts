// What is compiled for the benches alone: bench/limits, and kernels of earlier commits. Those are built from their commits,
// so they need the history of the repository.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const compiled = new Map<string, WebAssembly.Module>();

const BASE = "--config none -O3 --runtime stub --enable simd --importMemory --noExportMemory --initialMemory 0";
const KERNELS = `assembly/index.ts ${BASE} --use abort= --disableWarning 112 --converge --noAssert`;
const BUILDS = {
  limits: `bench/limits/index.ts ${BASE}`,
  sharedLimits: `bench/limits/index.ts ${BASE} --sharedMemory --maximumMemory 65536 --enable threads`,
  earlier: `build/bench/earlier/${KERNELS}`,
  guessing: `build/bench/guessing/${KERNELS}`,
};
const COMMITS: Partial<Record<keyof typeof BUILDS, string>> = {
  // LayerNorm's kernel of 2026-11-21, the last one before rows were checked for hard inputs.
  earlier: "e811132",
  // The kernels of 2026-11-29, the last ones that looked at a sample of a row to choose its loop.
  guessing: "6c5996d",
};

/** The file of one of them, compiled anew. */
export function binaryOf(name: keyof typeof BUILDS): string {
  const [commit, folder] = [COMMITS[name], `build/bench/${name}`];
  mkdirSync(join(root, folder), { recursive: true });
  if (commit) {
    const archive = execFileSync("git", ["archive", commit, "assembly"], { cwd: root, maxBuffer: 2 ** 24 });
    execFileSync("tar", ["x", "-C", folder], { cwd: root, input: archive });
  }
  const [asc, binary] = ["node_modules/assemblyscript/bin/asc.js", `${folder}.wasm`];
  execFileSync(process.execPath, [asc, ...BUILDS[name].split(" "), "-o", binary], { cwd: root, stdio: "pipe" });
  return join(root, binary);
}

/** One of them, compiled at its first use. */
export function moduleOf(name: keyof typeof BUILDS): WebAssembly.Module {
  const module = compiled.get(name) ?? new WebAssembly.Module(readFileSync(binaryOf(name)));
  compiled.set(name, module);
  return module;
}

type Call = (...args: number[]) => void;
type Limits = Record<"copy" | "read" | "add" | "straight", Call>;
type EarlierKernels = Record<"layerNormForward" | "layerNormBackward", Call> & {
  layerNormBackwardWorkspace(rows: number, cols: number): number;
};

function exportsOf(name: keyof typeof BUILDS, memory: object): unknown {
  return new WebAssembly.Instance(moduleOf(name), { env: { memory: memory as WebAssembly.Memory } }).exports;
}

/** The functions of bench/limits over a memory. */
export const limits = (memory: object, build: "limits" | "sharedLimits" = "limits") =>
  exportsOf(build, memory) as Limits;

/** The earlier kernels over a memory: y, mean, rstd, x, weight, bias, rows, cols, eps; dx, dweight, dbias, dy, x, … */
export const earlierKernels = (memory: object) => exportsOf("earlier", memory) as EarlierKernels;
