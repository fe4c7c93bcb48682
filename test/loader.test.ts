// What a developer sees of a failing assert: AssemblyScript's loader reports its message and its place in the source. The
// package itself needs no loader, and its builds have no asserts.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { instantiate } from "@assemblyscript/loader";
import { beforeAll, describe, expect, test } from "vitest";
import type { Kernels } from "../src/index.js";
import { KERNELS } from "../src/kernels.js";

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

describe.each(KERNELS)("$name", ({ name, rows, cols, workspace, moves }) => {
  // Beyond the messages, which this build has in the memory.
  const at = (i: number) => 32768 + 64 * i;
  /** A call of one row of 3, but for some arguments. */
  const call = (changes: Record<number, number>) => () => {
    const args = moves.map((_, i) => changes[i] ?? (i === rows ? 1 : i === cols ? 3 : at(i)));
    (kernels[name] as (...args: number[]) => void)(...args);
  };
  const file = workspace < 0 ? "forward" : "backward";

  test("reports any pointer that is not a multiple of 4, by message, file and line", () => {
    const expected = new RegExp(`^abort: a pointer is not a multiple of 4 at assembly/lib/${file}\\.ts:\\d+:\\d+$`);
    expect(call({})).not.toThrow();
    for (let i = 0; i < rows; i++) expect(call({ [i]: at(i) + 2 }), `argument ${i}`).toThrow(expected);
  });

  test("reports rows without columns", () => {
    expect(call({ [cols]: 0 })).toThrow(new RegExp(`^abort: cols is 0 at assembly/lib/${file}\\.ts:\\d+:\\d+$`));
  });
});

test("a workspace that is missing is reported where gradients of the parameters are wanted", () => {
  const [dy, x, rstd, dweight] = [1024, 2048, 3072, 4096];
  const backward = (wanted: number) => () => kernels.rmsNormBackward(0, wanted, dy, x, rstd, 0, 0, 1, 3, 0);
  expect(backward(0)).not.toThrow();
  expect(backward(dweight)).toThrow(
    /^abort: dweight or dbias is wanted, but workspace is 0 at assembly\/lib\/backward\.ts/,
  );
});
