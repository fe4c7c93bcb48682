// A pre-norm transformer block for inference, as torch.nn.TransformerEncoderLayer(norm_first=True) computes it:
//
//   x + attention(norm1(x)), then x + mlp(norm2(x))
//
// The layer norms are ours; attention and the two linear layers are plain loops.

import { LayerNorm } from "layernorm-wasm";

export interface Weights {
  [name: string]: { shape: number[]; data: Float32Array | Float64Array | Uint16Array };
}

export class Block {
  readonly #weights: Weights;
  readonly #heads: number;
  readonly #norm1: LayerNorm;
  readonly #norm2: LayerNorm;
  readonly dim: number;

  /** @param weights as in the state_dict of PyTorch's layer */
  constructor(weights: Weights, heads: number) {
    this.#weights = weights;
    this.#heads = heads;
    this.dim = this.#get("norm1.weight").length;
    this.#norm1 = this.#norm("norm1");
    this.#norm2 = this.#norm("norm2");
  }

  /** @param x [tokens, dim], one sequence */
  forward(x: Float32Array): Float32Array {
    const attended = add(x, this.#attention(this.#norm1.forward(x)));
    const hidden = this.#linear(this.#norm2.forward(attended), "linear1").map((value) => Math.max(value, 0));
    return add(attended, this.#linear(hidden, "linear2"));
  }

  #get(name: string): Float32Array | Float64Array {
    const entry = this.#weights[name];
    if (!entry) throw new Error(`${name} is missing`);
    if (entry.data instanceof Uint16Array) throw new Error(`${name} has 16-bit floats, expected 32 bits`);
    return entry.data;
  }

  #norm(name: string): LayerNorm {
    const norm = new LayerNorm(this.dim).eval();
    norm.loadStateDict({ weight: this.#get(`${name}.weight`), bias: this.#get(`${name}.bias`) });
    return norm;
  }

  /** x W^T + b, with W [outputs, inputs] as PyTorch stores it. */
  #linear(x: Float32Array, name: string, suffix = "."): Float32Array {
    const weight = this.#get(`${name}${suffix}weight`);
    const bias = this.#get(`${name}${suffix}bias`);
    const outputs = bias.length;
    const inputs = weight.length / outputs;
    const rows = x.length / inputs;
    const y = new Float32Array(rows * outputs);
    for (let row = 0; row < rows; row++) {
      for (let output = 0; output < outputs; output++) {
        let sum = bias[output] as number;
        for (let i = 0; i < inputs; i++) {
          sum += (x[row * inputs + i] as number) * (weight[output * inputs + i] as number);
        }
        y[row * outputs + output] = sum;
      }
    }
    return y;
  }

  #attention(x: Float32Array): Float32Array {
    const { dim } = this;
    const size = dim / this.#heads;
    const tokens = x.length / dim;
    const qkv = this.#linear(x, "self_attn.in_proj", "_");
    const at = (token: number, part: number, i: number): number => qkv[token * 3 * dim + part * dim + i] as number;
    const mixed = new Float32Array(x.length);
    for (let head = 0; head < dim; head += size) {
      for (let query = 0; query < tokens; query++) {
        const scores = Array.from({ length: tokens }, (_, key) => {
          let score = 0;
          for (let i = head; i < head + size; i++) score += at(query, 0, i) * at(key, 1, i);
          return score / Math.sqrt(size);
        });
        const highest = Math.max(...scores);
        const shares = scores.map((score) => Math.exp(score - highest));
        const total = shares.reduce((sum, share) => sum + share, 0);
        for (let i = head; i < head + size; i++) {
          let value = 0;
          for (let key = 0; key < tokens; key++) value += ((shares[key] as number) / total) * at(key, 2, i);
          mixed[query * dim + i] = value;
        }
      }
    }
    return this.#linear(mixed, "self_attn.out_proj");
  }
}

function add(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + (b[i] as number));
}
