// Learning: a student's weight and bias become a teacher's.

import { LayerNorm, Tensor } from "layernorm-wasm";
import { normal } from "../../test/random.js";
import { chart } from "./chart.js";
import { element, slider, words } from "./controls.js";

const COLS = 64;
const ROWS = 32;
const STEPS = 100;

const teacher = new LayerNorm(COLS).eval();
teacher.loadStateDict({
  weight: Array.from({ length: COLS }, (_, i) => 1 + 0.5 * Math.sin(i / 5)),
  bias: Array.from({ length: COLS }, (_, i) => 0.5 * Math.cos(i / 3)),
});
const student = new LayerNorm(COLS);
const [x, target, y, dy] = Array.from({ length: 4 }, () => new Tensor([ROWS, COLS])) as [
  Tensor,
  Tensor,
  Tensor,
  Tensor,
];

const rate = slider("learning-rate");
const status = element<HTMLOutputElement>("learning-status");
const button = element<HTMLButtonElement>("learning-run");
const lossView = chart(
  element("learning-loss"),
  { label: "step", whole: true, ends: () => [0, STEPS] },
  { label: "loss", scale: "log", ends: () => [1e-14, 100] },
  [{ label: "of the student", color: "--ours" }],
);
const weightView = chart(element("learning-parameters"), { label: "column", whole: true }, { label: "value" }, [
  { label: "teacher's weight", color: "--ours-soft", style: "wide" },
  { label: "student's weight", color: "--ours" },
  { label: "teacher's bias", color: "--rival-soft", style: "wide" },
  { label: "student's bias", color: "--rival" },
]);

let losses: number[] = [];
let frame = 0;

/** One step of gradient descent. The loss is |y - target|² / 2, averaged over the rows. */
function step() {
  x.data.set(normal(x.size, 100 + losses.length));
  teacher.forward(x, { out: target });
  student.forward(x, { out: y });
  let loss = 0;
  const [got, wanted, gradient] = [y.data, target.data, dy.data];
  for (let i = 0; i < y.size; i++) {
    const difference = (got[i] as number) - (wanted[i] as number);
    loss += difference ** 2 / 2 / ROWS;
    gradient[i] = difference / ROWS;
  }
  losses.push(loss);
  student.zeroGrad();
  student.backward(dy, { out: dy });
  for (const { data, grad } of student.parameters()) {
    for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) - rate.value * (grad[i] as number);
  }
}

function draw() {
  const all = [teacher.weight, student.weight, teacher.bias, student.bias].map(({ data }) => [...data]) as [
    number[],
    number[],
    number[],
    number[],
  ];
  const apart = (a: number[], b: number[]) => Math.max(...a.map((value, i) => Math.abs(value - (b[i] as number))));
  const last = losses.at(-1);
  lossView.draw(
    losses.map((_, i) => i + 1),
    [losses],
    last === undefined
      ? "No step yet."
      : `Step ${losses.length} of ${STEPS}: the loss is ${words(last, 3)}, ${words(losses[0] as number, 3)} at first.`,
  );
  weightView.draw(
    all[0].map((_, i) => i),
    all,
    `The student's weight is at most ${words(apart(all[0], all[1]), 3)} from the teacher's, its bias ${words(apart(all[2], all[3]), 3)}.`,
  );
}

function stop() {
  cancelAnimationFrame(frame);
  frame = 0;
  const done = losses.length === STEPS;
  button.textContent = done ? "Start again" : losses.length === 0 ? "Start" : "Go on";
  status.value = done ? "Done." : losses.length === 0 ? "" : "Paused.";
}

function animate() {
  // Who wants no motion gets the end at once.
  const steps = matchMedia("(prefers-reduced-motion: reduce)").matches ? STEPS : 1;
  for (let i = 0; i < steps && losses.length < STEPS; i++) step();
  draw();
  if (losses.length < STEPS) frame = requestAnimationFrame(animate);
  else stop();
}

function reset() {
  student.resetParameters();
  losses = [];
  stop();
  draw();
}

button.addEventListener("click", () => {
  if (frame) {
    stop();
    return;
  }
  if (losses.length === STEPS) reset();
  button.textContent = "Pause";
  status.value = "Learning …";
  frame = requestAnimationFrame(animate);
});
element("learning-reset").addEventListener("click", reset);
draw();
