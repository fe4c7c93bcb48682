// Breaks the kernels on purpose: changes one operator, constant or bound of assembly/ at a time, compiles that, and makes
// the calls of test/borders.ts and test/digest.ts with it. Their limits and bits are tests of `npm test`, so a mutant that
// fails here fails there.
//
//   npm run mutate                          all of it
//   npm run mutate -- --file moments.ts     one file, or those of a name or of a folder
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
const TIME = 6; // seconds of processor time for the calls of a mutant, which take two: it may loop for ever

/** What is changed, and to what. @type {[RegExp, (found: string) => string[]][]} */
const RULES = [
  [
    /\b(f32x4|f64x2)\.(add|sub|mul)\b/g,
    (call) => (call.endsWith("add") ? [call.replace("add", "sub")] : [call.replace(/sub|mul/, "add")]),
  ],
  [/ (\+|-|\*|\/) /g, (operator) => [{ "+": " - ", "-": " + ", "*": " + ", "/": " * " }[operator.trim()]]],
  [/ (\+=|-=|\*=|\/=) /g, (operator) => [{ "+=": " -= ", "-=": " += ", "*=": " += ", "/=": " *= " }[operator.trim()]]],
  [/ (<|<=|>|>=) /g, (operator) => [{ "<": " <= ", "<=": " < ", ">": " >= ", ">=": " > " }[operator.trim()]]],
  [/ [!=]== /g, (operator) => [operator.includes("!") ? " === " : " !== "]],
  [/\b(true|false)\b/g, (value) => [value === "true" ? "false" : "true"]],
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

/**
 * What changes no result of a legal call: by reason, the file, the text up to and with what is changed, and what it may
 * become; anything if that is missing. Mutants that are caught all the same are reported.
 * @type {Record<string, [file: string, at: string, ...to: string[]][]>}
 */
const EQUIVALENT = {
  "four rows at a time and one by one have the same bits": [
    ["lib/forward.ts", "rows - row >="],
    ["lib/forward.ts", "rows - row >= 4", "5"],
    ["lib/short.ts", "SIDE_BY_SIDE: usize = 64"],
    ["lib/short.ts", "store(rstd, r);\n\n  if (!"],
    ["lib/short.ts", "cols <="],
    ["lib/short.ts", "!(cols &"],
    ["lib/moments.ts", "const least = f64x2.gt(f64x2.add"],
  ],
  "the last columns, fewer at a time, have the same bits": [
    ["lib/dx.ts", "const end16 = (cols & ~15) <<", ">>"],
    ["lib/dx.ts", "const end16 = (cols & ~15) << 2", "0"],
    ["lib/normalize.ts", "const end16 = (cols & ~15) <<", ">>"],
    ["lib/normalize.ts", "const end16 = (cols & ~15) << 2", "0"],
  ],
  "normalize and normalizeAffine have the same bits": [["lib/short.ts", "if (weight && (isVoid<Mean>() ||"]],
  "nothing reads the lane": [
    ["lib/gradient.ts", "v, v, 2, 3, 0"],
    ["lib/gradient.ts", "v, v, 2, 3, 0, 1"],
    ["lib/lanes.ts", "v, v, 2, 3, 0"],
    ["lib/lanes.ts", "v, v, 2, 3, 0, 1"],
    ["lib/moments.ts", "v, v, 1, 0"],
    ["lib/moments.ts", "v, v, 1, 0, 3, 2"],
    ["lib/short.ts", "(m, m, 1, 2, 3, 0"],
    ["lib/short.ts", "(r, r, 1, 2, 3, 0"],
  ],
  "both lanes are the same": [
    ["lib/moments.ts", "f32x4.extract_lane(sums, 0", "1"],
    ["lib/moments.ts", "f32x4.extract_lane(sums, 2", "3"],
  ],
  "it is written over before it is read": [["lib/short.ts", "let a = f64x2.splat(0"]],
  "a number is compared with the largest more than once": [
    ["lib/gradient.ts", "step\n  for (let i: usize = 0; i < end; i += end - i <", "<="],
    ["lib/gradient.ts", "step\n  for (let i: usize = 0; i < end; i += end - i < 16", "17"],
  ],
  "no size between LEAST and LARGEST comes here": [
    ["lib/gradient.ts", "(!(size <", "<="],
    ["lib/gradient.ts", "(!(size < 1", "2"],
  ],
  "either way the block ends at the same place": [["lib/gradient.ts", "last - d >", ">="]],
  "a row near zero does not read the rest": [
    ["lib/backward.ts", "Present>(dx, dw, db, dy, x, weight, add, cols, m, 0", "1"],
    ["lib/backward.ts", "Absent>(dx, dw, db, dy, x, weight, add, cols, m, 0", "1"],
  ],
  "without a mean delta is 0, small beside any variance": [["lib/forward.ts", "eps, 0, sums, false"]],
  "without dx there is nothing left to write": [["lib/gradient.ts", "if (!dx) return true"]],
  "two rows make one chunk, as one does": [["lib/backward.ts", "addSums(dweight, dbias, 1", "2"]],
  "what is read ahead changes the speed alone": [
    ["lib/backward.ts", "CACHE: usize = 32768"],
    ["lib/backward.ts", "step\n  for (let i: usize = 0", "1"],
    ["lib/backward.ts", "step\n  for (let i: usize = 0; i <", "<="],
    ["lib/backward.ts", "i < stride; i +=", "-="],
    ["lib/backward.ts", "i < stride; i += 64", "65"],
    ["lib/backward.ts", "j < end; j +=", "-="],
    ["lib/backward.ts", "load<u8>(dy +"],
    ["lib/backward.ts", "load<u8>(x +"],
    ["lib/backward.ts", "const wide = stride *"],
    ["lib/backward.ts", "const wide = stride * 6"],
    ["lib/backward.ts", "const wide = stride * 6 >"],
    ["lib/backward.ts", "if (wide &&"],
    ["lib/backward.ts", "if (wide && start % HALF ==="],
    ["lib/backward.ts", "if (wide && start % HALF === 0", "1"],
  ],
  "the sums of groups, which follow, are 0": [
    ["lib/sums.ts", "const end = cols << 4", "5"],
    ["lib/sums.ts", "for (let i: usize = 0; i <", "<="],
  ],
};

const REASONS = Object.entries(EQUIVALENT).flatMap(([why, rules]) =>
  rules.map(([file, at, ...to]) => ({ why, file, at, to, used: false })),
);

/** @typedef {{ file: string, line: number, text: string, from: string, to: string, source: string, why?: string }} Mutant */

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
        const [from, end] = [match[0], match.index + match[0].length];
        const line = source.slice(0, match.index).split("\n").length;
        const before = source.slice(0, end).trimEnd();
        const rule = REASONS.find(
          (rule) =>
            rule.file === file && before.endsWith(rule.at) && (rule.to.length === 0 || rule.to.includes(to.trim())),
        );
        if (rule) rule.used = true;
        const changed = source.slice(0, match.index) + to + source.slice(end);
        found.push({ file, line, text: lines[line - 1].trim(), from, to, source: changed, why: rule?.why });
      }
    }
  }
  return found.sort((a, b) => a.line - b.line);
}

/**
 * Compiles a mutant; null if it is no program. The debug build has the same bits as release, and is compiled in a tenth of
 * the time.
 * @returns {Promise<Uint8Array | null>}
 */
async function compile({ file, source }, target) {
  let bytes = null;
  const flags = ["--target", target, "--noAssert", "--outFile", "mutant.wasm", "--textFile", ""];
  const { error } = await asc.main(["assembly/index.ts", ...flags], {
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

/** What a worker says of a build; undefined after too long a time. @returns {Promise<string | undefined>} */
function told(worker, bytes) {
  return new Promise((resolve, reject) => {
    const from = process.cpuUsage();
    const timer = setInterval(() => {
      if (process.cpuUsage(from).user > TIME * 1e6) end(resolve)();
    }, 500);
    const end = (settle) => (value) => {
      clearInterval(timer);
      settle(value);
    };
    worker.removeAllListeners();
    worker.on("error", end(reject));
    worker.on("message", end(resolve));
    worker.postMessage(bytes);
  });
}

async function start() {
  const worker = new Worker(new URL("mutant.mjs", import.meta.url));
  if ((await told(worker, original)) !== "") throw new Error("the kernels as they are fail");
  return worker;
}

const files = readdirSync(join(root, "assembly"), { recursive: true }).filter(
  (file) => file.endsWith(".ts") && !["index.ts", "heap.ts"].includes(file),
);
const mutants = files
  .flatMap(mutantsOf)
  .filter((_, index) => index % Number(options.every) === Number(options.from))
  .filter(({ file }) => !options.file || `/${file}/`.includes(`/${options.file}/`));
for (const { used, file, at } of REASONS) if (!used) throw new Error(`a rule matches nothing: ${file}, "${at}"`);
const show = ({ file, line, text, from, to }) =>
  `assembly/${file}:${line}  ${from.trim()} -> ${to.trim() || "nothing"}  in  ${text}`;
const index = { file: "index.ts", source: readFileSync(join(root, "assembly/index.ts"), "utf8") };
const original = options.list ? null : await compile(index, "debug");

async function run() {
  const release = Buffer.from(await compile(index, "release"));
  /** How many are caught by what, or left for what reason. */
  const caught = { limits: 0, bits: 0 };
  const left = new Map();
  let [invalid, survived, misjudged] = [0, 0, 0];
  let worker = await start();
  for (const mutant of mutants) {
    const bytes = await compile(mutant, "debug");
    if (!bytes) {
      invalid++;
      continue;
    }
    const found = await told(worker, bytes);
    if (found === undefined) {
      await worker.terminate();
      worker = await start();
    }
    if (found !== "") {
      caught[found ?? "limits"]++;
      if (mutant.why) {
        misjudged++;
        console.log(`caught, though a rule calls it equivalent  ${show(mutant)}`);
      }
      continue;
    }
    const why = mutant.why ?? (release.equals(await compile(mutant, "release")) && "the release build is the same");
    if (why) left.set(why, (left.get(why) ?? 0) + 1);
    else {
      survived++;
      console.log(`survived  ${show(mutant)}`);
    }
  }
  await worker.terminate();

  const total = caught.limits + caught.bits;
  const equivalent = [...left.values()].reduce((sum, count) => sum + count, 0);
  console.log(`${mutants.length} mutants, of which ${invalid} are no programs and ${equivalent} change no result:`);
  for (const [why, count] of [...left].sort(([, a], [, b]) => b - a)) console.log(`  ${count}  ${why}`);
  console.log(
    `Of the others ${total} are caught, ${caught.limits} by a limit, a guard or a trap and ${caught.bits} by their bits alone.`,
  );
  console.log(`${survived} survived: ${((100 * total) / (total + survived)).toFixed(1)} % caught.`);
  process.exitCode = survived + misjudged > 0 ? 1 : 0;
}

if (options.list) {
  for (const mutant of mutants) console.log(show(mutant), mutant.why ? `(${mutant.why})` : "");
  console.log(`${mutants.length} mutants`);
} else await run();
