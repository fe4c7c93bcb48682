// npm run bench:startup: import, compile and one forward of 1 x 768, in a fresh process each time, beside what onnxruntime-web
// takes to make a session for the same and run it once. The process' own start is not counted. Goal: at most a twentieth.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { normModel } from "./onnx-model.js";

const ROUNDS = 9;
const COLS = 768;
const GOAL = 20;

const model = Buffer.from(normModel({ rows: 1, cols: COLS, eps: 1e-5 })).toString("base64");
const OURS = `const { LayerNorm } = await import("layernorm-wasm");
const y = new LayerNorm(${COLS}).forward(x);`;
const THEIRS = `const ort = await import("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
const vector = (v) => new ort.Tensor("float32", new Float32Array(${COLS}).fill(v), [${COLS}]);
const y = (await session.run({ X: new ort.Tensor("float32", x, [1, ${COLS}]), Scale: vector(1), B: vector(0) })).Y.data;`;

/** Milliseconds from before the import to the result, which is verified. */
function run(folder: string, start: string): number {
  const source = `const x = Float32Array.from({ length: ${COLS} }, (_, i) => i % 2 ? 3 : 5);
const model = new Uint8Array(Buffer.from("${model}", "base64"));
const from = performance.now();
${start}
const time = performance.now() - from;
if (Math.abs(y[0] - 1) > 1e-4 || Math.abs(y[1] + 1) > 1e-4) throw new Error("wrong: " + y[0]);
console.log(time);
process.exit();`;
  const cwd = fileURLToPath(new URL(folder, import.meta.url));
  return Number(execFileSync(process.execPath, ["--input-type=module", "-e", source], { cwd, encoding: "utf8" }));
}

/** Prints the times of one, sorted. Returns the median. */
function report(name: string, times: number[]): number {
  times.sort((a, b) => a - b);
  const [fastest, median] = [times[0]!, times[ROUNDS >> 1]!];
  const cells = [fastest, median].map((time) => time.toFixed(1).padStart(7));
  console.log(`${name.padEnd(18)} fastest ${cells[0]}   median ${cells[1]}`);
  return median;
}

const [ours, theirs]: [number[], number[]] = [[], []];
for (let round = 0; round < ROUNDS; round++) {
  ours.push(run("..", OURS));
  theirs.push(run(".", THEIRS));
}
console.log(`Node ${process.version}: import, compile, one forward of 1 x ${COLS}, in milliseconds\n`);
const least = report("layernorm-wasm", ours);
const ratio = report("onnxruntime-web", theirs) / least;
const mark = ratio >= GOAL ? "✓" : "✗";
console.log(`\n${mark} onnxruntime-web takes ${ratio.toFixed(1)} × as long, by the medians; the goal is ${GOAL}`);
