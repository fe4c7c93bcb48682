// The layer norm step of a GPT-2 built in Modular MAX: a module of ones and zeros over the functional layer_norm.

import { LayerNorm, layerNorm, Tensor } from "layernorm-wasm";
import { claim, compare, heading } from "./report.js";

heading("A GPT-2 step in Modular MAX: LayerNorm(dim, eps=1e-5), dim 768");

const dim = 768;
const ones = new Tensor([dim], new Float32Array(dim).fill(1));
const zeros = new Tensor([dim]);
const module = new LayerNorm(dim, { eps: 1e-5 });
const starts = module.weight?.data.every((value) => value === 1) && module.bias?.data.every((value) => value === 0);
compare("shapes of weight and bias", [module.weight?.size ?? 0, module.bias?.size ?? 0], [dim, dim], 0);
claim("weight = ones([768]), bias = zeros([768])", starts ?? false, "true", starts ?? false);

const x = new Tensor(
  [2, 5, dim],
  Float32Array.from({ length: 2 * 5 * dim }, (_, i) => 3 * Math.sin(i * i) + 0.5),
);
const y = module.forward(x);
const functional = layerNorm(x, dim, ones, zeros, 1e-5);
compare("the shape of the result", y.shape, [2, 5, dim], 0);
const same = y.data.every((value, i) => value === functional.data[i]);
claim("layer_norm(x, gamma, beta, epsilon)", same, "the module's result", same);

let mean = 0;
let std = 0;
for (let row = 0; row < 10; row++) {
  const token = y.data.subarray(row * dim, (row + 1) * dim);
  const average = token.reduce((sum, value) => sum + value, 0) / dim;
  const variance = token.reduce((sum, value) => sum + (value - average) ** 2, 0) / dim;
  mean = Math.max(mean, Math.abs(average));
  std = Math.max(std, Math.abs(Math.sqrt(variance) - 1));
}
claim("largest mean of a token", mean, "0 within 1e-6", mean < 1e-6);
claim("largest std - 1 of a token", std, "0 within 1e-5", std < 1e-5);
