// npm run bench:tfjs: layer normalization in TensorFlow.js on its wasm backend, result read back: its own layer, five ops by hand,
// and ours; and a transformer of four blocks with its own layer and with ours. Each result is verified, then timed in turns, the
// fastest round of each.

import type { Tensor } from "@tensorflow/tfjs-core";
import { layerNormalization } from "../dist/tfjs.js";
import { batchesOf, tf, tfl, transformer } from "../examples/transformer.js";
import { normal } from "../test/random.js";
import { errorsOf, LIMITS } from "../test/reference.js";
import { race, repeatAsync } from "./race.js";

await tf.setBackend("wasm");
console.log(`Node ${process.version}, TensorFlow.js ${tf.version_core}, ${tf.getBackend()}: fastest rounds, in ms`);
const EPS = 1e-3;
const [OWN, HAND] = ["tf.layers.layerNormalization", "tf.moments and five ops by hand"];

/** The fastest round of each. */
async function fastest(contenders: Record<string, () => unknown>): Promise<Record<string, number>> {
  const times = await race(Object.values(contenders).map((run) => ({ call: repeatAsync(run) })));
  return Object.fromEntries(Object.keys(contenders).map((name, i) => [name, times[i]![0]!]));
}

function print(what: string, times: Record<string, number>): void {
  const ours = times.ours as number;
  console.log(`\n${what}`);
  for (const [name, time] of Object.entries(times).sort(([, a], [, b]) => b - a)) {
    console.log(`  ${name.padEnd(32)}${time.toFixed(3).padStart(10)}${(time / ours).toFixed(1).padStart(8)} x ours`);
  }
}

type F = (x: Tensor) => Tensor;

function map<A, B>(object: Record<string, A>, f: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, f(value)]));
}

function byHand(x: Tensor, gamma: Tensor, beta: Tensor): Tensor {
  const { mean, variance } = tf.moments(x, -1, true);
  return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, EPS))), gamma), beta);
}

for (const [rows, cols] of [
  [16, 256],
  [1024, 768],
] as const) {
  const numbers = normal(rows * cols, 1);
  const [x, dy] = [numbers, normal(rows * cols, 2)].map((data) => tf.tensor2d(data, [rows, cols])) as [Tensor, Tensor];
  const [weight, bias] = [normal(cols, 3), normal(cols, 4)];
  const [gamma, beta] = [tf.tensor1d(weight), tf.tensor1d(bias)];
  const layers = [tfl.layers.layerNormalization({ epsilon: EPS }), layerNormalization({ epsilon: EPS })] as const;
  for (const layer of layers) {
    layer.build([rows, cols]);
    layer.setWeights([gamma, beta]);
  }
  const [own, ours] = layers.map((layer) => (x: Tensor) => layer.apply(x) as Tensor) as [F, F];
  const contenders: Record<string, F> = { [OWN]: own, [HAND]: (x) => byHand(x, gamma, beta), ours };
  const input = { x: numbers, weight, bias, rows, cols, eps: EPS };
  for (const [name, f] of Object.entries(contenders)) {
    const units = tf.tidy(() => errorsOf({ y: f(x).dataSync() }, input).y ?? Infinity);
    // Five roundings and sums in float32, whose errors grow with the root of the columns.
    if (!(units < (name === "ours" ? LIMITS.layerNorm.y : 4 * Math.sqrt(cols))))
      throw new Error(`${name}: ${units} units off`);
  }
  const forward = (f: F) => () => tf.tidy(() => void f(x).dataSync());
  const loss = (f: F) => () => {
    const gradient = tf.grad((x: Tensor) => tf.sum(tf.mul(f(x), dy)));
    tf.tidy(() => void gradient(x).dataSync());
  };
  const gradient = (f: F) => () => tf.tidy(() => void tf.grad(f)(x, dy).dataSync());
  print(`forward, ${rows} x ${cols}`, await fastest(map(contenders, forward)));
  const withLoss = { "that loss alone": (x: Tensor) => tf.reshape(x, x.shape), ...contenders };
  print(`forward and backward, with a loss of sum(y * dy), ${rows} x ${cols}`, await fastest(map(withLoss, loss)));
  print(`forward and backward, dy given, ${rows} x ${cols}`, await fastest(map(contenders, gradient)));
}

interface LayerOfWeights extends tfl.layers.Layer {
  gamma: { read(): Tensor };
  beta: { read(): Tensor };
}

/** tfjs' own layer with the ops by hand. */
class ByHand extends (tfl.layers.layerNormalization().constructor as new () => LayerOfWeights) {
  override call(inputs: Tensor[]): Tensor {
    return tf.tidy(() => byHand(inputs[0] as Tensor, this.gamma.read(), this.beta.read()));
  }
}

const [length, batch] = [32, 16];
const text = "a row of numbers comes in, and a row of numbers goes out. ".repeat(9);
const { characters, next } = batchesOf(text, length, batch);
const sizes = { characters, length, width: 64, heads: 2, blocks: 4 };
const norms = { [OWN]: tfl.layers.layerNormalization, [HAND]: () => new ByHand() as never, ours: layerNormalization };
const models = map(norms, (norm) => transformer(norm, sizes));
const { x, y } = next();
const reference = tf.tidy(() => (models[OWN]!.predict(x) as Tensor).dataSync());
for (const [name, model] of Object.entries(models)) {
  const got = tf.tidy(() => (model.predict(x) as Tensor).dataSync());
  if (!got.every((value, i) => Math.abs(value - reference[i]!) < 1e-5)) throw new Error(`${name}: other predictions`);
}
const predict = (model: tfl.LayersModel) => () => tf.tidy(() => void (model.predict(x) as Tensor).dataSync());
const what = `of four blocks, ${batch} x ${length} tokens of ${sizes.width}`;
print(`prediction of a transformer ${what}`, await fastest(map(models, predict)));
print(
  `step of training of a transformer ${what}`,
  await fastest(map(models, (model) => () => model.trainOnBatch(x, y))),
);
