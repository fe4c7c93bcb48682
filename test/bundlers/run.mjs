// npm run test:bundlers: small apps of the packed tarball, built by each bundler and run where they are meant to run. Prints a
// table; what fails is shown and counted.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { nodeResolve } from "@rollup/plugin-node-resolve";
import { build as esbuild, version as esbuildVersion } from "esbuild";
import { rollup, VERSION as rollupVersion } from "rollup";
import { createServer, build as vite, version as viteVersion } from "vite";
import webpack from "webpack";
import { openPage } from "../browsers.mjs";
import { runCases } from "../cases.mjs";
import { install, root } from "../packed.mjs";
import { serveWorker } from "../workerd.mjs";

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

/** A folder of its own for an app, which finds the package above it. */
function folder(name) {
  const path = join(out, name);
  mkdirSync(path, { recursive: true });
  copyFileSync(join(here, "app.js"), join(path, "app.js"));
  writeFileSync(join(path, "index.html"), HTML);
  return path;
}

const inPage = async (path, options) => deepStrictEqual(await openPage("chromium", path, options), EXPECTED);

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

async function inViteDev(name, optimizeDeps) {
  const path = folder(name);
  const server = await createServer({ root: path, logLevel: "error", optimizeDeps, server: { host: "127.0.0.1" } });
  await server.listen(0);
  await inPage(path, { page: server.resolvedUrls.local[0] }).finally(() => server.close());
}

function pageOf(dist) {
  for (const name of ["index.js", "index.js.map"])
    copyFileSync(join(out, "node_modules/layernorm-wasm/dist", name), join(dist, name));
  cpSync(join(out, "node_modules/@assemblyscript/loader"), join(dist, "loader"), { recursive: true });
  return (script) => `<!doctype html><meta charset="utf-8">
<script type="importmap">{ "imports": { "layernorm-wasm": "/index.js", "@assemblyscript/loader": "/loader/index.js" } }</script>
${script}`;
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
      match(before, /may not be compiled here: .*"workerd".*Runtime.create\(\{ module, heap \}\)/);
      deepStrictEqual(after, [-1, 1]);
    });
  },
  async "a page without a bundler"() {
    const path = folder("page");
    await inPage(path, { page: "/page.html", html: pageOf(path)('<script type="module" src="/app.js"></script>') });
  },
  async "a page under a strict CSP"() {
    const path = folder("csp");
    // The import map is inline, so it goes by its hash.
    const html = pageOf(path)('<script type="module" src="/app.js"></script>');
    const map = html.match(/<script type="importmap">(.*?)<\/script>/s)[1];
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(map));
    const hash = `'sha256-${Buffer.from(digest).toString("base64")}'`;
    const policy = (more) => ({
      "content-security-policy": `default-src 'none'; connect-src 'self'; script-src 'self' ${hash} ${more}`,
    });
    await inPage(path, { page: "/page.html", html, headers: policy("'wasm-unsafe-eval'") });
    const { error } = await openPage("chromium", path, { page: "/page.html", html, headers: policy("") });
    match(error, /may not be compiled here: a page has to allow 'wasm-unsafe-eval'/);
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
