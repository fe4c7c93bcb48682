// The layer normalization chapter of a tutorial GPT in PyTorch: by hand, in a toy model, and what it does to a deep stack.

import { readFileSync } from "node:fs";
import erf from "@stdlib/math-base-special-erf";
import { LayerNorm, layerNormWithStats, Tensor } from "layernorm-wasm";
import { claim, compare, heading, section } from "./report.js";
import { parseSafetensors } from "./safetensors.js";

heading("A tutorial GPT in PyTorch");

section("By hand, x = (1, 2, 3, 4)");
{
  const x = new Float32Array([1, 2, 3, 4]);
  const ln = new LayerNorm(4, { eps: 1e-5 });
  const { y, mean, rstd } = layerNormWithStats(x, 4);
  const variance = 1 / rstd[0] ** 2 - 1e-5;
  compare("mean", mean[0], 2.5, 0);
  compare("variance", variance, 1.25, 1e-6);
  compare("standard deviation", Math.sqrt(variance), 1.118034, 1e-6);
  compare("normalized", ln.forward(x), [-1.3416, -0.4472, 0.4472, 1.3416]);
  compare("its standard deviation", std(y, 0), 0.999996, 0.5e-6);

  ln.weight?.data.fill(2);
  ln.bias?.data.fill(1);
  compare("weight 2, bias 1", ln.forward(x), [-1.6833, 0.1056, 1.8944, 3.6833]);
  compare("zeros", new LayerNorm(4).forward(new Float32Array(4)), [0, 0, 0, 0], 0);
  compare("zeros, eps 0", new LayerNorm(4, { eps: 0 }).forward(new Float32Array(4)), [NaN, NaN, NaN, NaN]);
}

section("Tokens are normalized each by itself");
{
  const ln = new LayerNorm(4);
  const rows = [
    [0.3, -1.2, 4, 0.01],
    [7, 7.5, -2, 1],
    [-3, 0.2, 0.1, 9],
    [100, -100, 3, 5],
  ];
  const order = [2, 0, 3, 1];
  const y = ln.forward(new Tensor([1, 4, 4], rows.flat()));
  const permuted = ln.forward(
    new Tensor(
      [1, 4, 4],
      order.flatMap((i) => rows[i]),
    ),
  );
  const expected = order.flatMap((i) => [...y.data.subarray(i * 4, i * 4 + 4)]);
  claim(
    "permuted rows give permuted results",
    bits(permuted.data) === bits(expected),
    "equal to the bit",
    bits(permuted.data) === bits(expected),
  );
}

section("The toy model, vocabulary 4, embedding 4");
{
  const embedding = new Float32Array([
    -1.12583983, -1.1523602, -0.25057858, -0.43387881, 0.84871036, 0.69200915, -0.31601277, -2.11521935, 0.32227492,
    -1.26333475, 0.34998319, 0.30813393, 0.11984151, 1.2376579, 1.11677763, -0.24727815,
  ]);
  const ln = new LayerNorm(4);
  const linear = (/** @type {number} */ inputs, /** @type {number} */ outputs) => inputs * outputs + outputs;
  const mlp = linear(4, 16) + linear(16, 4);
  compare("parameters: embedding", embedding.length, 16);
  compare("parameters: layer norm", parametersOf(ln), 8);
  compare("parameters: MLP, 4 to 16 to 4", mlp, 148);
  compare("parameters in all", embedding.length + parametersOf(ln) + mlp, 172);

  const y = ln.forward(embedding);
  const tokens = [0, 1, 2, 3].map((i) => y.subarray(i * 4, i * 4 + 4));
  const stds = [0.999969, 0.999996, 0.999989, 0.999988];
  tokens.forEach((token, i) => {
    const average = token.reduce((sum, value) => sum + value, 0) / 4;
    claim(`token ${i}: mean`, average, "below 2e-7", Math.abs(average) < 2e-7);
    compare(`token ${i}: standard deviation`, std(token, 0), stds[i], 0.6e-6);
  });
}

section("Drift: 30 residual MLPs, 16 channels, [1, 8, 16]");
{
  const { tensors, metadata } = parseSafetensors(
    readFileSync(new URL("../test/fixtures/drift.safetensors", import.meta.url)),
  );
  console.log(`  (weights and input of PyTorch ${metadata.torch})`);
  const values = (/** @type {string} */ name) => {
    const entry = tensors.get(name);
    if (!(entry?.data instanceof Float32Array)) throw new Error(`the fixture has no ${name}`);
    return entry.data;
  };
  const ln = new LayerNorm(16).eval();
  const mlp = (/** @type {number} */ layer, /** @type {Float32Array} */ x) => {
    const hidden = linear(x, values(`${layer}.up.weight`), values(`${layer}.up.bias`)).map(gelu);
    return linear(hidden, values(`${layer}.down.weight`), values(`${layer}.down.bias`));
  };
  /** @param {(x: Float32Array, layer: number) => Float32Array} block */
  const stack = (block) => {
    const stream = [values("x")];
    for (let layer = 0; layer < 30; layer++) stream.push(block(stream[layer], layer));
    return stream;
  };

  const pre = stack((x, layer) => add(x, mlp(layer, ln.forward(x))));
  compare("std of the input", std(pre[0], 1), 0.9369);
  const published = { 1: 0.992292, 5: 1.069066, 10: 1.146214, 15: 1.275711, 20: 1.454677, 30: 1.690578 };
  for (const [layer, expected] of Object.entries(published)) {
    compare(`std, pre-norm, after layer ${layer}`, std(pre[Number(layer)], 1), expected, 1e-6);
  }
  const bare = stack((x, layer) => add(x, mlp(layer, x)));
  compare("std, no layer norm, after layer 30", std(bare[30], 1), 2.212);
  const post = stack((x, layer) => ln.forward(add(x, mlp(layer, x))));
  compare("std, post-norm, after layer 30", std(post[30], 1), 1.0039);
}

section("GPT-2 small: 12 blocks of two layer norms, and one at the end");
{
  const norms = Array.from({ length: 25 }, () => new LayerNorm(768).eval());
  compare("parameters a layer norm", parametersOf(norms[0]), 1536);
  compare(
    "parameters of all 25",
    norms.reduce((sum, ln) => sum + parametersOf(ln), 0),
    38400,
  );
  // The stream of 4 tokens through the 24 sublayers, each a GELU here: what matters is where the norm stands.
  const x = Float32Array.from({ length: 4 * 768 }, (_, i) => 2 * Math.sin(i * i));
  let pre = x;
  let post = x;
  for (const ln of norms.slice(0, 24)) {
    pre = add(pre, ln.forward(pre).map(gelu));
    post = ln.forward(add(post, post.map(gelu)));
  }
  const stds = (/** @type {Float32Array} */ stream) =>
    [0, 1, 2, 3].map((i) => std(stream.subarray(i * 768, (i + 1) * 768), 0));
  claim(
    "token stds, pre-norm stream",
    stds(pre),
    "none is 1",
    stds(pre).every((value) => Math.abs(value - 1) > 0.1),
  );
  compare("token stds, pre-norm, after the last norm", stds(norms[24].forward(pre)), [1, 1, 1, 1]);
  compare("token stds, post-norm stream", stds(post), [1, 1, 1, 1]);
}

/** @param {LayerNorm} ln */
function parametersOf(ln) {
  return ln.parameters().reduce((sum, parameter) => sum + parameter.size, 0);
}

/** Rows of x times a weight of [outputs, inputs], plus a bias. @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} bias */
function linear(x, weight, bias) {
  const outputs = bias.length;
  const inputs = weight.length / outputs;
  return Float32Array.from({ length: (x.length / inputs) * outputs }, (_, at) => {
    const row = Math.floor(at / outputs) * inputs;
    const column = at % outputs;
    let sum = bias[column];
    for (let i = 0; i < inputs; i++) sum += x[row + i] * weight[column * inputs + i];
    return sum;
  });
}

/** The exact GELU, x times the normal distribution at x. @param {number} x */
function gelu(x) {
  return (x * (1 + erf(x / Math.SQRT2))) / 2;
}

/** @param {Float32Array} a @param {Float32Array} b */
function add(a, b) {
  return a.map((value, i) => value + b[i]);
}

/** Standard deviation with the divisor n - `correction`. @param {Float32Array} values @param {number} correction */
function std(values, correction) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - correction));
}

/** The bytes of some floats, to be compared. @param {ArrayLike<number>} values */
function bits(values) {
  return new Uint32Array(Float32Array.from(values).buffer).join();
}
