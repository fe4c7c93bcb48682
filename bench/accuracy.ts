// How far each library is off, on the same float32 inputs: the table of the README.
//
// One unit is 2^-23 times the largest magnitude of the reference in its row, the reference computed in float64 from the same
// inputs; weight 1, bias 0, eps 1e-5, 16 rows, the worst of them. Backward: dx in units of 2^-23 * rstd * max|dy * weight| of
// its row, dweight and dbias of the largest magnitude over the columns.

import { layerNorm, layerNormBackward, layerNormWithStats } from "../src/index.js";
import { normal } from "../test/helpers.js";
import { dxUnits, referenceBackward, referenceForward, unitsOff } from "../test/reference.js";
import { CONTENDERS } from "./contenders.js";

const ROWS = 16;
const COLS = [768, 4096];
const EPS = 1e-5;

type Make = (size: number, cols: number) => Float32Array<ArrayBuffer>;

const INPUTS: Record<string, [make: Make, goal: number]> = {
  "N(0,1)": [(size) => normal(size, 1), 1.5],
  "N(0,1) + 10^3": [(size) => normal(size, 1, 1e3), 4],
  "N(0,1) + 10^4": [(size) => normal(size, 1, 1e4), 4],
  "N(0,1) + 10^7": [(size) => normal(size, 1, 1e7), 4],
  "N(0,1), first element 10^4": [(size, cols) => normal(size, 1).map((v, i) => (i % cols === 0 ? 1e4 : v)), 4],
  "N(0,1), one element 10^6": [(size, cols) => normal(size, 1).map((v, i) => (i % cols === cols >> 1 ? 1e6 : v)), 4],
  "N(0,1), a third of the row at 5000": [
    (size, cols) => normal(size, 1).map((v, i) => ((i % cols) % 3 ? v : v + 5e3)),
    4,
  ],
  "half 0, half 1.3": [(size, cols) => new Float32Array(size).map((_, i) => (i % cols < cols / 2 ? 1.3 : 0)), 4],
  "10^-6 N(0,1)": [(size) => normal(size, 1, 0, 1e-6), 4],
  "10^18 N(0,1)": [(size) => normal(size, 1, 0, 1e18), 4],
  "10^20 N(0,1)": [(size) => normal(size, 1, 0, 1e20), 4],
  "3 10^37 N(0,1)": [(size) => normal(size, 1, 0, 3e37), 4],
};

const largest = (values: Float64Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const figure = (units: number) =>
  units === Infinity ? "NaN" : units < 1e4 ? units.toPrecision(units < 10 ? 2 : 3) : units.toExponential(1);

/** Normalizes x, [ROWS, cols], with weight 1 and bias 0. */
interface Rival {
  name: string;
  version: string;
  normalize(x: Float32Array<ArrayBuffer>, cols: number): Promise<Float32Array> | Float32Array;
}

const contenders: Rival[] = [
  { name: "layernorm-wasm", version: "this", normalize: (x, cols) => layerNorm(x, cols, null, null, EPS) },
];
for (const name of ["PyTorch CPU", "onnxruntime-node", "onnxruntime-web", "tfjs, wasm"]) {
  const contender = CONTENDERS.find((contender) => contender.name === name && contender.pass === "forward");
  try {
    const version = await contender?.version?.();
    if (!contender || !version) throw new Error("not among the contenders");
    contenders.push({
      name,
      version,
      async normalize(x, cols) {
        const [weight, bias] = [new Float32Array(cols).fill(1), new Float32Array(cols)];
        const entry = await contender.prepare({ rows: ROWS, cols, x, dy: x, weight, bias, eps: EPS });
        const y = await entry.result();
        await entry.end?.();
        return y ?? new Float32Array();
      },
    });
  } catch (error) {
    console.log(`without ${name}: ${(error as Error).message.split("\n")[0]}`);
  }
}

console.log(`\nForward, units off, cols = ${COLS.join(" / ")}\n`);
print(["input", ...contenders.map(({ name }) => name), "to reach"]);
print(["", ...contenders.map(({ version }) => version), ""]);
let missed = 0;
for (const [name, [make, goal]] of Object.entries(INPUTS)) {
  const cells = contenders.map(() => [] as number[]);
  for (const cols of COLS) {
    const x = make(ROWS * cols, cols);
    const { y } = referenceForward({ x, rows: ROWS, cols, eps: EPS });
    const scales = Array.from({ length: ROWS }, (_, row) => largest(y.subarray(row * cols, (row + 1) * cols)));
    for (const [i, contender] of contenders.entries()) {
      cells[i]?.push(unitsOff(await contender.normalize(x.slice(), cols), y, scales, cols));
    }
  }
  const good = cells[0]?.every((units) => units <= goal);
  if (!good) missed++;
  print([name, ...cells.map((units) => units.map(figure).join(" / ")), `${goal} ${good ? "✓" : "✗"}`]);
}

console.log(`\nBackward, layernorm-wasm, units off, cols = ${COLS.join(" / ")}\n`);
print(["input", "dx", "dweight", "dbias", "to reach"]);
const BACKWARD: [string, Make, rows: number][] = [
  ...Object.entries(INPUTS).map(([name, [make]]): [string, Make, number] => [name, make, ROWS]),
  ["N(0,1), 65536 rows of 64", (size) => normal(size, 1), 65536],
];
for (const [name, make, rows] of BACKWARD) {
  const cells: number[][] = [[], [], []];
  for (const cols of rows === ROWS ? COLS : [64]) {
    const x = make(rows * cols, cols);
    const dy = normal(rows * cols, 2);
    const weight = normal(cols, 3);
    const { mean, rstd } = layerNormWithStats(x, cols, null, null, EPS);
    const { dx, dweight, dbias } = layerNormBackward(dy, x, mean, rstd, weight);
    const input = { x, dy, weight, rows, cols, eps: EPS };
    const reference = referenceBackward(input);
    cells[0]?.push(dxUnits(dx, input));
    cells[1]?.push(unitsOff(dweight, reference.dweight, [largest(reference.dweight)], cols));
    cells[2]?.push(unitsOff(dbias, reference.dbias, [largest(reference.dbias)], cols));
  }
  const [dx = [], ...rest] = cells;
  const good = dx.every((units) => units <= 4) && rest.flat().every((units) => units <= 8);
  if (!good) missed++;
  print([name, ...cells.map((units) => units.map(figure).join(" / ")), `4, 8, 8 ${good ? "✓" : "✗"}`]);
}

console.log(missed === 0 ? "\nAll reached." : `\n${missed} missed.`);
process.exit(missed === 0 ? 0 : 1);

function print(cells: string[]): void {
  console.log(cells.map((cell, i) => cell.padEnd(i === 0 ? 36 : 20)).join(""));
}
