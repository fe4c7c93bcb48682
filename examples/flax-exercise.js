// A Flax exercise: write MyLayerNorm(eps), whose gamma and beta are made when the first input shows its last dimension.
// What it gives is compared with what Flax itself gave (scripts/flax_fixture.py).

import { readFileSync } from "node:fs";
import { LayerNorm } from "layernorm-wasm";
import { claim, compare, heading } from "./report.js";

const { versions, cases } = JSON.parse(readFileSync(new URL("../test/fixtures/flax.json", import.meta.url), "utf8"));

heading(`A Flax exercise: MyLayerNorm, beside Flax ${versions.flax}`);

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

/** How far Flax and we may be apart: some roundings of numbers below 4. */
const TOLERANCE = 2e-6;
for (const [name, { x, epsilon, params, y }] of Object.entries(cases)) {
  const layer = new MyLayerNorm(epsilon);
  const shape = Array.isArray(x[0]) ? [x.length, x[0].length] : [x.length];
  const input = Float32Array.from(x.flat());
  layer.call(input, shape);
  if (name.includes("loaded")) layer.norm?.loadStateDict(params);
  compare(`${name}: scale`, layer.norm?.weight?.data ?? [], params.scale, 0);
  compare(`${name}: bias`, layer.norm?.bias?.data ?? [], params.bias, 0);
  compare(`${name}: y`, layer.call(input, shape), y.flat(), TOLERANCE);
}

// 1.5 / (sqrt(1.25) + 0.1), with eps outside of the root.
const last = new MyLayerNorm(0.1).call(new Float32Array([1, 2, 3, 4]))[3];
const outside = 1.5 / (Math.sqrt(1.25) + 0.1);
claim(
  "eps 0.1 outside of the root would differ",
  last,
  `not ${outside.toPrecision(7)}`,
  Math.abs(last - outside) > 0.05,
);
