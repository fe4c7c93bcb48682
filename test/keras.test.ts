// Keras: five epochs of SGD on a layer normalization of eps 1e-3 before a dense layer, followed with our LayerNorm in its place.
// scripts/keras_fixture.py recorded the losses, gradients and weights from Keras itself.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LayerNorm } from "../src/index.js";
import { referenceForward, UNIT, unitsOff } from "./reference.js";

type Weights = Record<"gamma" | "beta" | "kernel" | "bias", number[]>;

interface Fixture {
  versions: Record<string, string>;
  cols: number;
  batchSize: number;
  epsilon: number;
  learningRate: number;
  x: number[];
  targets: number[];
  initial: Weights;
  /** The gradient of the loss of all rows with respect to x, before training. */
  dx: number[];
  /** One for each batch of each epoch, each before its step. */
  losses: number[][];
  trained: Weights;
}

const path = new URL("fixtures/keras.json", import.meta.url);
const fixture = JSON.parse(readFileSync(path, "utf8")) as Fixture;
const { cols, batchSize, learningRate, initial, losses } = fixture;
// All that Keras computed on was float32.
const inputs = Float32Array.from(fixture.x);
const targets = Float32Array.from(fixture.targets);

/** The model: our LayerNorm, and in float64 the dense layer, the loss and the gradient of the loss. */
class Model {
  readonly ln: LayerNorm;
  readonly kernel = Float64Array.from(Float32Array.from(initial.kernel));
  bias = Math.fround(initial.bias[0]!);

  constructor(eps: number) {
    this.ln = new LayerNorm(cols, { eps });
    this.ln.loadStateDict({ gamma: initial.gamma, beta: initial.beta });
  }

  /**
   * The mean squared error of some rows, and its gradients but for those of the LayerNorm. `size` is the largest sum of the
   * magnitudes of what makes up an error: the products of the dense layer, its bias and the target.
   */
  differentiate(x: Float32Array, target: Float32Array) {
    const { ln, kernel, bias } = this;
    const y = ln.forward(x);
    const dy = new Float32Array(x.length);
    const dkernel = new Float64Array(cols);
    let [loss, dbias, size] = [0, 0, 0];
    target.forEach((wanted, row) => {
      const products = kernel.map((weight, i) => weight * y[row * cols + i]!);
      const error = products.reduce((sum, product) => sum + product, bias) - wanted;
      const gradient = (2 * error) / target.length;
      loss += error ** 2 / target.length;
      const sizes = [...products, bias, wanted].map(Math.abs);
      size = Math.max(
        size,
        sizes.reduce((sum, part) => sum + part),
      );
      dbias += gradient;
      for (let i = 0; i < cols; i++) {
        dy[row * cols + i] = gradient * kernel[i]!;
        dkernel[i]! += gradient * y[row * cols + i]!;
      }
    });
    return { loss, size, dy, dkernel, dbias };
  }

  /** One step of SGD. Returns the loss before it, and the size of its errors. */
  step(x: Float32Array, target: Float32Array) {
    const { loss, size, dy, dkernel, dbias } = this.differentiate(x, target);
    this.ln.zeroGrad();
    this.ln.backward(dy);
    for (const { data, grad } of this.ln.parameters()) {
      for (let i = 0; i < cols; i++) data[i]! -= learningRate * grad[i]!;
    }
    for (let i = 0; i < cols; i++) this.kernel[i]! -= learningRate * dkernel[i]!;
    this.bias -= learningRate * dbias;
    return { loss, size };
  }
}

/**
 * Trains a model as the fixture's was. Returns how far off each of its losses is, as a share of what rounding explains.
 *
 * A prediction is good to 4 units of 2^-23 of `size` on either side. A step rounds what it makes
 * of each parameter by half a unit, two of which meet in a product: a unit more for each step before. (The rounding of a gradient
 * is times the learning rate, and SGD that converges doesn't magnify what came before.) The mean of the squared errors moves by at
 * most 2 sqrt(loss) times that.
 */
function follow(model: Model): number[] {
  return losses.flat().map((expected, step) => {
    const start = (step * batchSize) % targets.length;
    const x = inputs.slice(start * cols, (start + batchSize) * cols);
    const { loss, size } = model.step(x, targets.slice(start, start + batchSize));
    return Math.abs(loss - expected) / (2 * Math.sqrt(loss) * UNIT * size * (8 + step));
  });
}

describe("Keras", () => {
  test("the fixture says what made it", () => {
    expect(fixture.versions.keras).toMatch(/^\d+\.\d+/);
    expect(losses.map((epoch) => epoch.length * batchSize)).toEqual(Array(5).fill(targets.length));
    expect(fixture.epsilon).toBe(1e-3);
  });

  test("the losses of five epochs are followed, and the weights they end with", () => {
    const model = new Model(fixture.epsilon);
    const off = follow(model);
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
    const { gamma, beta, kernel, bias } = fixture.trained;
    const steps = losses.flat().length;
    for (const [got, expected] of [
      [model.ln.weight!.data, gamma],
      [model.ln.bias!.data, beta],
      [model.kernel, kernel],
      [[model.bias], bias],
    ] as const) {
      // A unit of the largest for each step, half of it for either side.
      const scale = Math.max(...expected.map(Math.abs));
      const scales = expected.map(() => scale);
      expect(unitsOff(got, expected, scales)).toBeLessThanOrEqual(steps);
    }
  });

  test("an eps that is off by a thousandth loses them at the first", () => {
    expect(follow(new Model(1.001e-3))[0]).toBeGreaterThan(1);
  });

  test("the gradient with respect to x is the same", () => {
    const model = new Model(fixture.epsilon);
    const { dy, size } = model.differentiate(inputs, targets);
    const dx = model.ln.backward(dy);
    const rows = targets.length;
    const { rstd } = referenceForward({ x: inputs, rows, cols, eps: fixture.epsilon });
    // Four units of the largest |g| on either side, and dy as far as its error may have cancelled.
    const factor = Math.max(...model.kernel.map((weight, i) => Math.abs(weight * initial.gamma[i]!)));
    const scales = fixture.dx.map((_, i) => rstd[Math.floor(i / cols)]! * factor * (2 / rows) * size);
    expect(unitsOff(dx, fixture.dx, scales)).toBeLessThanOrEqual(8);
  });
});
