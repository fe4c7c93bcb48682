// npm run bench:share: what share of a transformer block its two layer norms take, beside its four matrix products.
//
// A block of width d multiplies each row by matrices of d x 3d, d x d, d x 4d and 4d x d. Attention itself and the
// activation are left out, so true shares are smaller. All are verified. Then they take turns; the fastest round counts.

import { normal } from "../test/random.js";
import { referenceForward } from "../test/reference.js";
import { CONTENDERS, OURS } from "./contenders.js";
import { problemOf } from "./problem.js";
import { type Runner, race, repeat, repeatAsync, verify } from "./race.js";
import { loadTf, read } from "./rivals.js";

const ROWS = 128;
const WIDTHS = [64, 256, 768];
/** How far results may be off, of the largest: what float32 sums of 3072 products may be off by. */
const TOLERANCE = 1e-4;

const { tf } = await loadTf("wasm");

/** A product of a block: a [rows, inputs] times b [inputs, outputs]. */
function productOf(inputs: number, outputs: number) {
  return { inputs, outputs, a: normal(ROWS * inputs, 1), b: normal(inputs * outputs, 2) };
}
type Product = ReturnType<typeof productOf>;

/** Products in TensorFlow.js, results read back. */
function inTf(products: Product[]): () => Promise<Float32Array[]> {
  const operands = products.map(({ inputs, outputs, a, b }) => ({
    a: tf.tensor2d(a, [ROWS, inputs]),
    b: tf.tensor2d(b, [inputs, outputs]),
  }));
  return async () => {
    const results = [];
    for (const { a, b } of operands) results.push(await read(tf.matMul(a, b)));
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

console.log(
  `Node ${process.version}, one block, ${ROWS} rows: milliseconds, and the share of the norms in the block\n`,
);
for (const d of WIDTHS) {
  const products = [productOf(d, 3 * d), productOf(d, d), productOf(d, 4 * d), productOf(4 * d, d)];
  const [tfjs, loops] = [inTf(products), inLoops(products)];
  for (const [i, result] of (await tfjs()).entries()) verify("a product", result, loops()[i]!, TOLERANCE);
  const runners: Record<string, Runner> = {
    "products, TensorFlow.js": { call: repeatAsync(tfjs) },
    "products, plain JavaScript": { call: repeat(loops) },
  };
  const problem = problemOf(ROWS, d);
  const { y } = referenceForward(problem);
  for (const name of [OURS, "plain JavaScript", "tfjs, wasm"]) {
    const entry = await CONTENDERS.find((each) => each.name === name)!.prepare(problem, "forward", {});
    await entry.call(1);
    verify(name, (await entry.result())!, y, TOLERANCE);
    runners[`norms, ${name}`] = { ...entry, call: (calls) => entry.call(2 * calls) };
  }
  const times = (await race(Object.values(runners), { rounds: 9, roundMs: 5 })).map(([fastest]) => fastest!);
  const named = Object.keys(runners).map((name, i) => [name, times[i]!] as const);
  console.log(`width ${d}`);
  for (const [name, time] of named) {
    const shares = named
      .filter(([other]) => name.startsWith("norms") && other.startsWith("products"))
      .map(([other, products]) => `${((100 * time) / (time + products)).toPrecision(2)} % beside ${other.slice(10)}`);
    console.log(`  ${name.padEnd(32)} ${time.toPrecision(3).padStart(9)} ms   ${shares.join(", ")}`);
  }
}
process.exit();
