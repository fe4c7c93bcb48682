// npm run bench:startup: import, compile and one forward of 1 x 768, in a fresh process each time, beside what onnxruntime-web
// takes to make a session for the same and run it once. The process' own start is not counted. Goal: at most a twentieth.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { normModel } from "./onnx-model.js";

const ROUNDS = 9;
const COLS = 768;
const GOAL = 20;

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "build/bench");
mkdirSync(folder, { recursive: true });
const model = join(folder, "startup.onnx");
writeFileSync(model, normModel({ rows: 1, cols: COLS, eps: 1e-5 }));

const scripts = {
  "layernorm-wasm": `const { LayerNorm } = await import("layernorm-wasm");
const y = new LayerNorm(${COLS}).forward(x);`,
  "onnxruntime-web": `const ort = await import("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
const vector = (v) => new ort.Tensor("float32", new Float32Array(${COLS}).fill(v), [${COLS}]);
const y = (await session.run({ X: new ort.Tensor("float32", x, [1, ${COLS}]), Scale: vector(1), B: vector(0) })).Y.data;`,
};

/** Milliseconds from before the import to the result, which is verified. */
function run(name: keyof typeof scripts): number {
  const source = `import { readFileSync } from "node:fs";
const x = Float32Array.from({ length: ${COLS} }, (_, i) => i % 2 ? 3 : 5);
const model = readFileSync(${JSON.stringify(model)});
const start = performance.now();
${scripts[name]}
const time = performance.now() - start;
if (Math.abs(y[0] - 1) > 1e-4 || Math.abs(y[1] + 1) > 1e-4) throw new Error("wrong: " + y[0]);
console.log(time);
process.exit();
`;
  const cwd = name === "layernorm-wasm" ? root : join(root, "bench");
  return Number(execFileSync(process.execPath, ["--input-type=module", "-e", source], { cwd, encoding: "utf8" }));
}

const times: Record<string, number[]> = { "layernorm-wasm": [], "onnxruntime-web": [] };
for (let round = 0; round < ROUNDS; round++) {
  for (const name of ["layernorm-wasm", "onnxruntime-web"] as const) times[name]?.push(run(name));
}
for (const list of Object.values(times)) list.sort((a, b) => a - b);
const median = (name: string) => times[name]?.[ROUNDS >> 1] as number;
console.log(`Node ${process.version}: import, compile, one forward of 1 x ${COLS}, in milliseconds\n`);
for (const name in times) {
  console.log(
    `${name.padEnd(18)} fastest ${times[name]?.[0]?.toFixed(1).padStart(7)}   median ${median(name).toFixed(1).padStart(7)}`,
  );
}
const ratio = median("onnxruntime-web") / median("layernorm-wasm");
console.log(
  `\n${ratio >= GOAL ? "✓" : "✗"} onnxruntime-web takes ${ratio.toFixed(1)} × as long, by the medians; the goal is ${GOAL}`,
);
