import { expect, test } from "vitest";
import { type Kernels, Runtime } from "../src/index.js";
import { BUILDS, moduleOf } from "./builds.js";
import { digest, GOLDEN } from "./digest.js";

test.each(BUILDS)("the %s build gives the golden digest", async (build) => {
  const memory = new WebAssembly.Memory({ initial: 1200 });
  const instance = new WebAssembly.Instance(moduleOf(build), { env: { memory } });
  let next = 16;
  const allocate = (bytes: number) => {
    next += bytes;
    return next - bytes;
  };
  expect(await digest({ kernels: instance.exports as unknown as Kernels, memory, allocate })).toBe(GOLDEN);
});

test("the package gives the golden digest", async () => {
  expect(await digest(Runtime.create())).toBe(GOLDEN);
});
