// Training a small character model, which tells the next character from the eight before it: embeddings, RMSNorm, a
// gated MLP, LayerNorm, and Adam over their parameters. All of it is in Tensors that are made once.

import { LayerNorm, Parameter, RMSNorm, Runtime, Tensor } from "layernorm-wasm";
import { GatedMLP, Linear } from "./linear.js";
import { normal } from "./random.js";
import { claim, heading } from "./report.js";

const text = `a row of numbers comes in. its mean is taken away, and what is left is divided by how far it spreads.
then each number is multiplied by a weight, and a bias is added. the row goes out, and the next row comes in.
a norm without a mean divides each row by its root mean square. that is all it does, and often it is enough.
`.repeat(2);
const characters = [...new Set(text)].sort();
const codes = Array.from(text, (character) => characters.indexOf(character));
const [context, width, hidden, batch, steps] = [8, 12, 96, 32, 200];
const dim = context * width;
heading(`Training: ${characters.length} characters, ${context} of context, batches of ${batch}, Adam`);

const random = normal(7);
/** @param {number[]} shape @param {number} scale */
function parameter(shape, scale) {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  return new Parameter(
    shape,
    Array.from({ length: size }, () => scale * random()),
  );
}
const embedding = parameter([characters.length, width], 1);
const first = new RMSNorm(dim);
const mlp = new GatedMLP(
  parameter([hidden, dim], dim ** -0.5),
  parameter([hidden, dim], dim ** -0.5),
  parameter([dim, hidden], hidden ** -0.5),
  batch,
);
const last = new LayerNorm(dim);
const head = new Linear(parameter([characters.length, dim], dim ** -0.5));
const layers = [mlp.gate, mlp.up, mlp.down, head].map((layer) => layer.weight);
const parameters = [embedding, ...first.parameters(), ...last.parameters(), ...layers];
claim(
  "parameters",
  parameters.reduce((sum, { size }) => sum + size, 0),
  "of two norms and five matrices",
  parameters.length === 8,
);

const row = () => new Tensor([batch, dim]);
const [x, normalized, made, sum, y, dy, dmade, dx] = [row(), row(), row(), row(), row(), row(), row(), row()];
const logits = new Tensor([batch, characters.length]);

/**
 * The mean of -log p of the characters at `ends`, each given those before it. Writes the gradient to logits.
 * @param {number[]} ends
 */
function forward(ends) {
  const [from, to] = [embedding.data, x.data];
  ends.forEach((end, b) => {
    for (let c = 0; c < context; c++) {
      const code = codes[end - context + c];
      for (let i = 0; i < width; i++) to[b * dim + c * width + i] = from[code * width + i];
    }
  });
  first.forward(x, { out: normalized });
  mlp.forward(normalized, made);
  last.forward(made, { residual: x, sum, out: y });
  const scores = head.forward(y, logits).data;
  let loss = 0;
  ends.forEach((end, b) => {
    const own = scores.subarray(b * characters.length, (b + 1) * characters.length);
    const most = Math.max(...own);
    const total = own.reduce((all, score) => all + Math.exp(score - most), 0);
    loss -= (own[codes[end]] - most - Math.log(total)) / batch;
    for (let code = 0; code < own.length; code++) {
      own[code] = (Math.exp(own[code] - most) / total - (code === codes[end] ? 1 : 0)) / batch;
    }
  });
  return loss;
}

/** Adds to the gradients of all parameters. @param {number[]} ends those of the last forward */
function backward(ends) {
  head.backward(logits, dy);
  last.backward(dy, { out: dy });
  mlp.backward(dy, dmade);
  first.backward(dmade, { add: dy, out: dx });
  const [from, to] = [dx.data, embedding.grad];
  ends.forEach((end, b) => {
    for (let c = 0; c < context; c++) {
      const code = codes[end - context + c];
      for (let i = 0; i < width; i++) to[code * width + i] += from[b * dim + c * width + i];
    }
  });
}

const moments = parameters.map(({ shape }) => ({ mean: new Tensor(shape), square: new Tensor(shape) }));
/** Adam (Kingma and Ba, 2014). @param {number} step from 1 on @param {number} rate */
function adam(step, rate) {
  for (const [at, { data, grad }] of parameters.entries()) {
    const [mean, square] = [moments[at].mean.data, moments[at].square.data];
    for (let i = 0; i < data.length; i++) {
      mean[i] += 0.1 * (grad[i] - mean[i]);
      square[i] += 0.01 * (grad[i] ** 2 - square[i]);
      data[i] -= (rate * mean[i]) / (1 - 0.9 ** step) / (Math.sqrt(square[i] / (1 - 0.99 ** step)) + 1e-8);
      grad[i] = 0;
    }
  }
}

/** The memory's size, and where tensors of two sizes would lie now. What a step doesn't give back moves one of them. */
function memory() {
  const probes = [new Tensor([1]), new Tensor([8192])];
  const pointers = probes.map(({ pointer }) => pointer);
  for (const probe of probes) probe.dispose();
  return [Runtime.default.memory.buffer.byteLength, ...pointers].join();
}

const places = Array.from({ length: codes.length - context }, (_, i) => i + context);
const losses = [];
const memories = new Set();
for (let step = 1; step <= steps; step++) {
  const ends = Array.from({ length: batch }, (_, b) => places[((step - 1) * batch * 5 + b * 13) % places.length]);
  losses.push(forward(ends));
  backward(ends);
  adam(step, 0.01);
  if (step > 1) memories.add(memory());
  if (step % 40 === 0) console.log(`  step ${String(step).padStart(3)}   loss ${losses[step - 1].toFixed(3)}`);
}

const mean = (/** @type {number[]} */ values) => values.reduce((all, value) => all + value, 0) / values.length;
const chance = Math.log(characters.length);
claim("loss of the first step", losses[0], `about that of chance, ${chance.toFixed(2)}`, losses[0] < chance + 1);
const end = mean(losses.slice(-20));
claim("mean loss of the last 20 steps", end, "below a tenth of chance", end < chance / 10);
claim("states of memory from the second step on", memories.size, "1", memories.size === 1);
