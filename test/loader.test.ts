// What a developer sees of a failing assert: AssemblyScript's loader reports its message and its place in the source. The
// package itself needs no loader, and its builds have no asserts.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { instantiate } from "@assemblyscript/loader";
import { beforeAll, expect, test } from "vitest";
import type { Kernels } from "../src/index.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const OUT = "build/loader.wasm";
let kernels: Kernels;

beforeAll(async () => {
  const asc = "node_modules/assemblyscript/bin/asc.js";
  const flags = ["--config", "none", "--runtime", "stub", "--importMemory", "--enable", "simd", "--debug"];
  execFileSync(process.execPath, [asc, "assembly/index.ts", ...flags, "--outFile", OUT], { cwd: root });
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { exports } = await instantiate(readFileSync(`${root}/${OUT}`), { env: { memory } });
  kernels = exports as unknown as Kernels;
});

test("a pointer that is not a multiple of 4 is reported with its message, file and line", () => {
  const at = 1024;
  const forward = (x: number, cols: number) => () => kernels.rmsNormForward(at, 0, 0, x, 0, 0, 1, cols, 1e-6);
  expect(forward(at, 3)).not.toThrow();
  expect(forward(at + 2, 3)).toThrow(/^abort: a pointer is not a multiple of 4 at assembly\/lib\/forward\.ts:\d+:\d+$/);
  expect(forward(at, 0)).toThrow(/^abort: cols is 0 at assembly\/lib\/forward\.ts:\d+:\d+$/);
});

test("a workspace that is missing is reported where gradients of the parameters are wanted", () => {
  const [dy, x, rstd, dweight] = [1024, 2048, 3072, 4096];
  const backward = (wanted: number) => () => kernels.rmsNormBackward(0, wanted, dy, x, rstd, 0, 0, 1, 3, 0, 1e-6);
  expect(backward(0)).not.toThrow();
  expect(backward(dweight)).toThrow(
    /^abort: dweight or dbias is wanted, but workspace is 0 at assembly\/lib\/backward\.ts/,
  );
});
