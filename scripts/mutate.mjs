// Breaks the kernels on purpose: changes one operator, constant or bound of assembly/ at a time, compiles that, and makes
// the calls of test/borders.ts and test/digest.ts with it. Their limits and bits are tests of `npm test`, so a mutant that
// fails here fails there.
//
//   npm run mutate                          all of it
//   npm run mutate -- --file moments.ts     one file, or those of a name
//   npm run mutate -- --every 5 --from 2    a sample: the third of each five
//   npm run mutate -- --list                what would be changed

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import asc from "assemblyscript/asc";

const string = { type: "string" };
const { values: options } = parseArgs({
  options: {
    file: string,
    list: { type: "boolean" },
    every: { ...string, default: "1" },
    from: { ...string, default: "0" },
  },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const TIME = 10_000; // ms for the calls of a mutant, which take one or two: it may loop for ever

/** What is changed, and to what. @type {[RegExp, (found: string) => string[]][]} */
const RULES = [
  [
    /\b(f32x4|f64x2)\.(add|sub|mul)\b/g,
    (call) => (call.endsWith("add") ? [call.replace("add", "sub")] : [call.replace(/sub|mul/, "add")]),
  ],
  [/ (\+|-|\*|\/) /g, (operator) => [{ "+": " - ", "-": " + ", "*": " + ", "/": " * " }[operator.trim()]]],
  [/ (\+=|-=|\*=|\/=) /g, (operator) => [{ "+=": " -= ", "-=": " += ", "*=": " += ", "/=": " *= " }[operator.trim()]]],
  [
    / (<|<=|>|>=|===) /g,
    (operator) => [{ "<": " <= ", "<=": " < ", ">": " >= ", ">=": " > ", "===": " !== " }[operator.trim()]],
  ],
  [/ (&&|\|\|) /g, (operator) => [operator.includes("&") ? " || " : " && "]],
  [/ (<<|&|\|) /g, (operator) => [{ "<<": " >> ", "&": " | ", "|": " & " }[operator.trim()]]],
  [/!(?=[\w(])/g, () => [""]],
  [/(?<![!\w])is(?:Void|Float)(?=<)/g, (call) => [`!${call}`]],
  [
    /(?<![\w.<])\d[\d.]*(?:e[+-]?\d+)?\b(?!x)/g,
    (number) => (number === "0" ? ["1"] : [String(number.includes("e") ? number * 2 ** 20 : +number + 1), "0"]),
  ],
  // The bits of a float, which becomes 2^32 times as large.
  [/\b0x[0-9a-f]{8}\b/g, (bits) => [`0x${(Number(bits) + 0x10000000).toString(16)}`]],
  [/\bmin\(/g, () => ["max("]],
  [/\babs\(/g, () => ["("]],
  [/\bf64\((?=load|d\b)/g, () => ["-f64("]],
];

/** @typedef {{ file: string, line: number, text: string, from: string, to: string, source: string }} Mutant */

/** @param {string} file @returns {Mutant[]} */
function mutantsOf(file) {
  const source = readFileSync(join(root, "assembly", file), "utf8");
  // Comments, imports and asserts, which the release build is without, stay, at the same length, so that positions hold.
  const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*|^(import|export type| *assert).*$/gm, (text) =>
    text.replace(/[^\n]/g, "~"),
  );
  const lines = source.split("\n");
  const found = [];
  for (const [pattern, change] of RULES) {
    for (const match of code.matchAll(pattern)) {
      for (const to of change(match[0])) {
        const end = match.index + match[0].length;
        const line = source.slice(0, match.index).split("\n").length;
        const changed = source.slice(0, match.index) + to + source.slice(end);
        const text = lines[line - 1].trim();
        found.push({ file, line, text, from: match[0], to, source: changed });
      }
    }
  }
  return found.sort((a, b) => a.line - b.line);
}

/**
 * Compiles a mutant; null if it is no program. The debug build gives the same bits as release, without asserts also the
 * same for calls that these refuse, and is compiled in a tenth of the time.
 * @returns {Promise<Uint8Array | null>}
 */
async function compile({ file, source }, ...flags) {
  let bytes = null;
  const { error } = await asc.main(["assembly/index.ts", ...flags, "--outFile", "mutant.wasm", "--textFile", ""], {
    readFile: (path, base) => {
      const full = join(base, path);
      if (full.endsWith(join("assembly", file)) && !full.includes("node_modules")) return source;
      try {
        return readFileSync(full, "utf8");
      } catch {
        return null;
      }
    },
    writeFile: (path, contents) => {
      if (path.endsWith(".wasm")) bytes = contents;
    },
    stderr: { write: () => true },
  });
  return error === null ? bytes : null;
}
const DEBUG = ["--target", "debug", "--noAssert"];
const RELEASE = ["--target", "release"];

/** @type {Promise<Worker> | undefined} */
let worker;
let original;

/** What a worker says of a build. */
const told = (thread, message) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve("it does not end"), TIME);
    const end = (settle) => (value) => {
      clearTimeout(timer);
      settle(value);
    };
    thread.once("message", end(resolve));
    thread.once("error", end(reject));
    thread.postMessage(message);
  });

async function start() {
  const thread = new Worker(new URL("mutant.mjs", import.meta.url));
  thread.setMaxListeners(0);
  await new Promise((resolve) => thread.once("message", resolve));
  const found = await told(thread, { bytes: original, first: true });
  if (found) throw new Error(`the kernels as they are: ${found}`);
  return thread;
}

/** How a build is caught, or "". */
async function caught(bytes) {
  worker ??= start();
  const thread = await worker;
  const found = await told(thread, { bytes });
  if (found === "it does not end") {
    await thread.terminate();
    worker = undefined;
  }
  return found;
}

const files = readdirSync(join(root, "assembly"), { recursive: true }).filter(
  (file) => file.endsWith(".ts") && !["index.ts", "heap.ts"].includes(file),
);
const mutants = files
  .flatMap(mutantsOf)
  .filter((_, index) => index % Number(options.every) === Number(options.from))
  .filter(({ file }) => !options.file || `/${file}`.endsWith(`/${options.file}`));
const show = ({ file, line, text, from, to }) =>
  `assembly/${file}:${line}  ${from.trim()} -> ${to.trim() || "nothing"}    ${text}`;
if (options.list) {
  for (const mutant of mutants) console.log(show(mutant));
  console.log(`${mutants.length} mutants`);
  process.exit();
}

const index = { file: "index.ts", source: readFileSync(join(root, "assembly/index.ts"), "utf8") };
original = await compile(index, ...DEBUG);
const release = await compile(index, ...RELEASE);
const ways = new Map();
for (const mutant of mutants) {
  const bytes = await compile(mutant, ...DEBUG);
  let way = "no program";
  if (bytes) way = (await caught(bytes)) || "";
  if (way === "") {
    const optimized = await compile(mutant, ...RELEASE);
    way = optimized && Buffer.compare(optimized, release) === 0 ? "same code" : "survived";
    if (way === "survived" || way === "golden digest" || way === "same code") console.log(`${way}  ${show(mutant)}`);
  }
  ways.set(way, (ways.get(way) ?? 0) + 1);
}
console.log(ways);
process.exit();
