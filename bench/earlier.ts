// LayerNorm's kernel of 2026-11-21, which ours is held against: the last one before rows were checked for hard inputs. It
// is built from its commit, so this needs the history of the repository.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const COMMIT = "e811132";
const ROOT = fileURLToPath(new URL("..", import.meta.url));

export interface EarlierKernels {
  /** y, mean, rstd, x, weight, bias, rows, cols, eps */
  layerNormForward(...args: number[]): void;
  /** dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, workspace */
  layerNormBackward(...args: number[]): void;
  /** rows, cols */
  layerNormBackwardWorkspace(rows: number, cols: number): number;
}

let compiled: WebAssembly.Module | undefined;

/** Its kernels over a memory. */
export function earlierKernels(memory: object): EarlierKernels {
  compiled ??= compile();
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory: memory as WebAssembly.Memory } });
  return exports as unknown as EarlierKernels;
}

function compile(): WebAssembly.Module {
  const folder = "build/bench/earlier";
  mkdirSync(join(ROOT, folder), { recursive: true });
  const archive = execFileSync("git", ["archive", COMMIT, "assembly"], { cwd: ROOT, maxBuffer: 2 ** 24 });
  execFileSync("tar", ["x", "-C", folder], { cwd: ROOT, input: archive });
  const asc = join(ROOT, "node_modules/assemblyscript/bin/asc.js");
  const memory = ["--runtime", "stub", "--importMemory", "--noExportMemory", "--initialMemory", "0"];
  const release = ["--enable", "simd", "--use", "abort=", "--disableWarning", "112", "-O3", "--converge", "--noAssert"];
  const [source, binary] = [`${folder}/assembly/index.ts`, `${folder}/layernorm.wasm`];
  execFileSync(process.execPath, [asc, source, "-o", binary, ...memory, ...release], { cwd: ROOT, stdio: "ignore" });
  return new WebAssembly.Module(readFileSync(join(ROOT, binary)));
}
