// Why it is there: how the numbers of a deep stack of random layers drift apart, without a norm and with one.

import { layerNorm } from "layernorm-wasm";
import { uniform } from "../../test/random.js";
import { chart } from "./chart.js";
import { element, slider, words } from "./controls.js";

const TOKENS = 8;

const form = element<HTMLFormElement>("drift-form");
const depth = slider("drift-depth");
const width = slider("drift-width", (position) => 2 ** position);
const view = chart(
  element("drift-chart"),
  { label: "layer", whole: true },
  { label: "standard deviation", ends: (least, most) => [Math.min(0, least), most * 1.05] },
  [
    { label: "no norm", color: "--rival" },
    { label: "pre-norm", color: "--ours" },
    { label: "post-norm", color: "--third", style: "dashed" },
  ],
);

/** Inputs and outputs, weights and bias as PyTorch's nn.Linear has them at first: uniform within 1 / √inputs. */
function linear(inputs: number, outputs: number, next: () => number) {
  const bound = 1 / Math.sqrt(inputs);
  const draw = () => (2 * next() - 1) * bound;
  const weight = Float32Array.from({ length: inputs * outputs }, draw);
  const bias = Float32Array.from({ length: outputs }, draw);
  return (x: Float32Array): Float32Array => {
    const y = new Float32Array(TOKENS * outputs);
    for (let token = 0; token < TOKENS; token++) {
      const row = x.subarray(token * inputs, (token + 1) * inputs);
      for (let output = 0; output < outputs; output++) {
        let sum = bias[output] as number;
        for (let i = 0; i < inputs; i++) sum += (row[i] as number) * (weight[output * inputs + i] as number);
        y[token * outputs + output] = sum;
      }
    }
    return y;
  };
}

/** GELU as GPT-2 has it. */
const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const add = (a: Float32Array, b: Float32Array) => a.map((value, i) => value + (b[i] as number));

function deviation(x: Float32Array): number {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  return Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length);
}

function update() {
  const [layers, cols] = [depth.value, width.value];
  const next = uniform(30);
  // Uniform, of variance 1.
  const input = Float32Array.from({ length: TOKENS * cols }, () => (2 * next() - 1) * Math.sqrt(3));
  let [none, pre, post] = [input, input, input];
  const first = deviation(input);
  const lines = [[first], [first], [first]] as [number[], number[], number[]];
  for (let layer = 0; layer < layers; layer++) {
    const up = linear(cols, 4 * cols, next);
    const down = linear(4 * cols, cols, next);
    const mlp = (x: Float32Array) => down(up(x).map(gelu));
    none = add(none, mlp(none));
    pre = add(pre, mlp(layerNorm(pre, cols)));
    post = layerNorm(add(post, mlp(post)), cols);
    lines[0].push(deviation(none));
    lines[1].push(deviation(pre));
    lines[2].push(deviation(post));
  }
  const [a, b, c] = lines.map((line) => words(line.at(-1) as number, 3));
  view.draw(
    Array.from({ length: layers + 1 }, (_, layer) => layer),
    lines,
    `After ${layers} layers of ${cols} columns the standard deviation, ${words(first, 3)} at first, is ${a} with no norm, ${b} with pre-norm and ${c} with post-norm.`,
  );
}

form.addEventListener("input", update);
update();
