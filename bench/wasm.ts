// What is compiled for the benches alone: bench/limits, and LayerNorm's kernel of 2026-11-21, the last one before rows were
// checked for hard inputs. That is built from its commit, so it needs the history of the repository.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const COMMIT = "e811132";
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = "build/bench/earlier";
const compiled = new Map<string, WebAssembly.Module>();

const BASE = "--config none -O3 --runtime stub --enable simd --importMemory --noExportMemory --initialMemory 0";
const BUILDS = {
  limits: `bench/limits/index.ts ${BASE}`,
  sharedLimits: `bench/limits/index.ts ${BASE} --sharedMemory --maximumMemory 65536 --enable threads`,
  earlier: `${folder}/assembly/index.ts ${BASE} --use abort= --disableWarning 112 --converge --noAssert`,
};

/** One of them, compiled at its first use. */
export function moduleOf(name: keyof typeof BUILDS): WebAssembly.Module {
  const known = compiled.get(name);
  if (known) return known;
  mkdirSync(join(root, folder), { recursive: true });
  if (name === "earlier") {
    const archive = execFileSync("git", ["archive", COMMIT, "assembly"], { cwd: root, maxBuffer: 2 ** 24 });
    execFileSync("tar", ["x", "-C", folder], { cwd: root, input: archive });
  }
  const [asc, binary] = ["node_modules/assemblyscript/bin/asc.js", `build/bench/${name}.wasm`];
  execFileSync(process.execPath, [asc, ...BUILDS[name].split(" "), "-o", binary], { cwd: root, stdio: "pipe" });
  const module = new WebAssembly.Module(readFileSync(join(root, binary)));
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
