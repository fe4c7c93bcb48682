// What the documents say is there: scripts, files and links exist, and their code runs as it stands.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { transform } from "esbuild";
import { beforeAll, describe, expect, test } from "vitest";
import { pictures, tables } from "../bench/chart.js";
import { documentsOf, snippetsOf, sourcesOf } from "./snippets.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  name: string;
  version: string;
  homepage: string;
  repository: { url: string };
  files: string[];
  scripts: Record<string, string>;
};
const { scripts } = manifest;
const DOCUMENTS = documentsOf(root);
const WIDTH = 120;
/** Folders that a command makes. */
const MADE = ["docs/dist", "playground/dist"];

describe.each(DOCUMENTS)("%s", (name) => {
  const text = readFileSync(join(root, name), "utf8");
  const all = (pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1] as string);

  test("names only npm scripts that exist", () => {
    const named = all(/npm run (?:--silent )?([\w:-]+)/g);
    expect(named.filter((script) => !Object.hasOwn(scripts, script))).toEqual([]);
  });

  test("names only files that exist", () => {
    const paths = all(/(?<![\w/.-])((?:assembly|bench|docs|examples|playground|scripts|src|test)\/[\w./*-]*)/g);
    const missing = paths.filter((path) => {
      const file = path.replace(/[.,:]+$/, "");
      if (MADE.includes(file)) return false;
      if (!file.includes("*")) return !existsSync(join(root, file));
      const pattern = new RegExp(`^${file.split("/").pop()?.replaceAll(".", "\\.").replaceAll("*", ".*")}$`);
      return !readdirSync(join(root, dirname(file))).some((name) => pattern.test(name));
    });
    expect(missing).toEqual([]);
  });

  test("links only to files that exist", () => {
    const links = all(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g);
    const paths = links.map((link) => join(dirname(name), link));
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  test("has no line numbers of sources, which move", () => {
    expect(all(/([\w-]+\.(?:ts|mjs|js):\d+)/g)).toEqual([]);
  });

  test(`has no line of prose of more than ${WIDTH} columns`, () => {
    const prose = text.replace(/^```.*?^```/gms, "").split("\n");
    expect(prose.filter((line) => line.length > WIDTH && !line.startsWith("|") && !line.includes("](http"))).toEqual(
      [],
    );
  });
});

const PACKED = [...manifest.files, "README.md", "LICENSE"];
const isPacked = (file: string) => PACKED.some((path) => file === path || file.startsWith(`${path}/`));

test.each(DOCUMENTS.filter(isPacked))("%s, once packed, links only to files that are packed", (name) => {
  const text = readFileSync(join(root, name), "utf8");
  const links = [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map((match) => match[1] as string);
  expect(links.filter((link) => !isPacked(join(dirname(name), link)))).toEqual([]);
});

describe("README.md", () => {
  const text = readFileSync(join(root, "README.md"), "utf8");

  test("has at most 150 lines", () => {
    expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(150);
  });

  test("links only to addresses that package.json has, its page on npm, and badges of the package", () => {
    const { homepage, name, repository } = manifest;
    const pages = [...text.matchAll(/\]\((https:\/\/[^)]*)\)/g)].map((match) => match[1] as string);
    const own = [homepage, repository.url.replace(/^git\+(.*)\.git$/, "$1/"), `https://www.npmjs.com/package/${name}`];
    const isBadge = (page: string) => page.startsWith("https://img.shields.io/") && page.endsWith(`/${name}`);
    expect(pages.filter((page) => !isBadge(page) && !own.some((address) => page.startsWith(address)))).toEqual([]);
    expect(pages).toContain(`${homepage}playground/`);
  });

  test("loads this version of the package from a CDN", () => {
    const [, version, path] = /\/npm\/layernorm-wasm@([\d.]+)\/([\w./]+)/.exec(text) ?? [];
    expect(manifest.version.startsWith(`${version}.`)).toBe(true);
    expect(existsSync(join(root, path as string))).toBe(true);
  });
});

test("the pictures of the bench are those of its results: npm run bench:chart draws them anew", () => {
  const drawn = pictures("node24-x64");
  const read = (name: string) => readFileSync(join(root, "bench/results", name), "utf8");
  for (const [name, svg] of Object.entries(drawn)) expect(svg === read(name), name).toBe(true);
  expect(Object.keys(drawn)).toEqual(["node24-x64.svg", "readme.svg"]);
});

test("the goals in bench/README.md are those of its results: npm run bench:chart prints them", () => {
  expect(readFileSync(join(root, "bench/README.md"), "utf8")).toContain(tables("node24-x64").goals);
});

const excerpts = DOCUMENTS.flatMap((name) => snippetsOf(root, name).filter(({ mark }) => mark.includes("/")));

test.each(excerpts)("is in $mark: $title", ({ mark, code }) => {
  // Numbers of locals change with any other part of a function.
  const lines = (text: string) => text.replace(/\$[\w|-]*\d/g, "$").replace(/^\s+/gm, "");
  expect(lines(readFileSync(join(root, mark), "utf8"))).toContain(lines(code));
});

/** In the package, so that its name leads to what was built. */
const folder = join(root, "build/documents");
const snippets = [...DOCUMENTS, ...sourcesOf(root)].flatMap((name) => {
  const programs = snippetsOf(root, name).filter(
    ({ language, mark }) => /^[jt]s$/.test(language!) && !mark.includes("/"),
  );
  const file = name
    .replace(/\.\w+$/, "")
    .replaceAll("/", "-")
    .toLowerCase();
  return programs.map((snippet, i) => ({
    ...snippet,
    file: `${file}-${i + 1}`,
    title: `${name}, ${i + 1}: ${snippet.title}`,
  }));
});

describe("code in the documents", () => {
  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    for (const { file, code } of snippets) writeFileSync(join(folder, `${file}.mts`), `${code}export {};\n`);
  });

  test("has the right types", () => {
    // As strict as a program in JavaScript can be checked.
    const strictness = { strict: true, noImplicitAny: false, noEmit: true };
    const language = { target: "es2022", module: "nodenext", lib: ["es2022", "dom", "esnext.disposable"] };
    const types = { types: ["node"], skipLibCheck: true }; // not those of TensorFlow.js
    const config = { compilerOptions: { ...strictness, ...language, ...types }, include: ["*.mts"] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const { stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" });
    expect(stdout).toBe("");
  });

  test.each(snippets.filter(({ mark }) => mark === "edge"))("bundles for an edge host: $title", async ({ file }) => {
    // By the command that the guide has.
    const [, command] =
      /^npx (esbuild worker\.js .*)/m.exec(readFileSync(join(root, "docs/guides/hosts.md"), "utf8")) ?? [];
    const [program, , ...options] = (command as string).split(" ");
    const { stderr } = spawnSync(join(root, "node_modules/.bin", program as string), [`${file}.mts`, ...options], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(stderr).not.toMatch(/warning|error/i);
    const modules = readdirSync(join(folder, "out")).filter((name) => name.endsWith(".wasm"));
    expect(modules.map((name) => name.replace(/-.*/, "")).sort()).toEqual(["heap", "layernorm"]);
  });

  test.each(snippets.filter(({ mark }) => mark !== "edge"))("runs: $title", async ({ file, code }) => {
    const { code: script } = await transform(code, { loader: "ts", target: "es2022" });
    writeFileSync(join(folder, `${file}.mjs`), script);
    const printed = execFileSync(process.execPath, [join(folder, `${file}.mjs`)], { encoding: "utf8", stdio: "pipe" });
    const promised = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)/g)].flatMap(([, text]) =>
      numbersOf(text as string),
    );
    const found = numbersOf(printed.replace(/\b\w+\(\d+\)/g, "")); // Float32Array(4)
    expect(found.length).toBe(promised.length);
    for (const [i, { value, decimals }] of promised.entries()) expect(found[i]?.value).toBeCloseTo(value, decimals);
  });
});

/** The numbers in a text, and how many decimals each has. */
function numbersOf(text: string): { value: number; decimals: number }[] {
  return [...text.matchAll(/-?\d+(?:\.(\d+))?(?:e[-+]?\d+)?/g)].map(([number, decimals = ""]) => ({
    value: Number(number),
    decimals: decimals.length,
  }));
}
