// A stack of Llama-shaped blocks, forward and backward, with weights and results of PyTorch: RMSNorm before attention
// and MLP, norms of queries and keys, a gated MLP. Each norm makes the addition to the residual stream before it, too.

import { readFileSync } from "node:fs";
import { Parameter, RMSNorm, Tensor } from "layernorm-wasm";
import { GatedMLP, Linear } from "./linear.js";
import { claim, heading } from "./report.js";
import { parseSafetensors } from "./safetensors.js";

const file = readFileSync(new URL("../test/fixtures/llama.safetensors", import.meta.url));
const { tensors, metadata } = parseSafetensors(file);
const checkpoint = Object.fromEntries(tensors);
const [dim, heads, headDim, blocks] = ["dim", "heads", "head_dim", "blocks"].map((name) => Number(metadata[name]));
const [tokens] = checkpoint.x.shape;
const eps = 1e-6;
heading(`Llama-shaped: ${blocks} blocks of RMSNorm, beside PyTorch ${metadata.torch}`);

/** Every parameter by its name in the checkpoint. @type {Map<string, Parameter>} */
const parameters = new Map();

/** @param {string} name @param {number} cols */
function rmsNorm(name, cols) {
  const norm = new RMSNorm(cols, { eps });
  norm.loadStateDict(checkpoint, { prefix: `${name}.` });
  parameters.set(`${name}.weight`, norm.weight);
  return norm;
}

/** A matrix. A bfloat16 is the upper half of a float32. @param {string} name */
function matrix(name) {
  const { shape, data } = checkpoint[`${name}.weight`];
  const floats = new Float32Array(Uint32Array.from(data, (bits) => bits << 16).buffer);
  const parameter = new Parameter(shape, floats);
  parameters.set(`${name}.weight`, parameter);
  return parameter;
}

/** Causal attention of all heads to one key and value. */
class Attention {
  /** @param {string} name */
  constructor(name) {
    const [q, k, v, o] = ["q", "k", "v", "o"].map((part) => new Linear(matrix(`${name}.${part}_proj`)));
    this.project = { q, k, v, o };
    // Rows of one head each: the norm sees [tokens, heads, headDim] as tokens * heads rows.
    this.norm = { q: rmsNorm(`${name}.q_norm`, headDim), k: rmsNorm(`${name}.k_norm`, headDim) };
    const make = () => ({
      q: new Tensor([tokens, heads, headDim]),
      k: new Tensor([tokens, headDim]),
      v: new Tensor([tokens, headDim]),
      mixed: new Tensor([tokens, heads, headDim]),
    });
    this.raw = make();
    this.values = make();
    this.gradients = make();
    this.weights = new Float64Array(heads * tokens * tokens);
  }

  /** @param {Tensor} x @param {Tensor} out */
  forward(x, out) {
    const { project, norm, raw, values, weights } = this;
    norm.q.forward(project.q.forward(x, raw.q), { out: values.q });
    norm.k.forward(project.k.forward(x, raw.k), { out: values.k });
    const [q, k, v, mixed] = [values.q.data, values.k.data, project.v.forward(x, values.v).data, values.mixed.data];
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const at = (t * heads + h) * headDim;
        const row = weights.subarray((t * heads + h) * tokens).fill(0, 0, tokens);
        let total = 0;
        for (let s = 0; s <= t; s++) {
          row[s] = Math.exp(dot(q, at, k, s * headDim) / Math.sqrt(headDim));
          total += row[s];
        }
        for (let s = 0; s <= t; s++) row[s] /= total;
        for (let i = 0; i < headDim; i++) {
          let sum = 0;
          for (let s = 0; s <= t; s++) sum += row[s] * v[s * headDim + i];
          mixed[at + i] = sum;
        }
      }
    }
    return project.o.forward(values.mixed, out);
  }

  /** @param {Tensor} dy @param {Tensor} out */
  backward(dy, out) {
    const { project, norm, values, gradients, weights } = this;
    project.o.backward(dy, gradients.mixed);
    const [q, k, v] = [values.q.data, values.k.data, values.v.data];
    const [dq, dmixed] = [gradients.q.data, gradients.mixed.data];
    // Keys and values collect from all heads: in float64 until the end.
    const dk = new Float64Array(tokens * headDim);
    const dv = new Float64Array(tokens * headDim);
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const at = (t * heads + h) * headDim;
        const row = weights.subarray((t * heads + h) * tokens);
        const dweights = Array.from({ length: t + 1 }, (_, s) => dot(dmixed, at, v, s * headDim));
        const mean = dweights.reduce((sum, value, s) => sum + value * row[s], 0);
        const dscores = dweights.map((value, s) => (row[s] * (value - mean)) / Math.sqrt(headDim));
        for (let i = 0; i < headDim; i++) {
          let sum = 0;
          for (let s = 0; s <= t; s++) {
            sum += dscores[s] * k[s * headDim + i];
            dk[s * headDim + i] += dscores[s] * q[at + i];
            dv[s * headDim + i] += row[s] * dmixed[at + i];
          }
          dq[at + i] = sum;
        }
      }
    }
    gradients.k.data.set(dk);
    gradients.v.data.set(dv);
    project.q.backward(norm.q.backward(gradients.q, { out: gradients.q }), out);
    project.k.backward(norm.k.backward(gradients.k, { out: gradients.k }), out, true);
    return project.v.backward(gradients.v, out, true);
  }
}

/** @param {Float32Array} a @param {number} atA @param {Float32Array} b @param {number} atB */
function dot(a, atA, b, atB) {
  let sum = 0;
  for (let i = 0; i < headDim; i++) sum += a[atA + i] * b[atB + i];
  return sum;
}

const row = () => new Tensor([tokens, dim]);
const sublayers = Array.from({ length: blocks }, (_, block) => {
  const name = `layers.${block}`;
  const [gate, up, down] = ["gate", "up", "down"].map((part) => matrix(`${name}.mlp.${part}_proj`));
  return [
    { norm: rmsNorm(`${name}.input_layernorm`, dim), layer: new Attention(`${name}.self_attn`) },
    { norm: rmsNorm(`${name}.post_attention_layernorm`, dim), layer: new GatedMLP(gate, up, down, tokens) },
  ];
}).flat();
const last = rmsNorm("norm", dim);

// Forward: each norm adds what the last sublayer made to the stream. Backward needs every sum, so each has a Tensor.
let stream = new Tensor([tokens, dim], checkpoint.x.data);
/** @type {Tensor | null} */
let made = null;
for (const { norm, layer } of sublayers) {
  const normalized = row();
  if (made === null) norm.forward(stream, { out: normalized });
  else {
    const sum = row();
    norm.forward(made, { residual: stream, sum, out: normalized });
    stream = sum;
  }
  made = layer.forward(normalized, row());
}
const y = last.forward(/** @type {Tensor} */ (made), { residual: stream, sum: row() });

// Backward: the gradient of the stream takes in that of each norm, in place.
const stepped = row();
const dstream = last.backward(new Tensor([tokens, dim], checkpoint.dy.data));
for (const { norm, layer } of sublayers.slice().reverse()) {
  norm.backward(layer.backward(dstream, stepped), { add: dstream, out: dstream });
}

// Between x and a gradient lie four blocks, forward and backward. On the longest way through one, three norms are off
// by 1.5 units each, and eight results are rounded by half a unit. These errors are independent: their squares add.
const limit = Math.sqrt(4 * 2 * (3 * 1.5 ** 2 + 8 * 0.5 ** 2));
/** @type {Record<string, number>} */
const off = JSON.parse(metadata.off);
/** @type {Map<string, { ours: number, theirs: number, count: number }>} */
const kinds = new Map();
const gradients = Array.from(parameters, ([name, parameter]) => [`grad.${name}`, parameter.grad]);
const results = /** @type {[string, Float32Array][]} */ ([["y", y.data], ["grad.x", dstream.data], ...gradients]);
for (const [name, got] of results) {
  const expected = /** @type {Float32Array} */ (checkpoint[name].data);
  if (got.length !== expected.length) throw new Error(`${name} has ${got.length} elements, not ${expected.length}`);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const error = got.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  const kind = name.replace(/layers\.\d+\.(self_attn\.|mlp\.)?/, "");
  const { ours, theirs, count } = kinds.get(kind) ?? { ours: 0, theirs: 0, count: 0 };
  kinds.set(kind, {
    ours: Math.max(ours, error / largest / 2 ** -23),
    theirs: Math.max(theirs, off[name]),
    count: count + 1,
  });
}
console.log("  errors in units of 2^-23 of the largest element, beside PyTorch in float64");
for (const [name, { ours, theirs, count }] of kinds) {
  const title = count > 1 ? `${name}, ${count}` : name;
  claim(title, ours, `below ${limit.toFixed(1)}; PyTorch in float32 ${theirs}`, ours < limit);
}
const expected = Object.keys(off).length;
claim("results and gradients compared", results.length, `${expected}, all of the file`, results.length === expected);
