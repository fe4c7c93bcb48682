// npm run bench:share: what share of a transformer block its two layer norms take, beside its four matrix products.
//
// A block of width d multiplies each row by matrices of d x 3d, d x d, d x 4d and 4d x d. Attention itself and the
// activation are left out, so true shares are smaller. Products and norms take turns; the fastest round counts.

import { normal } from "../test/helpers.js";
import { CONTENDERS } from "./contenders.js";
import { loadTf } from "./rivals.js";

const ROWS = 128;
const WIDTHS = [64, 256, 768];
const ROUNDS = 9;
const ROUND_MS = 5;

interface Matrix {
  data(): Promise<Float32Array>;
  dispose(): void;
}

const tf = (await loadTf("wasm")) as unknown as {
  tensor2d(data: Float32Array, shape: [number, number]): Matrix;
  matMul(a: Matrix, b: Matrix): Matrix;
};

/** The matrices of a block, as [inputs, outputs]. */
const sizes = (d: number): [number, number][] => [
  [d, 3 * d],
  [d, d],
  [d, 4 * d],
  [4 * d, d],
];

/** Products in TensorFlow.js, results read back. */
function productsInTf(d: number): () => Promise<void> {
  const operands = sizes(d).map(([inputs, outputs]) => [
    tf.tensor2d(normal(ROWS * inputs, 1), [ROWS, inputs]),
    tf.tensor2d(normal(inputs * outputs, 2), [inputs, outputs]),
  ]) as [Matrix, Matrix][];
  return async () => {
    for (const [a, b] of operands) {
      const c = tf.matMul(a, b);
      await c.data();
      c.dispose();
    }
  };
}

/** Products as loops whose inner one goes along the rows of both matrices. */
function productsInLoops(d: number): () => Promise<void> {
  const operands = sizes(d).map(([inputs, outputs]) => ({
    inputs,
    outputs,
    a: normal(ROWS * inputs, 1),
    b: normal(inputs * outputs, 2),
    c: new Float32Array(ROWS * outputs),
  }));
  return async () => {
    for (const { inputs, outputs, a, b, c } of operands) {
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
  };
}

/** Two norms by one of the contenders of the bench. */
async function norms(name: string, cols: number): Promise<(calls: number) => unknown> {
  const contender = CONTENDERS.find((each) => each.name === name && each.pass === "forward");
  const x = normal(ROWS * cols, 3);
  const weight = normal(cols, 4, 1, 0.5);
  const bias = normal(cols, 5);
  const entry = await contender!.prepare({ rows: ROWS, cols, x, dy: x, weight, bias, eps: 1e-5 });
  return (calls) => entry.call(2 * calls);
}

console.log(
  `Node ${process.version}, one block, ${ROWS} rows: milliseconds, and the share of the norms in the block\n`,
);
for (const d of WIDTHS) {
  const tasks: Record<string, (calls: number) => unknown> = {};
  for (const [name, products] of Object.entries({
    "products, TensorFlow.js": productsInTf(d),
    "products, plain JavaScript": productsInLoops(d),
  })) {
    tasks[name] = async (calls) => {
      for (let i = 0; i < calls; i++) await products();
    };
  }
  for (const name of ["module, Tensor with out", "plain JavaScript", "tfjs, wasm"]) {
    tasks[`norms, ${name}`] = await norms(name, d);
  }
  const times = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, task] of Object.entries(tasks)) {
      const calls = round === 0 ? 1 : Math.max(1, Math.ceil(ROUND_MS / (times.get(name) ?? 1)));
      const start = performance.now();
      await task(calls);
      const time = (performance.now() - start) / calls;
      // The first round only warms up, and says how many calls make a round.
      times.set(name, round < 2 ? time : Math.min(time, times.get(name) ?? time));
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
process.exit(0);
