import { expect, test } from "vitest";
import { allCalls, made, sizesOf, wrong } from "./borders.js";
import { BUILDS, moduleOf } from "./builds.js";
import { hashOf } from "./digest.js";
import { machineOf } from "./recipe.js";

/** Changes as the golden digest does, and where calls are added. */
const PINNED = "d4283eb33def5333b9845d7f94a38fbb6badea1640c9de067ad686988a95196d";

test.each(BUILDS)("the %s build has the pinned bits at the borders of the kernels", async (build) => {
  const machine = machineOf(moduleOf(build));
  const parts: BlobPart[] = [sizesOf(machine)];
  for (const call of allCalls()) parts.push(...Object.values(made(machine, call).results));
  expect(await hashOf(parts)).toBe(PINNED);
});

test("results at the borders of the kernels are within their limits, and nothing is written beside them", () => {
  const machine = machineOf(moduleOf("release"));
  for (const call of allCalls()) expect(wrong(call, made(machine, call))).toEqual({});
});
