// all-MiniLM-L6-v2 in TensorFlow.js: an encoder that makes 384 numbers of a sentence, which lie close together for
// sentences of similar meaning. It has six blocks of attention and an MLP. A norm follows each of these, of the sum of
// what came in and what came out.
//
// Sentences are embedded one at a time, so that nothing is padded and attention needs no mask.

import "@tensorflow/tfjs-backend-wasm";
import { Tokenizer } from "@huggingface/tokenizers";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import { layerNorm } from "layernorm-wasm/tfjs";
import { parseSafetensors } from "../safetensors.js";

export { tf };

/**
 * A layer norm of x + residual.
 * @typedef {(x: tf.Tensor, residual: tf.Tensor) => tf.Tensor} Norm
 */

/**
 * The norms to compare, by name: each is made of its weights.
 * @type {Record<string, (gamma: tf.Tensor, beta: tf.Tensor, epsilon: number) => Norm>}
 */
export const NORMS = {
  "tf.layers.layerNormalization"(gamma, beta, epsilon) {
    const layer = tfl.layers.layerNormalization({ epsilon });
    layer.build([null, ...gamma.shape]);
    layer.setWeights([gamma, beta]);
    return (x, residual) => /** @type {tf.Tensor} */ (layer.apply(tf.add(x, residual)));
  },
  "tf.moments by hand": (gamma, beta, epsilon) => (x, residual) => {
    const sum = tf.add(x, residual);
    const { mean, variance } = tf.moments(sum, -1, true);
    return tf.add(tf.mul(tf.mul(tf.sub(sum, mean), tf.rsqrt(tf.add(variance, epsilon))), gamma), beta);
  },
  "layernorm-wasm": (gamma, beta, epsilon) => (x, residual) => layerNorm(x, gamma, beta, -1, epsilon, { residual }),
};

/**
 * Gives a file of the model.
 * @typedef {(name: string) => Promise<Uint8Array>} Read
 */

export class Encoder {
  /** @param {Read} read */
  static async load(read) {
    await tf.setBackend("wasm");
    const json = async (/** @type {string} */ name) => JSON.parse(new TextDecoder().decode(await read(name)));
    const [config, ...files] = await Promise.all(["config.json", "tokenizer.json", "tokenizer_config.json"].map(json));
    const { tensors } = parseSafetensors(await read("model.safetensors"));
    return new Encoder(config, new Tokenizer(files[0], files[1]), tensors);
  }

  /**
   * @param {{ num_hidden_layers: number, num_attention_heads: number, layer_norm_eps: number }} config
   * @param {Tokenizer} tokenizer
   * @param {Map<string, import("../safetensors.js").Entry>} tensors
   */
  constructor(config, tokenizer, tensors) {
    this.tokenizer = tokenizer;
    /** @param {string} name */
    const tensor = (name) => {
      const entry = tensors.get(name);
      if (!entry) throw new Error(`${name} is missing`);
      return tf.tensor(/** @type {Float32Array} */ (entry.data), entry.shape);
    };
    /** @param {string} name */
    const norms = (name) => {
      const [gamma, beta] = [tensor(`${name}.LayerNorm.weight`), tensor(`${name}.LayerNorm.bias`)];
      return Object.fromEntries(
        Object.entries(NORMS).map(([norm, make]) => [norm, make(gamma, beta, config.layer_norm_eps)]),
      );
    };
    /**
     * PyTorch has [outputs, inputs]. With these, the backend takes 12 × as long as with [inputs, outputs].
     * @param {string[]} names
     */
    const linear = (...names) => {
      const kernel = tf.tidy(() => tf.transpose(tf.concat(names.map((name) => tensor(`${name}.weight`)))));
      const bias = tf.tidy(() => tf.concat(names.map((name) => tensor(`${name}.bias`))));
      return (/** @type {tf.Tensor} */ x) =>
        tf.fused.matMul({ a: /** @type {tf.Tensor2D} */ (x), b: /** @type {tf.Tensor2D} */ (kernel), bias });
    };
    const embeddings = (/** @type {string} */ name) => tensor(`embeddings.${name}_embeddings.weight`);
    this.words = embeddings("word");
    this.places = tf.tidy(() => tf.add(embeddings("position"), tf.slice(embeddings("token_type"), 0, 1)));
    this.norms = norms("embeddings");
    this.heads = config.num_attention_heads;
    this.blocks = Array.from({ length: config.num_hidden_layers }, (_, i) => {
      const [block, attention] = [`encoder.layer.${i}`, `encoder.layer.${i}.attention`];
      return {
        project: linear(...["query", "key", "value"].map((part) => `${attention}.self.${part}`)),
        mix: linear(`${attention}.output.dense`),
        attentionNorms: norms(`${attention}.output`),
        up: linear(`${block}.intermediate.dense`),
        down: linear(`${block}.output.dense`),
        norms: norms(`${block}.output`),
      };
    });
  }

  /** The ids of the tokens of a text. The model takes 512 at most. @param {string} text */
  tokens(text) {
    return this.tokenizer.encode(text).ids;
  }

  /**
   * The embedding of a sentence, of length 1, and how many milliseconds that took: in all, and by the norms with their
   * additions.
   * @param {number[]} tokens
   * @param {string} norm a name of NORMS
   */
  embed(tokens, norm) {
    let norms = 0;
    /** @type {(those: Record<string, Norm>, x: tf.Tensor, residual: tf.Tensor) => tf.Tensor} */
    const normalize = (those, x, residual) => {
      const start = performance.now();
      const y = those[norm](x, residual);
      norms += performance.now() - start;
      return y;
    };
    const start = performance.now();
    const embedding = tf.tidy(() => {
      const words = tf.gather(this.words, tf.tensor1d(tokens, "int32"));
      let x = normalize(this.norms, words, tf.slice(this.places, 0, tokens.length));
      for (const { project, mix, attentionNorms, up, down, norms } of this.blocks) {
        x = normalize(attentionNorms, mix(this.attention(project(x))), x);
        x = normalize(norms, down(gelu(up(x))), x);
      }
      const mean = tf.mean(x, 0);
      return /** @type {Float32Array} */ (tf.div(mean, tf.norm(mean)).dataSync());
    });
    return { embedding, total: performance.now() - start, norms };
  }

  /** Every token looks at every token. @param {tf.Tensor} x queries, keys and values side by side */
  attention(x) {
    const [length, width] = x.shape;
    const size = width / 3 / this.heads;
    const [q, k, v] = tf.unstack(tf.transpose(tf.reshape(x, [length, 3, this.heads, size]), [1, 2, 0, 3]));
    const scores = tf.matMul(tf.mul(q, size ** -0.5), k, false, true);
    return tf.reshape(tf.transpose(tf.matMul(tf.softmax(scores), v), [1, 0, 2]), [length, width / 3]);
  }
}

/** x times the share of a normal distribution that lies below it. @param {tf.Tensor} x */
function gelu(x) {
  return tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1));
}

/** The indices of the largest cosines first, with these: embeddings have the length 1. */
export function nearest(/** @type {Float32Array} */ embedding, /** @type {Float32Array[]} */ others) {
  return others
    .map((other, index) => ({ index, cosine: other.reduce((sum, value, i) => sum + value * embedding[i], 0) }))
    .sort((a, b) => b.cosine - a.cosine);
}
