// npm run test:bundlers: small apps of the packed tarball, built by each bundler and run where they are meant to run. Prints a
// table; what fails is shown and counted.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import { nodeResolve } from "@rollup/plugin-node-resolve";
import { build as esbuild, version as esbuildVersion } from "esbuild";
import { rollup, VERSION as rollupVersion } from "rollup";
import { createServer, build as vite, version as viteVersion } from "vite";
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
const HTML = '<!doctype html><meta charset="utf-8"><script type="module" src="/app.js"></script>';
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

/** What a program, whose value is a promise of a report, gives in Node. */
function reportOf(cwd, program, type = "commonjs") {
  const script = `${program}.then((report) => console.log(JSON.stringify(report)))`;
  const stdio = ["ignore", "pipe", "inherit"];
  return JSON.parse(
    execFileSync(process.execPath, [`--input-type=${type}`, "-e", script], { cwd, encoding: "utf8", stdio }),
  );
}

/** A folder of its own for an app, which finds the package above it. */
function folder(name, app = "app.js") {
  const path = join(out, name);
  mkdirSync(path, { recursive: true });
  copyFileSync(join(here, app), join(path, "app.js"));
  copyFileSync(join(here, "app-threads.js"), join(path, "app-threads.js"));
  writeFileSync(join(path, "index.html"), HTML);
  return path;
}

const inPage = async (path, options) => deepStrictEqual(await openPage("chromium", path, options), EXPECTED);

const threadsInPage = async (path, options) =>
  deepStrictEqual(await openPage("chromium", path, { headers: ISOLATED, ...options }), THREADS);

/** The app of TensorFlow.js, built by Vite, in a browser; `shared`: in an isolated page, where the backend has threads. */
async function tfjsInPage(browser, shared) {
  const path = folder(`tfjs-${browser}-${shared}`, "app-tfjs.js");
  mkdirSync(join(path, "public"));
  const binaries = join(root, "node_modules/@tensorflow/tfjs-backend-wasm/wasm-out");
  for (const name of readdirSync(binaries)) {
    if (name.endsWith(".wasm")) copyFileSync(join(binaries, name), join(path, "public", name));
  }
  // Its threads are started with the text of a function, which no longer runs when it was minified.
  await vite({ root: path, logLevel: "error", build: { minify: !shared } });
  checkTfjs(await openPage(browser, join(path, "dist"), { headers: shared ? ISOLATED : {} }), "4.22", shared);
}

/** The same in Node, with one of the older versions of TensorFlow.js. */
async function tfjsInNode(version) {
  const path = folder(`tfjs-${version}`, "app-tfjs.js");
  const installed = (name) => join(root, "test/tfjs/node_modules", `${name}-${version}`);
  const names = ["core", "layers", "backend-cpu", "backend-wasm"];
  const alias = Object.fromEntries(names.map((name) => [`@tensorflow/tfjs-${name}`, installed(name)]));
  const outfile = join(path, "app.cjs");
  await esbuild({
    entryPoints: [join(path, "app.js")],
    bundle: true,
    platform: "node",
    alias,
    outfile,
    logLevel: "error",
  });
  const script = `require(process.argv[1]).compare(process.argv[2]).then((report) => console.log(JSON.stringify(report)))`;
  const args = ["-e", script, outfile, `${installed("backend-wasm")}/wasm-out/`];
  const stdout = execFileSync(process.execPath, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  checkTfjs(JSON.parse(stdout.trim().split("\n").at(-1)), version, false);
}

/** What the app of TensorFlow.js reports: no copies, of which a warning would tell, and the results of its own layer. */
function checkTfjs({ apart, ...report }, version, shared) {
  deepStrictEqual(report, {
    version: `${version}.0`,
    backend: "wasm",
    shared,
    learned: true,
    patched: true,
    leaked: 0,
    warnings: [],
  });
  ok(apart < 1e-4, `the layers are ${apart} apart`);
}

const OLDER = Object.keys(require("../tfjs/package.json").dependencies)
  .filter((name) => name.startsWith("core-"))
  .map((name) => name.replace("core-", ""));

const WORKER = `import { compute } from "./app.js";
export default { fetch: () => Response.json(compute()) };
`;

async function inWorkerd(path, modules) {
  await serveWorker(path, modules, async (address) => deepStrictEqual(await (await fetch(address)).json(), EXPECTED));
}

/** worker.js of a folder, bundled with its modules beside it; what `serveWorker` takes. */
async function bundleWorker(path, source, conditions) {
  const entry = join(path, "worker.js");
  writeFileSync(entry, source);
  const outdir = join(path, "dist");
  const modules = { loader: { ".wasm": "copy" }, assetNames: "[name]" };
  await esbuild({
    entryPoints: [entry],
    outdir,
    bundle: true,
    format: "esm",
    conditions,
    ...modules,
    logLevel: "error",
  });
  return [outdir, ["worker.js", "layernorm.wasm", "heap.wasm"]];
}

async function inViteDev(name, optimizeDeps, app, inPageOf = inPage, create = createServer) {
  const path = folder(name, app);
  const served = { host: "127.0.0.1", headers: ISOLATED };
  const server = await create({ root: path, logLevel: "error", optimizeDeps, server: served });
  await server.listen(0);
  await inPageOf(path, { page: server.resolvedUrls.local[0] }).finally(() => server.close());
}

function pageOf(dist) {
  for (const name of ["index.js", "threads.js", "binaries.shared.js", "worker.js"])
    copyFileSync(join(out, "node_modules/layernorm-wasm/dist", name), join(dist, name));
  return (script) => `<!doctype html><meta charset="utf-8">
<script type="importmap">{ "imports": { "layernorm-wasm": "/index.js", "layernorm-wasm/threads": "/threads.js" } }</script>
${script}`;
}

/** The header that allows scripts of the server, the import map of a page and `more`; the map is inline, so it goes by its hash. */
async function policy(html, more) {
  const map = html.match(/<script type="importmap">(.*?)<\/script>/s)[1];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(map));
  const hash = `'sha256-${Buffer.from(digest).toString("base64")}'`;
  return { "content-security-policy": `default-src 'none'; connect-src 'self'; script-src 'self' ${hash} ${more}` };
}

const CASES = {
  async [`Vite ${viteVersion}, build`]() {
    const path = folder("vite");
    await vite({ root: path, logLevel: "error" });
    await inPage(join(path, "dist"));
  },
  [`Vite ${viteVersion}, dev`]: () => inViteDev("vite-dev"),
  [`Vite ${viteVersion}, dev, not prebundled`]: () => inViteDev("vite-dev-excluded", { exclude: ["layernorm-wasm"] }),
  async [`webpack ${webpack.version}`]() {
    const path = folder("webpack");
    const dist = join(path, "dist");
    const output = { path: dist, filename: "app.js" };
    const stats = await promisify(webpack)({ mode: "production", context: path, entry: "./app.js", output });
    ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
    await inPage(dist, { html: HTML });
  },
  async [`Rollup ${rollupVersion}`]() {
    const path = folder("rollup");
    const onwarn = (warning) => {
      throw new Error(warning.message);
    };
    const bundle = await rollup({ input: join(path, "app.js"), plugins: [nodeResolve()], onwarn });
    await bundle.write({ file: join(path, "dist/app.js"), format: "es" });
    await inPage(join(path, "dist"), { html: HTML });
  },
  async [`esbuild ${esbuildVersion}`]() {
    const path = folder("esbuild");
    const outfile = join(path, "dist/app.js");
    await esbuild({
      entryPoints: [join(path, "app.js")],
      bundle: true,
      minify: true,
      format: "esm",
      outfile,
      logLevel: "error",
    });
    await inPage(join(path, "dist"), { html: HTML });
  },
  async "esbuild, for workerd"() {
    await inWorkerd(...(await bundleWorker(folder("esbuild-workerd"), WORKER, ["workerd"])));
  },
  async "wrangler deploy --dry-run, in workerd"() {
    const path = folder("wrangler");
    writeFileSync(join(path, "worker.js"), WORKER);
    writeFileSync(
      join(path, "wrangler.json"),
      JSON.stringify({ name: "layernorm", main: "worker.js", compatibility_date: "2026-01-01" }),
    );
    const bin = join(here, "node_modules/wrangler/bin/wrangler.js");
    const env = { ...process.env, WRANGLER_SEND_METRICS: "false", CI: "true" };
    execFileSync(process.execPath, [bin, "deploy", "--dry-run", "--outdir", "dist"], { cwd: path, env, stdio: "pipe" });
    const dist = join(path, "dist");
    const modules = readdirSync(dist).filter((name) => /\.(js|wasm)$/.test(name));
    await inWorkerd(
      dist,
      modules.sort((a, b) => a.endsWith(".wasm") - b.endsWith(".wasm")),
    );
  },
  async "Next.js, an edge route"() {
    const path = folder("next");
    mkdirSync(join(path, "app/api"), { recursive: true });
    mkdirSync(join(path, "node_modules"));
    for (const name of ["next", "react", "react-dom"]) {
      symlinkSync(join(here, "node_modules", name), join(path, "node_modules", name));
    }
    rmSync(join(path, "index.html"));
    renameSync(join(path, "app.js"), join(path, "app/api/compute.js"));
    writeFileSync(
      join(path, "app/layout.js"),
      "export default ({ children }) => <html><body>{children}</body></html>;\n",
    );
    writeFileSync(join(path, "app/page.js"), "export default () => <p>a page</p>;\n");
    writeFileSync(
      join(path, "app/api/route.js"),
      `import { compute } from "./compute.js";
export const runtime = "edge";
export const GET = () => Response.json(compute());
`,
    );
    const next = join(here, "node_modules/next/dist/bin/next");
    const options = {
      cwd: path,
      env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" },
      stdio: "pipe",
    };
    execFileSync(process.execPath, [next, "build"], options);
    const server = spawn(process.execPath, [next, "start", "--hostname", "127.0.0.1", "--port", "0"], options);
    try {
      const address = await new Promise((resolve, reject) => {
        let printed = "";
        server.stdout.on("data", (data) => {
          printed += data;
          const [url] = /http:\/\/[\d.]+:\d+/.exec(printed) ?? [];
          if (url && printed.includes("Ready")) resolve(url);
        });
        server.on("exit", (code) => reject(new Error(`next start ended with ${code}: ${printed}`)));
      });
      const response = await fetch(`${address}/api`);
      strictEqual(response.status, 200);
      deepStrictEqual(await response.json(), EXPECTED);
    } finally {
      server.removeAllListeners("exit");
      server.kill("SIGKILL");
    }
  },
  async "workerd without its condition: the error says what to do, and that works"() {
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
    const [outdir, modules] = await bundleWorker(folder("workerd-default"), source, []);
    await serveWorker(outdir, modules, async (address) => {
      const [before, after] = await (await fetch(address)).json();
      match(before, /may not be compiled here, .*disallowed.*"workerd".*Runtime.create\(\{ module, heap \}\)/);
      deepStrictEqual(after, [-1, 1]);
    });
  },
  async [`threads, Vite ${viteVersion}, build`]() {
    const path = folder("threads-vite", "app-threads.js");
    await vite({ root: path, logLevel: "error" });
    await threadsInPage(join(path, "dist"));
  },
  [`threads, Vite ${viteVersion}, dev`]: () =>
    inViteDev("threads-vite-dev", undefined, "app-threads.js", threadsInPage),
  [`threads, Vite ${viteVersion}, dev, not prebundled`]: () =>
    inViteDev("threads-vite-excluded", { exclude: ["layernorm-wasm"] }, "app-threads.js", threadsInPage),
  ...Object.fromEntries(
    [vite5, vite6, vite7].flatMap((older) => [
      [
        `threads, Vite ${older.version}, build`,
        async () => {
          const path = folder(`threads-vite-${older.version}`, "app-threads.js");
          await older.build({ root: path, logLevel: "error" });
          await threadsInPage(join(path, "dist"));
        },
      ],
      [
        `threads, Vite ${older.version}, dev, not prebundled`,
        () => {
          const exclude = { exclude: ["layernorm-wasm"] };
          const name = `threads-vite-excluded-${older.version}`;
          return inViteDev(name, exclude, "app-threads.js", threadsInPage, older.createServer);
        },
      ],
      [
        `threads, Vite ${older.version}, dev and build, prebundled, with worker.js?url as the option worker`,
        async () => {
          const name = `threads-vite-url-${older.version}`;
          await inViteDev(name, undefined, "app-threads-url.js", threadsInPage, older.createServer);
          await older.build({ root: join(out, name), logLevel: "error" });
          await threadsInPage(join(out, name, "dist"));
        },
      ],
      [
        `threads, Vite ${older.version}, dev: the error says what to exclude, and one thread is given`,
        () => {
          const singleInPage = async (path, options) =>
            checkSingle(
              await openPage("chromium", path, { headers: ISOLATED, ...options }),
              /worker.js was not loaded.*optimizeDeps: \{ exclude: \["layernorm-wasm"\] \}/,
            );
          const name = `threads-vite-dev-${older.version}`;
          return inViteDev(name, undefined, "app-threads.js", singleInPage, older.createServer);
        },
      ],
    ]),
  ),
  async [`threads, webpack ${webpack.version}`]() {
    const path = folder("threads-webpack", "app-threads.js");
    const dist = join(path, "dist");
    const output = { path: dist, filename: "app.js" };
    const stats = await promisify(webpack)({ mode: "production", context: path, entry: "./app.js", output });
    ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
    await threadsInPage(dist, { html: HTML });
  },
  async [`threads, Rollup ${rollupVersion}, the worker as an input`]() {
    const path = folder("threads-rollup", "app-threads.js");
    const input = { app: join(path, "app.js"), worker: "layernorm-wasm/worker.js" };
    const bundle = await rollup({ input, plugins: [nodeResolve({ rootDir: path })] });
    await bundle.write({ dir: join(path, "dist"), format: "es" });
    await threadsInPage(join(path, "dist"), { html: HTML });
  },
  async [`threads, esbuild ${esbuildVersion}, the worker as an entry point`]() {
    const path = folder("threads-esbuild", "app-threads.js");
    const entryPoints = { app: join(path, "app.js"), worker: "layernorm-wasm/worker.js" };
    const outdir = join(path, "dist");
    await esbuild({ entryPoints, absWorkingDir: path, bundle: true, format: "esm", outdir, logLevel: "error" });
    await threadsInPage(outdir, { html: HTML });
  },
  async "threads, a page without a bundler, under a strict CSP"() {
    const path = folder("threads-page", "app-threads.js");
    const html = pageOf(path)('<script type="module" src="/app.js"></script>');
    const headers = { ...ISOLATED, ...(await policy(html, "'wasm-unsafe-eval'")) };
    await threadsInPage(path, { page: "/page.html", html, headers });
  },
  async "threads, a page whose worker.js lacks its header: the error says so"() {
    const path = folder("threads-no-header", "app-threads.js");
    const html = pageOf(path)('<script type="module" src="/app.js"></script>');
    const report = await openPage("chromium", path, { page: "/page.html", html, pageHeaders: ISOLATED });
    checkSingle(report, /a thread did not start: worker.js was not loaded\..*Cross-Origin-Embedder-Policy/);
  },
  async "threads, a page that isn't isolated: the error names the headers, and one thread is given"() {
    const path = folder("threads-not-isolated", "app-threads.js");
    const html = pageOf(path)('<script type="module" src="/app.js"></script>');
    const headers = /"Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"/;
    checkSingle(await openPage("chromium", path, { page: "/page.html", html }), headers);
  },
  ...Object.fromEntries(
    ["chromium", "firefox", "webkit"].map((browser) => [
      `threads, a page in ${browser} whose CSP forbids workers: the error says so, and one thread is given`,
      async () => {
        const path = folder(`threads-no-workers-${browser}`, "app-threads.js");
        const html = pageOf(path)('<script type="module" src="/app.js"></script>');
        const headers = { ...ISOLATED, ...(await policy(html, "'wasm-unsafe-eval' 'unsafe-eval'; worker-src 'none'")) };
        const report = await openPage(browser, path, { page: "/page.html", html, headers });
        checkSingle(report, /a thread did not start: the page's Content-Security-Policy forbids it; its worker-src/);
      },
    ]),
  ),
  async "threads, a page whose worker.js is elsewhere: the error says so, and the option worker finds it"() {
    const path = folder("threads-elsewhere", "app-threads.js");
    const page = pageOf(path);
    mkdirSync(join(path, "workers"));
    renameSync(join(path, "worker.js"), join(path, "workers/worker.js"));
    const app = '<script type="module" src="/app.js"></script>';
    const open = (script) => openPage("chromium", path, { page: "/page.html", html: page(script), headers: ISOLATED });
    checkSingle(await open(app), /worker.js was not loaded.*give the option worker/);
    deepStrictEqual(await open(`<script>threadsOptions = { worker: "/workers/worker.js" }</script>${app}`), THREADS);
  },
  async [`threads, esbuild ${esbuildVersion}, IIFE: the error says what to give, and the option worker works`]() {
    const path = folder("threads-iife", "app-threads.js");
    const entryPoints = { app: join(path, "app.js"), worker: "layernorm-wasm/worker.js" };
    const outdir = join(path, "dist");
    // It warns that there is no import.meta.
    await esbuild({ entryPoints, absWorkingDir: path, bundle: true, format: "iife", outdir, logLevel: "silent" });
    const open = (options) => {
      const html = `<!doctype html><meta charset="utf-8"><script>${options}</script><script src="/app.js"></script>`;
      return openPage("chromium", outdir, { html, headers: ISOLATED });
    };
    checkSingle(await open(""), /without import.meta.url; give the option worker/);
    deepStrictEqual(await open('threadsOptions = { worker: "/worker.js" }'), THREADS);
    deepStrictEqual(await open('threadsOptions = { worker: () => new Worker("/worker.js") }'), THREADS);
  },
  async [`threads, esbuild ${esbuildVersion}, CommonJS for Node: the same`]() {
    const path = folder("threads-cjs", "app-threads.js");
    const entryPoints = { app: join(path, "app.js"), worker: "layernorm-wasm/worker.js" };
    const options = {
      bundle: true,
      platform: "node",
      format: "cjs",
      outExtension: { ".js": ".cjs" },
      logLevel: "silent",
    };
    await esbuild({ entryPoints, absWorkingDir: path, outdir: join(path, "dist"), ...options });
    const report = (worker) => reportOf(path, `require("./dist/app.cjs").compute({ worker: ${worker} })`);
    const file = 'require("node:path").resolve("dist/worker.cjs")';
    checkSingle(report("undefined"), /without import.meta.url; give the option worker/);
    deepStrictEqual(report(file), THREADS);
    deepStrictEqual(report(`require("node:url").pathToFileURL(${file})`), THREADS);
    deepStrictEqual(report(`require("node:url").pathToFileURL(${file}).href`), THREADS);
    deepStrictEqual(report(`() => new (require("node:worker_threads").Worker)(${file})`), THREADS);
  },
  async [`threads, Vite ${viteVersion}, SSR with noExternal: the error says what to give, and the option worker works`]() {
    const path = folder("threads-ssr", "app-threads.js");
    await vite({ root: path, logLevel: "error", build: { ssr: "app.js" }, ssr: { noExternal: true } });
    const report = (worker) =>
      reportOf(path, `import("./dist/app.js").then(({ compute }) => compute({ worker: ${worker} }))`, "module");
    checkSingle(report("undefined"), /Cannot find module .*worker.*; give the option worker/);
    deepStrictEqual(report('new URL(import.meta.resolve("layernorm-wasm/worker.js"))'), THREADS);
  },
  async "threads, in workerd: the error says that there are none, and one thread is given"() {
    const source = `import { compute } from "./app.js";
export default { fetch: async () => Response.json(await compute()) };
`;
    const bundled = await bundleWorker(folder("threads-workerd", "app-threads.js"), source, ["workerd"]);
    await serveWorker(...bundled, async (address) => {
      checkSingle(await (await fetch(address)).json(), /this host has no Worker/);
    });
  },
  ...Object.fromEntries(
    ["chromium", "firefox", "webkit"].flatMap((browser) =>
      [true, false].map((shared) => [
        `TensorFlow.js, Vite ${viteVersion}, ${browser}, ${shared ? "isolated" : "not isolated"}`,
        () => tfjsInPage(browser, shared),
      ]),
    ),
  ),
  ...Object.fromEntries(OLDER.map((version) => [`TensorFlow.js ${version}, Node`, () => tfjsInNode(version)])),
  async "a page without a bundler"() {
    const path = folder("page");
    await inPage(path, { page: "/page.html", html: pageOf(path)('<script type="module" src="/app.js"></script>') });
  },
  async "the page without a bundler of the README, from its CDN"() {
    const [page] = snippetsOf(root, "README.md").filter(({ language }) => language === "html");
    const html = `${page.code.replace(/https:\/\/[\w.]+\/npm\/layernorm-wasm@[\d.]+/, "/node_modules/layernorm-wasm")}
<script type="module">
  const address = new URL(location.href).searchParams.get("report");
  fetch(address, { method: "POST", mode: "no-cors", body: JSON.stringify(document.body.textContent.trim()) });
</script>`;
    match(await openPage("chromium", out, { page: "/readme.html", html }), /-0\.99999\d+,0\.99999\d+$/);
  },
  async "a page under a strict CSP"() {
    const path = folder("csp");
    const html = pageOf(path)('<script type="module" src="/app.js"></script>');
    await inPage(path, { page: "/page.html", html, headers: await policy(html, "'wasm-unsafe-eval'") });
    const { error } = await openPage("chromium", path, { page: "/page.html", html, headers: await policy(html, "") });
    match(error, /may not be compiled here, .*; a page has to allow 'wasm-unsafe-eval'/);
  },
  async "require() in Node"() {
    const script =
      'console.log(require("layernorm-wasm").layerNorm(new Float32Array([3, 5]), 2, null, null, 0).join())';
    const print = (binary) =>
      execFileSync(binary, ["-e", script], { cwd: out, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    deepStrictEqual(print(process.execPath), "-1,1\n");
    for (const major of [22, 26])
      deepStrictEqual(print(join(root, `test/engines/node_modules/node${major}/bin/node`)), "-1,1\n");
  },
};

const versionOf = (name) => require(`${name}/package.json`).version;
const bin = (path) => join(here, "node_modules", path);

/** A folder of files, where the tools of this folder are found. */
function project(name, files) {
  const path = join(out, name);
  mkdirSync(join(path, "node_modules"), { recursive: true });
  for (const tool of ["typescript", "ts-jest", "ts-node"]) symlinkSync(bin(tool), join(path, "node_modules", tool));
  for (const [file, content] of Object.entries(files)) {
    writeFileSync(join(path, file), typeof content === "string" ? content : JSON.stringify(content));
  }
  return path;
}

/** What a program of Node prints; if it fails, what it complains of. */
function printedBy(node, cwd, ...args) {
  const { stdout, stderr, status } = spawnSync(node, ["--no-warnings", ...args], { cwd, encoding: "utf8" });
  return status === 0 ? stdout : stderr + stdout;
}
const printed = (...args) => printedBy(process.execPath, ...args);

const PASSED = /"numPassedTests":1,/;
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

CASES[`Jest ${versionOf("jest")}, with --experimental-vm-modules, in ES modules and in CommonJS`] = () => {
  const test = readFileSync(join(here, "app.test.js"), "utf8");
  for (const type of ["module", "commonjs"]) {
    const path = project(`jest-${type}`, { "package.json": { type }, "app.test.js": test });
    match(printed(path, "--experimental-vm-modules", bin("jest/bin/jest.js"), "--json", "--transform", "{}"), PASSED);
  }
};
CASES[`Jest ${versionOf("jest")}, require(): a transform of the package works, or the flag with a newer Node`] = () => {
  const test = `${NORM_TS}test("a row", () => expect([...y]).toEqual([-1, 1]));`;
  const tsconfig = { allowJs: true, module: "commonjs", moduleResolution: "node10", target: "es2022" };
  const transform = { "\\.[jt]s$": ["ts-jest", { diagnostics: false, tsconfig }] };
  const path = project("jest-transform", {
    "package.json": { type: "commonjs" },
    "app.test.ts": test,
    "tests.json": { transform },
    "all.json": { transform, transformIgnorePatterns: ["/node_modules/(?!layernorm-wasm/)"] },
  });
  const jest = (config) => [bin("jest/bin/jest.js"), "--json", "--config", config];
  match(printed(path, ...jest("all.json")), PASSED);
  const node = (major) => join(root, `test/engines/node_modules/node${major}/bin/node`);
  const flagged = ["--experimental-vm-modules", ...jest("tests.json")];
  match(printedBy(node(22), path, ...flagged), /Must use import to load ES Module/);
  match(printedBy(node(24), path, ...flagged), PASSED);
};
CASES[`ts-node ${versionOf("ts-node")} and tsx, in CommonJS and in ES modules`] = () => {
  const compilerOptions = { module: "nodenext", target: "es2022", types: [], skipLibCheck: true };
  for (const type of ["module", "commonjs"]) {
    const path = project(`ts-node-${type}`, {
      "package.json": { type },
      "tsconfig.json": { compilerOptions },
      "all.ts": NORM_TS + THREADS_TS,
    });
    const tsNode = type === "module" ? ["--loader", "ts-node/esm"] : [bin("ts-node/dist/bin.js")];
    const tsx = [join(root, "node_modules/tsx/dist/cli.mjs")];
    for (const tool of [tsNode, tsx]) strictEqual(printed(path, ...tool, "all.ts"), "-1,1\n2\n");
  }
};
const [TS5, TS7] = [bin("typescript"), join(root, "node_modules/typescript")];
for (const [compiler, type, module, moduleResolution, trouble, ...files] of [
  [TS5, "commonjs", "nodenext", "nodenext"],
  [TS5, "commonjs", "node20", "node16"],
  [TS5, "commonjs", "node16", "node16", "TS1479"],
  [TS5, "commonjs", "commonjs", "node10", "TS2307", "threads.ts"],
  [TS5, "commonjs", "commonjs", "node10", "", "norm.ts"],
  [TS5, "module", "node16", "node16"],
  [TS7, "commonjs", "commonjs", "bundler"],
  [TS7, "commonjs", "node16", "node16", "TS1479"],
]) {
  const version = JSON.parse(readFileSync(join(compiler, "package.json"), "utf8")).version;
  const named = `TypeScript ${version}, ${type}, module ${module}, moduleResolution ${moduleResolution}`;
  CASES[`${named}${files.length > 0 ? `, ${files}` : ""}${trouble ? ": an error" : ""}`] = () => {
    const lib = ["es2022", "esnext.disposable", "dom"];
    const skipDefaultLibCheck = true; // TypeScript's own types, not the package's
    const strict = { noEmit: true, strict: true, types: [], skipDefaultLibCheck };
    const compilerOptions = { ...strict, target: "es2022", lib, module, moduleResolution };
    const path = project(`types-${version}-${type}-${module}-${moduleResolution}${files}`, {
      "package.json": { type },
      "tsconfig.json": { compilerOptions, files: files.length > 0 ? files : ["norm.ts", "threads.ts"] },
      "norm.ts": NORM_TS,
      "threads.ts": THREADS_TS,
    });
    const said = printed(path, join(compiler, "bin/tsc"), "-p", path);
    if (trouble) match(said, new RegExp(trouble));
    else strictEqual(said, "");
  };
}

for (const moduleResolution of ["bundler", "node16", "nodenext"]) {
  CASES[`TypeScript, strict, ${moduleResolution}, no DOM`] = () => {
    const path = folder(`types-${moduleResolution}`);
    rmSync(join(path, "app.js"));
    copyFileSync(join(here, "types.ts"), join(path, "types.ts"));
    const module = moduleResolution === "bundler" ? "esnext" : moduleResolution;
    const compilerOptions = {
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      types: [],
      target: "es2022",
      module,
      moduleResolution,
    };
    const lib = ["es2022", "esnext.disposable"];
    writeFileSync(
      join(path, "tsconfig.json"),
      JSON.stringify({ compilerOptions: { ...compilerOptions, lib }, files: ["types.ts"] }),
    );
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    try {
      execFileSync(process.execPath, [tsc, "-p", path], { encoding: "utf8", stdio: "pipe" });
    } catch (error) {
      throw new Error(error.stdout);
    }
  };
}

install(out);
const chosen = process.argv.slice(2).map((part) => part.toLowerCase());
const wanted = (name) => chosen.length === 0 || chosen.some((part) => name.toLowerCase().includes(part));
await runCases(Object.fromEntries(Object.entries(CASES).filter(([name]) => wanted(name))));
