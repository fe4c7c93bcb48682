// Training: a student layer norm learns a teacher's weight and bias from what the teacher makes of random data.

import { LayerNorm, Tensor } from "layernorm-wasm";
import { normal } from "./random.js";
import { claim, heading } from "./report.js";

heading("Training: a student of 768 channels learns a teacher's weight and bias");

const cols = 768;
const rows = 64;
const teacher = new LayerNorm(cols).eval();
const student = new LayerNorm(cols);
teacher.loadStateDict({
  weight: Array.from({ length: cols }, (_, i) => 1 + 0.5 * Math.sin(i)),
  bias: Array.from({ length: cols }, (_, i) => 0.5 * Math.cos(3 * i)),
});

const random = normal(42);
const rate = 0.5;
const x = new Tensor([rows, cols]);
const target = new Tensor([rows, cols]);
const y = new Tensor([rows, cols]);
const dy = new Tensor([rows, cols]);
let loss = 0;
for (let step = 0; step <= 100; step++) {
  x.data.forEach((_, i, data) => {
    data[i] = random();
  });
  teacher.forward(x, { out: target });
  student.forward(x, { out: y });

  // loss = mean over the rows of |y - target|^2 / 2, summed over the columns
  loss = 0;
  for (let i = 0; i < y.size; i++) {
    const difference = y.data[i] - target.data[i];
    loss += difference ** 2 / 2 / rows;
    dy.data[i] = difference / rows;
  }
  if (step % 10 === 0) console.log(`  step ${String(step).padStart(3)}   loss ${loss.toExponential(3)}`);

  student.zeroGrad();
  student.backward(dy, { out: dy });
  for (const parameter of student.parameters()) {
    const { data, grad } = parameter;
    for (let i = 0; i < data.length; i++) data[i] -= rate * grad[i];
  }
}

for (const [name, parameter] of student.namedParameters()) {
  const truth = teacher.stateDict()[name] ?? [];
  const error = parameter.data.reduce((worst, value, i) => Math.max(worst, Math.abs(value - truth[i])), 0);
  claim(`${name}: largest error`, error, "below 1e-3", error < 1e-3);
}
