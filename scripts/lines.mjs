// npm run lines: counts lines of code, which are neither blank nor comments, and fails where a part has more than it may.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const LIMITS = [
  ["assembly", /^assembly\//, 1000],
  ["src/ without threads and tfjs", /^src\/[^/]+\.ts$/, 1550],
  ["src/call.ts", /^src\/call\.ts$/, 300],
];

/** Comments here take whole lines. */
function linesOf(path) {
  const code = readFileSync(`${root}/${path}`, "utf8").replace(/^\s*\/\*[\s\S]*?\*\//gm, "");
  return code.split("\n").filter((line) => line.trim() !== "" && !line.trim().startsWith("//")).length;
}

const paths = ["assembly", "src"]
  .flatMap((folder) => readdirSync(`${root}/${folder}`, { recursive: true }).map((path) => `${folder}/${path}`))
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => path.endsWith(".ts") && !/binaries|\.d\.ts$/.test(path));
if (process.argv.includes("--each")) for (const path of paths) console.log(`${linesOf(path)} ${path}`);
for (const [name, pattern, limit] of LIMITS) {
  const lines = paths.filter((path) => pattern.test(path)).reduce((sum, path) => sum + linesOf(path), 0);
  console.log(`${name}: ${lines} lines of code, at most ${limit}`);
  if (lines > limit) process.exitCode = 1;
}
