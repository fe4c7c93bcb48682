// npm run bench:share: what share of a transformer block its two layer norms take, beside its four matrix products.
//
// A block of width d multiplies each row by matrices of d x 3d, d x d, d x 4d and 4d x d. Attention itself and the
// activation are left out, so true shares are smaller. All are verified. Then they take turns; the fastest round counts.

import { normal } from "../test/helpers.js";
import { referenceForward } from "../test/reference.js";
import { CONTENDERS } from "./contenders.js";
import { loadTf } from "./rivals.js";

const ROWS = 128;
const WIDTHS = [64, 256, 768];
const ROUNDS = 9;
const ROUND_MS = 5;
const EPS = 1e-5;
/** How far results may be off, of the largest: what float32 sums of 3072 products may be off by. */
const TOLERANCE = 1e-4;

interface Matrix {
  data(): Promise<Float32Array>;
  dispose(): void;
}

const tf = (await loadTf("wasm")) as unknown as {
  tensor2d(data: Float32Array, shape: [number, number]): Matrix;
  matMul(a: Matrix, b: Matrix): Matrix;
};

interface Product {
  inputs: number;
  outputs: number;
  a: Float32Array;
  b: Float32Array;
}

/** The products of a block: a [rows, inputs] times b [inputs, outputs]. */
function productsOf(d: number): Product[] {
  const sizes = [
    [d, 3 * d],
    [d, d],
    [d, 4 * d],
    [4 * d, d],
  ] as const;
  return sizes.map(([inputs, outputs]) => ({
    inputs,
    outputs,
    a: normal(ROWS * inputs, 1),
    b: normal(inputs * outputs, 2),
  }));
}

/** Products in TensorFlow.js, results read back. */
function inTf(products: Product[]): () => Promise<Float32Array[]> {
  const operands = products.map(({ inputs, outputs, a, b }) => ({
    a: tf.tensor2d(a, [ROWS, inputs]),
    b: tf.tensor2d(b, [inputs, outputs]),
  }));
  return async () => {
    const results = [];
    for (const { a, b } of operands) {
      const c = tf.matMul(a, b);
      results.push(await c.data());
      c.dispose();
    }
    return results;
  };
}

/** Products as loops, the inner one along rows of b and of the result. */
function inLoops(products: Product[]): () => Float32Array[] {
  const results = products.map(({ outputs }) => new Float32Array(ROWS * outputs));
  return () => {
    for (const [at, { inputs, outputs, a, b }] of products.entries()) {
      const c = results[at]!;
      c.fill(0);
      for (let row = 0; row < ROWS; row++) {
        const to = row * outputs;
        for (let k = 0; k < inputs; k++) {
          const factor = a[row * inputs + k]!;
          const from = k * outputs;
          for (let i = 0; i < outputs; i++) c[to + i] = c[to + i]! + factor * b[from + i]!;
        }
      }
    }
    return results;
  };
}

function verify(name: string, got: Float32Array, expected: ArrayLike<number>): void {
  let largest = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    error = Math.max(error, Math.abs(got[i]! - expected[i]!));
  }
  if (!(error <= TOLERANCE * largest)) throw new Error(`${name}: off by ${error} of ${largest}`);
}

console.log(
  `Node ${process.version}, one block, ${ROWS} rows: milliseconds, and the share of the norms in the block\n`,
);
for (const d of WIDTHS) {
  const tasks: Record<string, (calls: number) => unknown> = {};
  const products = productsOf(d);
  const [tfjs, loops] = [inTf(products), inLoops(products)];
  for (const [i, result] of (await tfjs()).entries()) verify("products", result, loops()[i]!);
  tasks["products, TensorFlow.js"] = async (calls) => {
    for (let i = 0; i < calls; i++) await tfjs();
  };
  tasks["products, plain JavaScript"] = (calls) => {
    for (let i = 0; i < calls; i++) loops();
  };

  const x = normal(ROWS * d, 3);
  const problem = { rows: ROWS, cols: d, x, dy: x, weight: normal(d, 4, 1, 0.5), bias: normal(d, 5), eps: EPS };
  const { y } = referenceForward(problem);
  for (const name of ["module, Tensor with out", "plain JavaScript", "tfjs, wasm"]) {
    const contender = CONTENDERS.find((each) => each.name === name && each.pass === "forward")!;
    const entry = await contender.prepare(problem);
    await entry.call(1);
    verify(name, (await entry.result())!, y);
    tasks[`norms, ${name}`] = (calls) => entry.call(2 * calls);
  }

  const times = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, task] of Object.entries(tasks)) {
      const calls = Math.max(1, Math.ceil(ROUND_MS / (times.get(name) ?? ROUND_MS)));
      const start = performance.now();
      await task(calls);
      const time = (performance.now() - start) / calls;
      times.set(name, Math.min(time, times.get(name) ?? time));
    }
  }
  console.log(`width ${d}`);
  for (const [name, time] of times) {
    const shares = [...times]
      .filter(([other]) => name.startsWith("norms") && other.startsWith("products"))
      .map(([other, products]) => `${((100 * time) / (time + products)).toPrecision(2)} % beside ${other.slice(10)}`);
    console.log(`  ${name.padEnd(32)} ${time.toPrecision(3).padStart(9)} ms   ${shares.join(", ")}`);
  }
}
process.exit();
