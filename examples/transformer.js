// A small transformer in TensorFlow.js, whose norms are a parameter: blocks of causal attention and an MLP, with a norm
// before each and one at the end. It predicts the next character at each place of a text.

import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import "@tensorflow/tfjs-backend-wasm";
import { normal } from "./random.js";

export { tf, tfl };

/** Causal attention. Takes queries, keys and values side by side, [batch, length, 3 * width]. */
class Attention extends tfl.layers.Layer {
  static className = "Attention";

  /** @param {{ heads: number }} args */
  constructor({ heads, ...args }) {
    super(args);
    this.heads = heads;
  }

  /** @override @param {any} shape */
  computeOutputShape([batch, length, width]) {
    return [batch, length, width / 3];
  }

  /** @override @param {any} inputs */
  call(inputs) {
    return tf.tidy(() => {
      const [x] = [inputs].flat();
      const [batch, length, width] = x.shape;
      const [heads, size] = [this.heads, width / 3 / this.heads];
      const [q, k, v] = tf
        .split(x, 3, 2)
        .map((part) => tf.transpose(tf.reshape(part, [batch, length, heads, size]), [0, 2, 1, 3]));
      const later = tf.sub(tf.linalg.bandPart(tf.ones([length, length]), -1, 0), 1);
      const scores = tf.add(tf.mul(tf.matMul(q, k, false, true), size ** -0.5), tf.mul(later, 1e9));
      const mixed = tf.matMul(tf.softmax(scores), v);
      return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch, length, width / 3]);
    });
  }
}

/**
 * @param {() => import("@tensorflow/tfjs-layers").layers.Layer} norm
 * @param {{ characters: number, length: number, width: number, heads: number, blocks: number }} sizes
 */
export function transformer(norm, { characters, length, width, heads, blocks }) {
  let seed = 1;
  const dense = (/** @type {number} */ units, activation = /** @type {"relu" | "softmax" | "linear"} */ ("linear")) => {
    const kernelInitializer = tfl.initializers.glorotNormal({ seed: seed++ });
    return tfl.layers.dense({ units, activation, kernelInitializer });
  };
  /** @type {(layer: import("@tensorflow/tfjs-layers").layers.Layer, x: any) => any} */
  const apply = (layer, x) => layer.apply(x);
  const input = tfl.input({ shape: [length, characters + length] });
  let x = apply(dense(width), input);
  for (let block = 0; block < blocks; block++) {
    const attention = apply(new Attention({ heads }), apply(dense(3 * width), apply(norm(), x)));
    x = apply(tfl.layers.add(), [x, apply(dense(width), attention)]);
    const hidden = apply(dense(4 * width, "relu"), apply(norm(), x));
    x = apply(tfl.layers.add(), [x, apply(dense(width), hidden)]);
  }
  const outputs = apply(dense(characters, "softmax"), apply(norm(), x));
  const model = tfl.model({ inputs: input, outputs });
  model.compile({ optimizer: tf.train.adam(0.003), loss: "categoricalCrossentropy" });
  return model;
}

/**
 * Batches of a text: at each place its character and the place itself, one-hot, and the character that follows.
 * @param {string} text @param {number} length @param {number} batch
 */
export function batchesOf(text, length, batch) {
  const alphabet = [...new Set(text)].sort();
  const codes = Array.from(text, (character) => alphabet.indexOf(character));
  const random = normal(5);
  const start = () => Math.floor(Math.abs(random() * 1e6)) % (codes.length - length);
  return {
    characters: alphabet.length,
    next() {
      const starts = Array.from({ length: batch }, start);
      const rows = starts.map((at) => codes.slice(at, at + length + 1));
      const depth = alphabet.length + length;
      const x = tf.buffer([batch, length, depth]);
      const y = tf.buffer([batch, length, alphabet.length]);
      for (const [row, list] of rows.entries()) {
        for (let place = 0; place < length; place++) {
          x.set(1, row, place, list[place]);
          x.set(1, row, place, alphabet.length + place);
          y.set(1, row, place, list[place + 1]);
        }
      }
      return { x: x.toTensor(), y: y.toTensor() };
    },
  };
}
