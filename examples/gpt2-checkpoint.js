// A checkpoint shaped like GPT-2's, in bfloat16: each of the 25 layer norms is loaded from it by prefix.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { LayerNorm } from "layernorm-wasm";
import { claim, compare, heading } from "./report.js";
import { parseSafetensors } from "./safetensors.js";

const file = readFileSync(new URL("../test/fixtures/gpt2-norms.safetensors", import.meta.url));
const { tensors, metadata } = parseSafetensors(file);
heading(`A checkpoint of GPT-2's shape in bfloat16, by PyTorch ${metadata.torch}`);

const checkpoint = Object.fromEntries(tensors);
const names = Array.from({ length: 12 }, (_, layer) => [`h.${layer}.ln_1`, `h.${layer}.ln_2`]).flat();
names.push("ln_f");
const norms = names.map((name) => {
  const norm = new LayerNorm(768).eval();
  norm.loadStateDict(checkpoint, { prefix: `${name}.` });
  return norm;
});
compare("layer norms", norms.length, 25, 0);
const types = new Set(names.map((name) => `${checkpoint[`${name}.weight`].dtype} ${checkpoint[`${name}.bias`].dtype}`));
compare("types of weight and bias", [...types].join(), "BF16 BF16");

// A bfloat16 is a float32, too: nothing may be rounded, so that the bytes are those that PyTorch makes of them.
const hash = createHash("sha256");
for (const norm of norms) for (const { data } of norm.parameters()) hash.update(data);
const digest = hash.digest("hex");
claim("all weights and biases as float32", digest.slice(0, 16), "the bytes of PyTorch", digest === metadata.float32);

// The kernels are held to 4 units of 2^-23 of |weight| max|xhat| + |bias|. The file's float32 adds half of one.
const x = /** @type {Float32Array} */ (checkpoint.x.data);
const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
const deviation = Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length);
const largest = x.reduce((most, value) => Math.max(most, Math.abs(value - mean) / deviation), 0);
const units = norms.map((norm, at) => {
  const expected = checkpoint[`y.${names[at]}`].data;
  const [weight, bias] = norm.parameters().map(({ data }) => data);
  const off = norm.forward(x).map((value, i) => {
    const scale = Math.abs(weight[i]) * largest + Math.abs(bias[i]);
    return Math.abs(value - expected[i]) / (2 ** -23 * scale);
  });
  return off.reduce((worst, value) => Math.max(worst, value), 0);
});
const worst = Math.max(...units);
claim("results of all 25, units off", worst, "PyTorch's in float64, below 4.5", worst < 4.5);

const last = new LayerNorm(768);
const { missingKeys, unexpectedKeys } = last.loadStateDict(checkpoint, { prefix: "h.12.ln_1.", strict: false });
compare("a layer that isn't there", [...missingKeys, ...unexpectedKeys].join(), "h.12.ln_1.weight,h.12.ln_1.bias");
