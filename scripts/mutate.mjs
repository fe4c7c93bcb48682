// Breaks the kernels on purpose: changes one operator, constant or bound of assembly/ at a time, compiles that, and runs the
// kernels' tests on it, which ought to fail. First the tests that know what is right, then those on hard inputs. What passes
// those is shown the golden digest, which sees any change of a bit, as of a row that takes a slower way to the same result.
//
//   npm run mutate                          all of it, about ten mutants a minute on two cores
//   npm run mutate -- --file moments.ts     one file, or those of a name
//   npm run mutate -- --every 15            a sample, one of fifteen
//   npm run mutate -- --again               those alone that passed the first tests the last time
//   npm run mutate -- --list                what would be changed

import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import asc from "assemblyscript/asc";

const { values: options } = parseArgs({
  options: {
    file: { type: "string" },
    list: { type: "boolean" },
    again: { type: "boolean" },
    every: { type: "string", default: "1" },
    jobs: { type: "string" },
  },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "build/mutants");
const memory = join(root, "build/survivors.json");
const FORWARD = ["test/forward.test.ts"];
const BACKWARD = ["test/backward.test.ts", "test/abi.test.ts"];
const ALL = [...FORWARD, ...BACKWARD, "test/kernels.test.ts"];
const ACCURACY = ["test/accuracy.test.ts"];
const DIGEST = ["test/digest.test.ts"];
const LIMITS = { own: 15, all: 40 }; // s of processor time, twice what the suites take: a mutant may loop for ever

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

/** @typedef {{ file: string, line: number, from: string, to: string, source: string }} Mutant */

/** @param {string} file @returns {Mutant[]} */
function mutantsOf(file) {
  const source = readFileSync(join(root, "assembly", file), "utf8");
  // Comments, imports and what test/loader.test.ts asserts stay, at the same length, so that positions hold.
  const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*|^(import|export type| *assert).*$/gm, (text) =>
    text.replace(/[^\n]/g, "~"),
  );
  const found = [];
  for (const [pattern, change] of RULES) {
    for (const match of code.matchAll(pattern)) {
      for (const to of change(match[0])) {
        const end = match.index + match[0].length;
        const line = source.slice(0, match.index).split("\n").length;
        found.push({ file, line, from: match[0], to, source: source.slice(0, match.index) + to + source.slice(end) });
      }
    }
  }
  return found.sort((a, b) => a.line - b.line);
}

/** Compiles a mutant with the flags of the debug build, which are the fastest; false if it is no program. */
async function compile({ file, source }, name) {
  const { error } = await asc.main(
    ["assembly/index.ts", "--target", "debug", "--outFile", `build/mutants/${name}.wasm`, "--textFile", ""],
    {
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
        if (path.endsWith(".wasm")) writeFileSync(join(root, path), contents);
      },
      stderr: { write: () => true },
    },
  );
  return error === null;
}

/** The tests of what is right for the code of a file. @param {string} file */
function testsOf(file) {
  if (/forward|moments|normalize|row|short/.test(file)) return FORWARD;
  return /backward|gradient|dx|exact|sums/.test(file) ? BACKWARD : ALL;
}

/** Whether some tests notice. @param {string} name @param {string[]} tests @returns {Promise<boolean>} */
function caught(name, tests, limit = LIMITS.all) {
  return new Promise((resolve) => {
    const vitest = join(root, "node_modules/vitest/vitest.mjs");
    const flags = ["--bail=1", "--pool=threads", "--no-isolate", "--no-file-parallelism"];
    const suite = spawn(
      "sh",
      ["-c", `ulimit -t ${limit} && exec "$@"`, "sh", process.execPath, vitest, "run", ...flags, ...tests],
      {
        cwd: root,
        env: { ...process.env, CI: "", KERNELS: `mutants/${name}` },
        stdio: "ignore",
      },
    );
    suite.on("exit", (code) => resolve(code !== 0));
  });
}

const files = readdirSync(join(root, "assembly"), { recursive: true }).filter(
  (file) => file.endsWith(".ts") && !["index.ts", "heap.ts"].includes(file),
);
const last = options.again ? JSON.parse(readFileSync(memory, "utf8")) : null;
const id = ({ file, line, from, to, source }) => JSON.stringify([file, line, from, to, source.length, source]);
const mutants = files
  .filter((file) => !options.file || `/${file}`.endsWith(`/${options.file}`))
  .flatMap(mutantsOf)
  .filter((mutant) => !last || last.includes(id(mutant)))
  .filter((_, index) => index % Number(options.every) === 0);
const show = ({ file, line, from, to }) => `assembly/${file}:${line}  ${from.trim()} -> ${to.trim() || "nothing"}`;
if (options.list) {
  for (const mutant of mutants) console.log(show(mutant));
  console.log(`${mutants.length} mutants`);
  process.exit();
}

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const original = {
  file: "index.ts",
  line: 0,
  from: "",
  to: "",
  source: readFileSync(join(root, "assembly/index.ts"), "utf8"),
};
if (!(await compile(original, "original")) || (await caught("original", [...ALL, ...ACCURACY, ...DIGEST])))
  throw new Error("the suite fails on the kernels as they are");

let tried = 0;
let invalid = 0;
const passed = [];
const survivors = [];
const queue = mutants.map((mutant, index) => ({ mutant, name: String(index) }));
async function work() {
  for (let next = queue.shift(); next; next = queue.shift()) {
    const { mutant, name } = next;
    if (!(await compile(mutant, name))) {
      invalid++;
      continue;
    }
    if (!(await caught(name, testsOf(mutant.file), LIMITS.own)) && !(await caught(name, [...ALL, ...ACCURACY]))) {
      passed.push(mutant);
      const seen = await caught(name, DIGEST);
      if (!seen) survivors.push(mutant);
      console.log(`${seen ? "digest alone" : "survived    "}  ${show(mutant)}`);
    }
    tried++;
    if (tried % 10 === 0) console.log(`${tried + invalid} of ${mutants.length}`);
    rmSync(join(folder, `${name}.wasm`), { force: true });
  }
}
await Promise.all(Array.from({ length: Number(options.jobs ?? availableParallelism()) }, work));
writeFileSync(memory, JSON.stringify(passed.map(id)));
const percent = (missed) => `${tried - missed} (${((100 * (tried - missed)) / tried).toFixed(1)} %)`;
console.log(
  `${tried} mutants, and ${invalid} that did not compile. Caught by the tests of what is right: ${percent(passed.length)};`,
);
console.log(`with the golden digest: ${percent(survivors.length)}.`);
