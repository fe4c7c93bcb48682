// Runs every example; ends with an error if a figure differs from the published one.

import { conclude } from "./report.js";

const names = [
  "pytorch-gpt",
  "flax-exercise",
  "max-gpt2",
  "gpt2-checkpoint",
  "llama",
  "training",
  "characters",
  "tfjs",
];
for (const name of names) await import(`./${name}.js`);
conclude();
