// npm run test:bundlers: small apps of the packed tarball, built by each bundler and run where they are meant to run. Prints a
// table; what fails is shown and counted.
//
//   npm run test:bundlers [-- rollup typescript ...]    the cases whose names have one of these words

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import { nodeResolve } from "@rollup/plugin-node-resolve";
import { build as esbuild, version as esbuildVersion } from "esbuild";
import { rollup, VERSION as rollupVersion } from "rollup";
import * as vite from "vite";
import * as vite5 from "vite5";
import * as vite6 from "vite6";
import * as vite7 from "vite7";
import webpack from "webpack";
import { ISOLATED, openPage } from "../browsers.mjs";
import { runCases } from "../cases.mjs";
import { install, root } from "../packed.mjs";
import { snippetsOf } from "../snippets.mjs";
import { serveWorker } from "../workerd.mjs";

const require = createRequire(import.meta.url);
const here = join(root, "test/bundlers");
const out = join(root, "build/bundlers");
const bin = (path) => join(here, "node_modules", path);
const versionOf = (name) => require(`${name}/package.json`).version;
const nodeOf = (major) => join(root, `test/engines/node_modules/node${major}/bin/node`);

const CASES = {};

/** Adds a case. It is given a folder of its own with an app, which finds the package above it. */
function add(name, app, run) {
  CASES[name] = () => {
    const path = join(out, name.replace(/:.*/, "").replace(/[^\w.]+/g, "-"));
    mkdirSync(path);
    copyFileSync(join(here, app), join(path, "app.js"));
    for (const file of ["app-threads.js", "report.js"]) copyFileSync(join(here, file), join(path, file));
    writeFileSync(join(path, "index.html"), HTML);
    return run(path);
  };
}

// What the apps report

const EXPECTED = {
  y: [-1, 1, 1, -1],
  dx: [0, 0, 0, 0],
  dweight: [1 * -1 + 3 * 1, 2 * 1 + 4 * -1],
  tensor: [-1, -1, 1, 1],
  bytes: 65536,
};
const THREADS = { threads: 2, shared: true, right: true, refusal: "" };

/** That a report of app-threads.js is of one thread, and gives its reason with and without the fallback. */
function checkSingle({ refusal, fallbackReason, error, ...report }, reason) {
  strictEqual(error, undefined);
  match(refusal, reason);
  ok(refusal.startsWith(`createThreadedRuntime: ${fallbackReason}; { fallback: "single" }`), fallbackReason);
  deepStrictEqual(report, { threads: 1, shared: false, right: true });
}

/** What the app of TensorFlow.js reports: no copies, of which a warning would tell, and the results of its own layer. */
function checkTfjs({ apart, ...report }, version, shared) {
  const right = { backend: "wasm", learned: true, patched: true, leaked: 0, warnings: [] };
  deepStrictEqual(report, { version: `${version}.0`, shared, ...right });
  ok(apart < 1e-4, `the layers are ${apart} apart`);
}

// Where they run

const HTML = '<!doctype html><meta charset="utf-8"><script type="module" src="/app.js"></script>';

const inPage = async (path, options) => deepStrictEqual(await openPage("chromium", path, options), EXPECTED);
const isolated = (path, options) => openPage("chromium", path, { headers: ISOLATED, ...options });
const threadsInPage = async (path, options) => deepStrictEqual(await isolated(path, options), THREADS);

/** What a program of Node prints; if it fails, what it complains of. */
function printedBy(node, cwd, ...args) {
  const { stdout, stderr, status } = spawnSync(node, ["--no-warnings", ...args], { cwd, encoding: "utf8" });
  return status === 0 ? stdout : stderr + stdout;
}
const printed = (...args) => printedBy(process.execPath, ...args);

/** What a program, whose value is a promise of a report, gives in Node. */
function reportOf(cwd, program, type = "commonjs") {
  const script = `${program}.then((report) => console.log(JSON.stringify(report)))`;
  const said = printed(cwd, `--input-type=${type}`, "-e", script);
  const [report] = /^\{.*\}$/m.exec(said) ?? [];
  ok(report, said);
  return JSON.parse(report);
}

/** What the worker of a folder answers in workerd. */
const answerOf = (folder, modules) => serveWorker(folder, modules, async (address) => (await fetch(address)).json());

/** The same of a worker's source, bundled with its modules beside it. */
async function answerOfBundle(path, source, conditions = ["workerd"]) {
  const entry = join(path, "worker.js");
  writeFileSync(entry, source);
  const outdir = join(path, "dist");
  const loader = { ".wasm": "copy" };
  await bundle(path, { entryPoints: [entry], format: "esm", conditions, loader, assetNames: "[name]" });
  return answerOf(outdir, ["worker.js", "layernorm.wasm", "heap.wasm"]);
}

/** esbuild, into the folder `dist` of an app. */
const bundle = (path, options) =>
  esbuild({ absWorkingDir: path, outdir: join(path, "dist"), bundle: true, logLevel: "error", ...options });

// The bundlers: each builds the app of a folder, and opens its page

const viteBuild = (vite) => async (path, open) => {
  await vite.build({ root: path, logLevel: "error" });
  await open(join(path, "dist"));
};

const viteDev = (vite, exclude) => async (path, open) => {
  const server = { host: "127.0.0.1", headers: ISOLATED };
  const served = await vite.createServer({ root: path, logLevel: "error", optimizeDeps: { exclude }, server });
  await served.listen(0);
  await open(path, { page: served.resolvedUrls.local[0] }).finally(() => served.close());
};
async function byWebpack(path, open) {
  const output = { path: join(path, "dist"), filename: "app.js" };
  const stats = await promisify(webpack)({ mode: "production", context: path, entry: "./app.js", output });
  ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
  await open(output.path, { html: HTML });
}

const byRollup = (more) => async (path, open) => {
  const onwarn = ({ message }) => {
    throw new Error(message);
  };
  const input = { app: join(path, "app.js"), ...more };
  const made = await rollup({ input, plugins: [nodeResolve({ rootDir: path })], onwarn });
  await made.write({ dir: join(path, "dist"), format: "es" });
  await open(join(path, "dist"), { html: HTML });
};

const byEsbuild = (more) => async (path, open) => {
  await bundle(path, { entryPoints: { app: "./app.js", ...more }, format: "esm", minify: true });
  await open(join(path, "dist"), { html: HTML });
};

/** Adds cases: an app by each of some bundlers. */
function addBuilds(app, open, bundlers) {
  for (const [name, build] of Object.entries(bundlers)) add(name, app, (path) => build(path, open));
}

const WORKER = { worker: "layernorm-wasm/worker.js" };
const NOT_PREBUNDLED = ["layernorm-wasm"];
addBuilds("app.js", inPage, {
  [`Vite ${vite.version}, build`]: viteBuild(vite),
  [`Vite ${vite.version}, dev`]: viteDev(vite),
  [`Vite ${vite.version}, dev, not prebundled`]: viteDev(vite, NOT_PREBUNDLED),
  [`webpack ${webpack.version}`]: byWebpack,
  [`Rollup ${rollupVersion}`]: byRollup(),
  [`esbuild ${esbuildVersion}`]: byEsbuild(),
});
addBuilds("app-threads.js", threadsInPage, {
  [`threads, Vite ${vite.version}, build`]: viteBuild(vite),
  [`threads, Vite ${vite.version}, dev`]: viteDev(vite),
  [`threads, Vite ${vite.version}, dev, not prebundled`]: viteDev(vite, NOT_PREBUNDLED),
  [`threads, webpack ${webpack.version}`]: byWebpack,
  [`threads, Rollup ${rollupVersion}, the worker as an input`]: byRollup(WORKER),
  [`threads, esbuild ${esbuildVersion}, the worker as an entry point`]: byEsbuild(WORKER),
});
const singleInPage = async (path, options) =>
  checkSingle(
    await isolated(path, options),
    /worker.js was not loaded.*optimizeDeps: \{ exclude: \["layernorm-wasm"\] \}/,
  );
for (const older of [vite5, vite6, vite7]) {
  const name = `threads, Vite ${older.version}`;
  addBuilds("app-threads.js", threadsInPage, {
    [`${name}, build`]: viteBuild(older),
    [`${name}, dev, not prebundled`]: viteDev(older, NOT_PREBUNDLED),
  });
  addBuilds("app-threads-url.js", threadsInPage, {
    [`${name}, build, with worker.js?url as the option worker`]: viteBuild(older),
    [`${name}, dev, prebundled, with worker.js?url as the option worker`]: viteDev(older),
  });
  addBuilds("app-threads.js", singleInPage, {
    [`${name}, dev: the error says what to exclude, and one thread is given`]: viteDev(older),
  });
}

// Edge hosts

const COMPUTES = `import { compute } from "./app.js";
export default { fetch: async () => Response.json(await compute()) };
`;

add("esbuild, for workerd", "app.js", async (path) => {
  deepStrictEqual(await answerOfBundle(path, COMPUTES), EXPECTED);
});

add("wrangler deploy --dry-run, in workerd", "app.js", async (path) => {
  writeFileSync(join(path, "worker.js"), COMPUTES);
  const config = { name: "layernorm", main: "worker.js", compatibility_date: "2026-01-01" };
  writeFileSync(join(path, "wrangler.json"), JSON.stringify(config));
  const env = { ...process.env, WRANGLER_SEND_METRICS: "false", CI: "true" };
  const deploy = [bin("wrangler/bin/wrangler.js"), "deploy", "--dry-run", "--outdir", "dist"];
  execFileSync(process.execPath, deploy, { cwd: path, env, stdio: "pipe" });
  const dist = join(path, "dist");
  const modules = readdirSync(dist).filter((name) => /\.(js|wasm)$/.test(name));
  modules.sort((a, b) => a.endsWith(".wasm") - b.endsWith(".wasm"));
  deepStrictEqual(await answerOf(dist, modules), EXPECTED);
});

add("Next.js, an edge route", "app.js", async (path) => {
  mkdirSync(join(path, "app/api"), { recursive: true });
  mkdirSync(join(path, "node_modules"));
  for (const name of ["next", "react", "react-dom"]) symlinkSync(bin(name), join(path, "node_modules", name));
  const layout = "export default ({ children }) => <html><body>{children}</body></html>;\n";
  writeFileSync(join(path, "app/layout.js"), layout);
  writeFileSync(join(path, "app/page.js"), "export default () => <p>a page</p>;\n");
  const route = `import { compute } from "../../app.js";
export const runtime = "edge";
export const GET = () => Response.json(compute());
`;
  writeFileSync(join(path, "app/api/route.js"), route);
  const next = bin("next/dist/bin/next");
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" };
  const options = { cwd: path, env, stdio: "pipe" };
  execFileSync(process.execPath, [next, "build"], options);
  const server = spawn(process.execPath, [next, "start", "--hostname", "127.0.0.1", "--port", "0"], options);
  try {
    const address = await new Promise((resolve, reject) => {
      let said = "";
      server.stdout.on("data", (data) => {
        said += data;
        const [url] = /http:\/\/[\d.]+:\d+/.exec(said) ?? [];
        if (url && said.includes("Ready")) resolve(url);
      });
      server.on("exit", (code) => reject(new Error(`next start ended with ${code}: ${said}`)));
    });
    deepStrictEqual(await (await fetch(`${address}/api`)).json(), EXPECTED);
  } finally {
    server.removeAllListeners("exit");
    server.kill("SIGKILL");
  }
});

add("workerd without its condition: the error says what to do, and that works", "app.js", async (path) => {
  const source = `import { LayerNorm, Runtime } from "layernorm-wasm";
import heap from "layernorm-wasm/heap.wasm";
import module from "layernorm-wasm/layernorm.wasm";
const attempt = () => {
  try {
    return [...new LayerNorm(2, { eps: 0 }).forward(new Float32Array([3, 5]))];
  } catch (error) {
    return error.message;
  }
};
export default {
  fetch() {
    const before = attempt();
    Runtime.default = Runtime.create({ module, heap });
    return Response.json([before, attempt()]);
  },
};
`;
  const [before, after] = await answerOfBundle(path, source, []);
  match(before, /may not be compiled here, .*disallowed.*"workerd".*Runtime.create\(\{ module, heap \}\)/);
  deepStrictEqual(after, [-1, 1]);
});

add(
  "threads, in workerd: the error says that there are none, and one thread is given",
  "app-threads.js",
  async (path) => {
    checkSingle(await answerOfBundle(path, COMPUTES), /this host has no Worker/);
  },
);

// Pages without a bundler

const IMPORTS = JSON.stringify({ imports: { "layernorm-wasm": "/index.js", "layernorm-wasm/threads": "/threads.js" } });

/** The header that allows scripts of the server, the import map of a page and `more`; the map is inline, so it goes by its hash. */
function policy(more) {
  const hash = `'sha256-${createHash("sha256").update(IMPORTS).digest("base64")}'`;
  return { "content-security-policy": `default-src 'none'; connect-src 'self'; script-src 'self' ${hash} ${more}` };
}

/** Adds a case that is given a function, which opens the page, and the folder. The files of the package lie beside the app. */
function addPage(name, app, run) {
  add(name, app, (path) => {
    cpSync(join(out, "node_modules/layernorm-wasm/dist"), path, { recursive: true });
    const open = ({ browser = "chromium", script = "", ...options } = {}) => {
      const map = `<script type="importmap">${IMPORTS}</script>`;
      return openPage(browser, path, { html: HTML.replace("<script", `${map}${script}<script`), ...options });
    };
    return run(open, path);
  });
}

addPage("a page without a bundler", "app.js", async (open) => deepStrictEqual(await open(), EXPECTED));

CASES["the page without a bundler of the README, from its CDN"] = async () => {
  const [page] = snippetsOf(root, "README.md").filter(({ language }) => language === "html");
  const html = `${page.code.replace(/https:\/\/[\w.]+\/npm\/layernorm-wasm@[\d.]+/, "/node_modules/layernorm-wasm")}
<script type="module">
  import { report } from "/report.js";
  report(() => document.body.textContent.trim());
</script>`;
  copyFileSync(join(here, "report.js"), join(out, "report.js"));
  match(await openPage("chromium", out, { html }), /-0\.99999\d+,0\.99999\d+$/);
};

addPage("a page under a strict CSP", "app.js", async (open) => {
  deepStrictEqual(await open({ headers: policy("'wasm-unsafe-eval'") }), EXPECTED);
  const { error } = await open({ headers: policy("") });
  match(error, /may not be compiled here, .*; a page needs 'wasm-unsafe-eval'/);
});

addPage("threads, a page without a bundler, under a strict CSP", "app-threads.js", async (open) => {
  deepStrictEqual(await open({ headers: { ...ISOLATED, ...policy("'wasm-unsafe-eval'") } }), THREADS);
});

const NO_WORKERS = { ...ISOLATED, ...policy("'wasm-unsafe-eval' 'unsafe-eval'; worker-src 'none'") };
const FORBIDDEN = /a thread did not start: the page's Content-Security-Policy forbids it; its worker-src/;
for (const [name, options, reason] of [
  [
    "a page whose worker.js lacks its header",
    { pageHeaders: ISOLATED },
    /a thread did not start: worker.js was not loaded\..*Cross-Origin-Embedder-Policy/,
  ],
  [
    "a page that isn't isolated",
    {},
    /"Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"/,
  ],
  ["a page in chromium whose CSP forbids workers", { browser: "chromium", headers: NO_WORKERS }, FORBIDDEN],
  ["a page in firefox whose CSP forbids workers", { browser: "firefox", headers: NO_WORKERS }, FORBIDDEN],
  ["a page in webkit whose CSP forbids workers", { browser: "webkit", headers: NO_WORKERS }, FORBIDDEN],
]) {
  addPage(`threads, ${name}: the error says so, and one thread is given`, "app-threads.js", async (open) => {
    checkSingle(await open(options), reason);
  });
}

const ELSEWHERE = "threads, a page whose worker.js is elsewhere: the error says so, and the option worker finds it";
addPage(ELSEWHERE, "app-threads.js", async (open, path) => {
  mkdirSync(join(path, "workers"));
  renameSync(join(path, "worker.js"), join(path, "workers/worker.js"));
  checkSingle(await open({ headers: ISOLATED }), /worker.js was not loaded.*give the option worker/);
  const script = '<script>threadsOptions = { worker: "/workers/worker.js" }</script>';
  deepStrictEqual(await open({ headers: ISOLATED, script }), THREADS);
});

// Bundles that don't know where they are

const SAYS = "the error says what to give, and the option worker works";

add(`threads, esbuild ${esbuildVersion}, IIFE: ${SAYS}`, "app-threads.js", async (path) => {
  // It warns that there is no import.meta.
  await bundle(path, { entryPoints: { app: "./app.js", ...WORKER }, format: "iife", logLevel: "silent" });
  const open = (options) => {
    const html = `<!doctype html><meta charset="utf-8"><script>${options}</script><script src="/app.js"></script>`;
    return isolated(join(path, "dist"), { html });
  };
  checkSingle(await open(""), /without import.meta.url; give the option worker/);
  deepStrictEqual(await open('threadsOptions = { worker: "/worker.js" }'), THREADS);
  deepStrictEqual(await open('threadsOptions = { worker: () => new Worker("/worker.js") }'), THREADS);
});

add(`threads, esbuild ${esbuildVersion}, CommonJS for Node: ${SAYS}`, "app-threads.js", async (path) => {
  const options = { platform: "node", format: "cjs", outExtension: { ".js": ".cjs" }, logLevel: "silent" };
  await bundle(path, { entryPoints: { app: "./app.js", ...WORKER }, ...options });
  const report = (worker) => reportOf(path, `require("./dist/app.cjs").compute({ worker: ${worker} })`);
  const file = 'require("node:path").resolve("dist/worker.cjs")';
  checkSingle(report("undefined"), /without import.meta.url; give the option worker/);
  deepStrictEqual(report(file), THREADS);
  deepStrictEqual(report(`require("node:url").pathToFileURL(${file})`), THREADS);
  deepStrictEqual(report(`require("node:url").pathToFileURL(${file}).href`), THREADS);
  deepStrictEqual(report(`() => new (require("node:worker_threads").Worker)(${file})`), THREADS);
});

add(`threads, Vite ${vite.version}, SSR with noExternal: ${SAYS}`, "app-threads.js", async (path) => {
  await vite.build({ root: path, logLevel: "error", build: { ssr: "app.js" }, ssr: { noExternal: true } });
  const report = (worker) =>
    reportOf(path, `import("./dist/app.js").then(({ compute }) => compute({ worker: ${worker} }))`, "module");
  checkSingle(report("undefined"), /Cannot find module .*worker.*; give the option worker/);
  deepStrictEqual(report('new URL(import.meta.resolve("layernorm-wasm/worker.js"))'), THREADS);
});

// TensorFlow.js: in a page that is isolated the backend has threads

for (const browser of ["chromium", "firefox", "webkit"]) {
  for (const shared of [true, false]) {
    const name = `TensorFlow.js, Vite ${vite.version}, ${browser}, ${shared ? "isolated" : "not isolated"}`;
    add(name, "app-tfjs.js", async (path) => {
      const binaries = join(root, "node_modules/@tensorflow/tfjs-backend-wasm/wasm-out");
      const filter = (name) => name === binaries || name.endsWith(".wasm");
      cpSync(binaries, join(path, "public"), { recursive: true, filter });
      // Its threads are started with the text of a function, which no longer runs when it was minified.
      await vite.build({ root: path, logLevel: "error", build: { minify: !shared } });
      const report = await openPage(browser, join(path, "dist"), { headers: shared ? ISOLATED : {} });
      checkTfjs(report, "4.22", shared);
    });
  }
}

const VERSIONS = Object.keys(require("../tfjs/package.json").dependencies).filter((name) => name.startsWith("core-"));
for (const version of VERSIONS.map((name) => name.replace("core-", ""))) {
  add(`TensorFlow.js ${version}, Node`, "app-tfjs.js", async (path) => {
    const installed = (name) => join(root, "test/tfjs/node_modules", `${name}-${version}`);
    const names = ["core", "layers", "backend-cpu", "backend-wasm"];
    const alias = Object.fromEntries(names.map((name) => [`@tensorflow/tfjs-${name}`, installed(name)]));
    await bundle(path, { entryPoints: ["./app.js"], platform: "node", outExtension: { ".js": ".cjs" }, alias });
    const binaries = JSON.stringify(`${installed("backend-wasm")}/wasm-out/`);
    checkTfjs(reportOf(path, `require("./dist/app.cjs").compare(${binaries})`), version, false);
  });
}

// Tools of Node

/** A folder of files, where the tools of this folder are found. */
function project(name, files) {
  const path = join(out, name.replace(/[^\w.]+/g, "-"));
  mkdirSync(join(path, "node_modules"), { recursive: true });
  for (const tool of ["typescript", "ts-jest", "ts-node"]) symlinkSync(bin(tool), join(path, "node_modules", tool));
  for (const [file, content] of Object.entries(files)) {
    writeFileSync(join(path, file), typeof content === "string" ? content : JSON.stringify(content));
  }
  return path;
}

const NORM_TS = `import { LayerNorm } from "layernorm-wasm";
export const y: Float32Array = new LayerNorm(2, { eps: 0 }).forward(new Float32Array([3, 5]));
console.log([...y].join());
`;
const THREADS_TS = `import { createThreadedRuntime } from "layernorm-wasm/threads";
createThreadedRuntime({ threads: 2 }).then(async (runtime) => {
  console.log(runtime.threads);
  await runtime.close();
});
`;

CASES["require() in Node"] = () => {
  const script = 'console.log(require("layernorm-wasm").layerNorm(new Float32Array([3, 5]), 2, null, null, 0).join())';
  for (const node of [process.execPath, nodeOf(22), nodeOf(26)]) {
    strictEqual(printedBy(node, out, "--input-type=commonjs", "-e", script), "-1,1\n");
  }
};

const PASSED = /"numPassedTests":1,/;
CASES[`Jest ${versionOf("jest")}, with --experimental-vm-modules, in ES modules and in CommonJS`] = () => {
  const test = readFileSync(join(here, "app.test.js"), "utf8");
  for (const type of ["module", "commonjs"]) {
    const path = project(`jest-${type}`, { "package.json": { type }, "app.test.js": test });
    match(printed(path, "--experimental-vm-modules", bin("jest/bin/jest.js"), "--json", "--transform", "{}"), PASSED);
  }
};

CASES[`Jest ${versionOf("jest")}, require(): a transform of the package works, or the flag with a newer Node`] = () => {
  const tsconfig = { allowJs: true, module: "commonjs", moduleResolution: "node10", target: "es2022" };
  const transform = { "\\.[jt]s$": ["ts-jest", { diagnostics: false, tsconfig }] };
  const path = project("jest-transform", {
    "package.json": { type: "commonjs" },
    "app.test.ts": `${NORM_TS}test("a row", () => expect([...y]).toEqual([-1, 1]));`,
    "tests.json": { transform },
    "all.json": { transform, transformIgnorePatterns: ["/node_modules/(?!layernorm-wasm/)"] },
  });
  const jest = (config) => [bin("jest/bin/jest.js"), "--json", "--config", config];
  match(printed(path, ...jest("all.json")), PASSED);
  const flagged = ["--experimental-vm-modules", ...jest("tests.json")];
  match(printedBy(nodeOf(22), path, ...flagged), /Must use import to load ES Module/);
  match(printedBy(nodeOf(24), path, ...flagged), PASSED);
};

CASES[`ts-node ${versionOf("ts-node")} and tsx, in CommonJS and in ES modules`] = () => {
  const compilerOptions = { module: "nodenext", target: "es2022", types: [], skipLibCheck: true };
  for (const type of ["module", "commonjs"]) {
    const files = { "package.json": { type }, "tsconfig.json": { compilerOptions }, "all.ts": NORM_TS + THREADS_TS };
    const path = project(`ts-node-${type}`, files);
    const tsNode = type === "module" ? ["--loader", "ts-node/esm"] : [bin("ts-node/dist/bin.js")];
    const tsx = [join(root, "node_modules/tsx/dist/cli.mjs")];
    for (const tool of [tsNode, tsx]) strictEqual(printed(path, ...tool, "all.ts"), "-1,1\n2\n");
  }
};

const SOURCES = {
  "norm.ts": NORM_TS,
  "threads.ts": THREADS_TS,
  "types.ts": readFileSync(join(here, "types.ts"), "utf8"),
};
const ALL = ["norm.ts", "threads.ts"];
const NO_DOM = ["types.ts"];
const [TS5, TS7] = [bin("typescript"), join(root, "node_modules/typescript")];
for (const [compiler, type, module, moduleResolution, files, trouble] of [
  [TS5, "commonjs", "nodenext", "nodenext", ALL],
  [TS5, "commonjs", "node20", "node16", ALL],
  [TS5, "commonjs", "node16", "node16", ALL, "TS1479"],
  [TS5, "commonjs", "commonjs", "node10", ["threads.ts"], "TS2307"],
  [TS5, "commonjs", "commonjs", "node10", ["norm.ts"]],
  [TS5, "module", "node16", "node16", ALL],
  [TS7, "commonjs", "commonjs", "bundler", ALL],
  [TS7, "commonjs", "node16", "node16", ALL, "TS1479"],
  [TS7, "module", "esnext", "bundler", NO_DOM],
  [TS7, "module", "node16", "node16", NO_DOM],
  [TS7, "module", "nodenext", "nodenext", NO_DOM],
]) {
  const { version } = JSON.parse(readFileSync(join(compiler, "package.json"), "utf8"));
  const named = `TypeScript ${version}, ${type}, module ${module}, moduleResolution ${moduleResolution}, ${files}`;
  CASES[named + (trouble ? ": an error" : "")] = () => {
    const lib = ["es2022", "esnext.disposable", ...(files === NO_DOM ? [] : ["dom"])];
    const skipDefaultLibCheck = true; // TypeScript's own types, not the package's
    const strict = { noEmit: true, strict: true, types: [], skipDefaultLibCheck };
    const compilerOptions = { ...strict, target: "es2022", lib, module, moduleResolution };
    const config = { "package.json": { type }, "tsconfig.json": { compilerOptions, files } };
    const path = project(named, { ...config, ...SOURCES });
    match(printed(path, join(compiler, "bin/tsc"), "-p", path), trouble ? new RegExp(trouble) : /^$/);
  };
}

install(out);
const words = process.argv.slice(2).map((word) => word.toLowerCase());
const wanted = ([name]) => words.length === 0 || words.some((word) => name.toLowerCase().includes(word));
await runCases(Object.fromEntries(Object.entries(CASES).filter(wanted)));
