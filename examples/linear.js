// The layers of the examples that are no norms, in plain JavaScript over Tensors: for small sizes.

import { Parameter, Tensor } from "layernorm-wasm";

/** y = x · weightᵀ for a weight of [outputs, inputs], as PyTorch's Linear without a bias. */
export class Linear {
  /** @param {Parameter} weight */
  constructor(weight) {
    this.weight = weight;
    /** @type {Tensor | null} What the last forward was given. */
    this.x = null;
  }

  /** Writes to out. @param {Tensor} x @param {Tensor} out */
  forward(x, out) {
    this.x = x;
    const [outputs, inputs] = this.weight.shape;
    const [from, to, weight] = [x.data, out.data, this.weight.data];
    for (let row = 0; row < x.size / inputs; row++) {
      for (let o = 0; o < outputs; o++) {
        let sum = 0;
        for (let i = 0; i < inputs; i++) sum += from[row * inputs + i] * weight[o * inputs + i];
        to[row * outputs + o] = sum;
      }
    }
    return out;
  }

  /**
   * Adds to weight.grad, and writes dx to out.
   * @param {Tensor} dy
   * @param {Tensor} out
   * @param {boolean} [add] whether to add dx to out instead
   */
  backward(dy, out, add = false) {
    if (this.x === null) throw new Error("backward without a forward before it");
    const [outputs, inputs] = this.weight.shape;
    const [x, dx, dys, weight, grad] = [this.x.data, out.data, dy.data, this.weight.data, this.weight.grad];
    const rows = dy.size / outputs;
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) {
        let sum = 0;
        for (let row = 0; row < rows; row++) sum += dys[row * outputs + o] * x[row * inputs + i];
        grad[o * inputs + i] += sum;
      }
    }
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < inputs; i++) {
        let sum = add ? dx[row * inputs + i] : 0;
        for (let o = 0; o < outputs; o++) sum += dys[row * outputs + o] * weight[o * inputs + i];
        dx[row * inputs + i] = sum;
      }
    }
    return out;
  }
}

/** down(silu(gate(x)) * up(x)): the MLP of Llama. */
export class GatedMLP {
  /** @param {Parameter} gate @param {Parameter} up @param {Parameter} down @param {number} rows that x has */
  constructor(gate, up, down, rows) {
    this.gate = new Linear(gate);
    this.up = new Linear(up);
    this.down = new Linear(down);
    const make = () => new Tensor([rows, gate.shape[0]]);
    this.hidden = { gate: make(), up: make(), product: make() };
    this.gradients = { gate: make(), up: make(), product: make() };
  }

  /** @param {Tensor} x @param {Tensor} out */
  forward(x, out) {
    const { gate, up, product } = this.hidden;
    this.gate.forward(x, gate);
    this.up.forward(x, up);
    for (let i = 0; i < product.size; i++) product.data[i] = gate.data[i] * sigmoid(gate.data[i]) * up.data[i];
    return this.down.forward(product, out);
  }

  /** @param {Tensor} dy @param {Tensor} out */
  backward(dy, out) {
    const { gate, up, product } = this.gradients;
    const hidden = this.hidden;
    this.down.backward(dy, product);
    for (let i = 0; i < product.size; i++) {
      const value = hidden.gate.data[i];
      const s = sigmoid(value);
      up.data[i] = product.data[i] * value * s;
      gate.data[i] = product.data[i] * hidden.up.data[i] * s * (1 + value * (1 - s));
    }
    this.gate.backward(gate, out);
    return this.up.backward(up, out, true);
  }
}

/** @param {number} x */
function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}
