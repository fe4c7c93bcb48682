// Trains a small model on the wasm backend of TensorFlow.js, with its own layer and with ours, and reports how they compare.

import "@tensorflow/tfjs-backend-wasm";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import { layerNorm, layerNormalization, patchLayerNormalization } from "layernorm-wasm/tfjs";
import { report } from "./report.js";

const warnings = [];
console.warn = (...args) => warnings.push(args.join(" "));

const [rows, cols] = [48, 33];
const numbers = (size, seed) => Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * i));

async function train(norm) {
  const model = tfl.sequential({
    layers: [
      tfl.layers.dense({
        units: 24,
        inputShape: [cols],
        weights: [tf.tensor(numbers(cols * 24, 1), [cols, 24]), tf.zeros([24])],
      }),
      norm,
      tfl.layers.dense({ units: 2, weights: [tf.tensor(numbers(48, 2), [24, 2]), tf.zeros([2])] }),
    ],
  });
  model.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.05) });
  const [x, target] = [tf.tensor(numbers(rows * cols, 3), [rows, cols]), tf.tensor(numbers(rows * 2, 4), [rows, 2])];
  const history = await model.fit(x, target, { epochs: 5, batchSize: 16, shuffle: false, verbose: 0 });
  return { losses: history.history.loss, y: [...model.predict(x).dataSync()], layer: norm.constructor };
}

const furthest = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));

/** @param {string} binaries where those of the backend are */
export async function compare(binaries) {
  setWasmPaths(binaries);
  await tf.setBackend("wasm");
  await tf.ready();
  const own = await train(tfl.layers.layerNormalization());
  const ours = await train(layerNormalization());
  const undo = patchLayerNormalization();
  const patched = await train(tfl.layers.layerNormalization());
  undo();
  const { buffer } = tf.backend().wasm.HEAPU8;
  const before = tf.memory().numTensors;
  const both = (x) => tf.addN(layerNorm(x, null, null, -1, 1e-3, { residual: x, returnSum: true }));
  const penalty = (x) => tf.sum(tf.square(tf.grad(both)(x)));
  const gradients = () => [layerNorm, both, penalty].map((f) => tf.grad((x) => tf.sum(f(x)))(tf.ones([5, 7])));
  for (let i = 0; i < 100; i++) tf.tidy(() => void gradients());
  return {
    version: tf.version_core,
    backend: tf.getBackend(),
    shared: Object.prototype.toString.call(buffer) === "[object SharedArrayBuffer]",
    learned: ours.losses.at(-1) < ours.losses[0] / 2,
    apart: Math.max(furthest(own.losses, ours.losses), furthest(own.y, ours.y)),
    patched: patched.layer === ours.layer && own.layer !== ours.layer && furthest(patched.y, ours.y) === 0,
    leaked: tf.memory().numTensors - before,
    warnings,
  };
}

report(() => compare("/"));
