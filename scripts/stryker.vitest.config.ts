// The tests that Stryker runs on each mutant of src/: those of the wrapper.

import { defineConfig } from "vitest/config";

const names = "blocks calls functional memory modules norm operands pytorch residual runtime state-dict tensor".split(
  " ",
);

export default defineConfig({
  test: {
    include: names.map((name) => `test/${name}.test.ts`),
  },
});
