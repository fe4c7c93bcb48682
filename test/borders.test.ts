import { describe, expect, test } from "vitest";
import { allCalls, made, sizesOf, wrong } from "./borders.js";
import { BUILDS, moduleOf } from "./builds.js";
import { hashOf } from "./digest.js";
import { machineOf } from "./recipe.js";

const calls = [...allCalls()];

/** Changes with the golden digest. */
const BORDERS = "";

describe.each(BUILDS)("at the borders of the kernels, %s build", (build) => {
  test("results have the pinned bits", async () => {
    const machine = machineOf(moduleOf(build));
    const parts = [sizesOf(machine), ...calls.map((call) => Object.values(made(machine, call).results))];
    expect(await hashOf(parts.flat())).toBe(BORDERS);
  });
});

test("results at the borders of the kernels are within their limits, and nothing is written beside them", () => {
  const machine = machineOf(moduleOf("release"));
  for (const call of calls) expect(wrong(call, made(machine, call))).toEqual({});
});
