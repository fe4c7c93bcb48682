// The tests that Stryker runs on each mutant of src/: those of the wrapper, without the ones that fill gigabytes.

import { defineConfig } from "vitest/config";

const names = [
  "blocks",
  "calls",
  "defects",
  "functional",
  "layer-norm",
  "runtime",
  "tensor",
  "golden",
  "memory",
  "modules",
  "operands",
  "residual",
];

export default defineConfig({
  test: {
    include: names.map((name) => `test/${name}.test.ts`),
    testNamePattern: /^(?!.*(million|4 GiB|3 GiB))/,
  },
});
