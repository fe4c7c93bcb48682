// Makes test/fixtures/keras.json with a real implementation of Keras's layers, TensorFlow.js on its plain CPU backend: the losses
// and gradients of a small model, layer normalization before a dense layer, under SGD. @tensorflow/tfjs must be installed in bench/
// (npm install --prefix bench); or give the folder that has it: node scripts/keras-fixture.mjs /tmp/keras. Then: npm run fix.

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const require = createRequire(join(resolve(process.argv[2] ?? join(root, "bench")), "package.json"));
const tf = require("@tensorflow/tfjs");
await tf.setBackend("cpu");

const rows = 30;
const cols = 7;
const batchSize = 6;
const epochs = 5;
const epsilon = 1e-3;
// A power of two: exact in float32.
const learningRate = 0.0625;

let state = 1;
/** Numbers of three decimals in (center - 1, center + 1), short in JSON; either reader rounds them to the same float32. */
const numbers = (size, center = 0) =>
  Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.round((center + (state / 2 ** 31 - 1)) * 1000) / 1000;
  });

const x = numbers(rows * cols, 0.5);
// Of the size of epsilon, so that the losses tell one epsilon from another.
for (let i = 0; i < x.length; i++) if (Math.floor(i / cols) % 3 === 0) x[i] = Math.round(x[i] * 50) / 1000;
const targets = numbers(rows, 1);
const initial = { gamma: numbers(cols, 1), beta: numbers(cols), kernel: numbers(cols), bias: numbers(1) };

const model = tf.sequential({
  layers: [
    tf.layers.layerNormalization({ inputShape: [cols], epsilon }),
    tf.layers.dense({ units: 1, kernelInitializer: "zeros" }),
  ],
});
model.compile({ optimizer: tf.train.sgd(learningRate), loss: "meanSquaredError" });
model.setWeights([
  tf.tensor1d(initial.gamma),
  tf.tensor1d(initial.beta),
  tf.tensor2d(initial.kernel, [cols, 1]),
  tf.tensor1d(initial.bias),
]);

const inputs = tf.tensor2d(x, [rows, cols]);
const outputs = tf.tensor2d(targets, [rows, 1]);
const loss = (input) => tf.losses.meanSquaredError(outputs, model.apply(input));
const dx = Array.from(tf.grad(loss)(inputs).dataSync());

const losses = [];
await model.fit(inputs, outputs, {
  batchSize,
  epochs,
  shuffle: false,
  verbose: 0,
  yieldEvery: "never",
  callbacks: {
    onEpochBegin: () => losses.push([]),
    onBatchEnd: (_, logs) => losses.at(-1).push(logs.loss),
  },
});
const [gamma, beta, kernel, bias] = model.getWeights().map((weight) => Array.from(weight.dataSync()));

const fixture = {
  versions: { "@tensorflow/tfjs": tf.version.tfjs, backend: tf.getBackend(), node: process.version },
  cols,
  batchSize,
  epsilon,
  learningRate,
  x,
  targets,
  initial,
  dx,
  losses,
  trained: { gamma, beta, kernel, bias },
};
writeFileSync(join(root, "test/fixtures/keras.json"), `${JSON.stringify(fixture, null, 2)}\n`);
