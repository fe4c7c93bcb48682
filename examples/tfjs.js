// npm run example:tfjs: trains and runs a small transformer in TensorFlow.js on its wasm backend, first with its own
// layer normalization, then with the layer of this package, and compares the results and the times.

import { layerNormalization } from "layernorm-wasm/tfjs";
import { claim, heading } from "./report.js";
import { batchesOf, tf, tfl, transformer } from "./transformer.js";

await tf.setBackend("wasm");
const text = `a row of numbers comes in. its mean is taken away, and what is left is divided by how far it spreads.
then each number is multiplied by a weight, and a bias is added. the row goes out, and the next row comes in.`;
const sizes = { length: 24, width: 64, heads: 2, blocks: 2 };
const [batch, steps] = [8, 12];
heading(`TensorFlow.js ${tf.version_core}, ${tf.getBackend()}: two blocks, ${batch} x ${sizes.length} characters`);

/** @param {() => tfl.layers.Layer} norm */
async function train(norm) {
  const { characters, next } = batchesOf(text, sizes.length, batch);
  const model = transformer(norm, { ...sizes, characters });
  const losses = [];
  let fastest = Infinity;
  for (let step = 0; step < steps; step++) {
    const { x, y } = next();
    const start = performance.now();
    losses.push(Number(await model.trainOnBatch(x, y)));
    fastest = Math.min(fastest, performance.now() - start);
    tf.dispose([x, y]);
  }
  return { model, losses, fastest };
}

/** The fastest of some runs of a model, and its result. @param {tfl.LayersModel} model @param {tf.Tensor} x */
function run(model, x) {
  let fastest = Infinity;
  let y = /** @type {ArrayLike<number>} */ ([]);
  for (let i = 0; i < 8; i++) {
    const start = performance.now();
    y = tf.tidy(() => /** @type {tf.Tensor} */ (model.predict(x)).dataSync());
    fastest = Math.min(fastest, performance.now() - start);
  }
  return { y, fastest };
}

const [own, ours] = [await train(tfl.layers.layerNormalization), await train(layerNormalization)];
const furthest = (/** @type {ArrayLike<number>} */ a, /** @type {ArrayLike<number>} */ b) =>
  Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
const chance = Math.log(batchesOf(text, 1, 1).characters);
const end = ours.losses[steps - 1];
claim("loss at the end", end, `below that of chance, ${chance.toFixed(2)}`, end < chance);
claim(
  "losses of the steps, largest difference",
  furthest(own.losses, ours.losses),
  "below 0.001",
  furthest(own.losses, ours.losses) < 1e-3,
);
ours.model.setWeights(own.model.getWeights());
const { x } = batchesOf(text, sizes.length, batch).next();
const [ownRun, oursRun] = [run(own.model, x), run(ours.model, x)];
const apart = furthest(ownRun.y, oursRun.y);
claim("predictions, largest difference", apart, "below 0.00001", apart < 1e-5);
const pair = (/** @type {number} */ a, /** @type {number} */ b) => `${a.toFixed(1)} -> ${b.toFixed(1)} ms`;
claim("a step of training", pair(own.fastest, ours.fastest), "faster", ours.fastest < own.fastest);
claim("a prediction", pair(ownRun.fastest, oursRun.fastest), "faster", oursRun.fastest < ownRun.fastest);
