// Runs every example; ends with an error if a figure differs from the published one.

import { conclude } from "./report.js";

for (const name of ["pytorch-gpt", "flax-exercise", "max-gpt2", "training"]) await import(`./${name}.js`);
conclude();
