// A Flax exercise: write MyLayerNorm(eps), whose gamma and beta are made when the first input shows its last dimension.

import { LayerNorm } from "layernorm-wasm";
import { claim, compare, heading } from "./report.js";

heading("A Flax exercise: MyLayerNorm");

class MyLayerNorm {
  /** @param {number} eps */
  constructor(eps) {
    this.eps = eps;
    /** @type {LayerNorm | null} */
    this.norm = null;
  }

  /** @param {Float32Array} x @param {number[]} shape */
  call(x, shape = [x.length]) {
    this.norm ??= new LayerNorm(shape[shape.length - 1], { eps: this.eps });
    return this.norm.forward(x);
  }
}

const x = new Float32Array([1, 2, 3, 4]);
const layer = new MyLayerNorm(1e-5);
compare("a 1-D input", layer.call(x), [-1.3416, -0.4472, 0.4472, 1.3416]);
compare("gamma, made from the input", layer.norm?.weight?.data ?? [], [1, 1, 1, 1], 0);
compare("beta, made from the input", layer.norm?.bias?.data ?? [], [0, 0, 0, 0], 0);

// With an eps that shows, 0.1: 1.5 / sqrt(1.25 + 0.1) inside the root, 1.5 / (sqrt(1.25) + 0.1) outside of it.
const inside = 1.5 / Math.sqrt(1.25 + 0.1);
const outside = 1.5 / (Math.sqrt(1.25) + 0.1);
const last = new MyLayerNorm(0.1).call(x)[3];
compare("eps 0.1 is inside the root", last, inside, 1e-6);
claim("eps 0.1 outside of it would differ", last, `not ${outside.toPrecision(7)}`, Math.abs(last - outside) > 0.05);

compare("a constant input, without NaN", new MyLayerNorm(1e-5).call(new Float32Array(4).fill(5)), [0, 0, 0, 0], 0);

const loaded = new LayerNorm(4);
loaded.loadStateDict({ gamma: new Float32Array([2, 2, 2, 2]), beta: new Float32Array([1, 1, 1, 1]) });
compare("gamma 2 and beta 1 loaded by those names", loaded.forward(x), [-1.6833, 0.1056, 1.8944, 3.6833]);
