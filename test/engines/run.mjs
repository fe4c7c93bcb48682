// npm run test:engines: the suite from the packed tarball, on every engine there is. Prints a table, engine by version by tests
// by digest, and how to install what is missing. A missing engine fails in CI, and wherever names of engines are given.
//
//   npm run test:engines [-- node24 workerd chromium ...]

import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "../..");
const here = join(root, "test/engines");
const out = join(root, "build/engines");
const TIMEOUT = 5 * 60_000;

/** Unpacks what `npm pack` makes, as a package that the bundles and the hosts find. */
function unpack() {
  rmSync(out, { recursive: true, force: true });
  const installed = join(out, "node_modules/layernorm-wasm");
  mkdirSync(installed, { recursive: true });
  const [{ filename }] = JSON.parse(
    execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", out], {
      cwd: root,
      stdio: ["ignore", "pipe", "ignore"],
    }),
  );
  execFileSync("tar", ["-xzf", join(out, filename), "-C", installed, "--strip-components=1"]);
  cpSync(join(root, "node_modules/@assemblyscript/loader"), join(out, "node_modules/@assemblyscript/loader"), {
    recursive: true,
  });
  const dependencies = { "layernorm-wasm": "*", "@assemblyscript/loader": "*" };
  writeFileSync(join(out, "package.json"), JSON.stringify({ type: "module", dependencies }));
}

/** One bundle of the suite. What the tests take from the sources comes from the package instead. */
async function bundle(entry, { conditions = [], packageIsExternal = false, wasm = "binary" } = {}) {
  const outfile = join(out, entry, "suite.mjs");
  const standIns = { vitest: "vitest", "node:fs": "files", "./builds.js": "builds" };
  await build({
    entryPoints: [join(here, `${entry}.ts`)],
    outfile,
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["import", ...conditions],
    target: "es2022",
    loader: { ".safetensors": "binary", ".wasm": wasm },
    assetNames: "[name]",
    define: { "import.meta.url": '"file:///suite"' },
    logLevel: "error",
    plugins: [
      {
        name: "stand-ins and the package",
        setup({ onResolve, resolve }) {
          onResolve({ filter: /^vitest$|^node:fs$|^\.\/builds\.js$/ }, ({ path }) => ({
            path: join(here, `${standIns[path]}.ts`),
          }));
          onResolve({ filter: /^layernorm-wasm|\/src\/index\.js$/ }, ({ path, kind, pluginData }) => {
            if (pluginData === "resolving") return undefined;
            const name = path.startsWith("layernorm-wasm") ? path : "layernorm-wasm";
            if (packageIsExternal && name === "layernorm-wasm") return { path: name, external: true };
            return resolve(name, { kind, resolveDir: out, pluginData: "resolving" });
          });
        },
      },
    ],
  });
  return outfile;
}

/** Runs a command to its end: what it printed. Killed, and an error, when it takes too long. */
function output(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: out, stdio: ["ignore", "pipe", "pipe"], detached: true, ...options });
    let printed = "";
    let complaints = "";
    child.stdout.on("data", (data) => (printed += data));
    child.stderr.on("data", (data) => (complaints += data));
    const timer = setTimeout(() => process.kill(-child.pid, "SIGKILL"), TIMEOUT);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(printed);
      else
        reject(
          new Error(`${command} ended with ${code ?? signal}\n${printed.slice(-2000)}\n${complaints.slice(-2000)}`),
        );
    });
  });
}

async function runHost(command, args) {
  const suite = await bundle("host", { packageIsExternal: true });
  return JSON.parse((await output(command, [...args, suite])).trim().split("\n").at(-1));
}

/** A page of the suite in a browser that `command` opens; the page posts its report. */
async function runPage(command, args, env = {}) {
  const suite = readFileSync(await bundle("page"));
  const profile = mkdtempSync(join(tmpdir(), "layernorm-engine-"));
  let child;
  let timer;
  let at = "the start";
  try {
    return await new Promise((resolve, reject) => {
      const server = createServer((request, response) => {
        if (request.method === "POST") {
          let body = "";
          request.on("data", (data) => (body += data));
          request.on("end", () => {
            response.end();
            if (request.url === "/progress") {
              at = body;
              return;
            }
            server.close();
            server.closeAllConnections();
            resolve(JSON.parse(body));
          });
        } else if (request.url === "/suite.mjs") {
          response.writeHead(200, { "content-type": "text/javascript" }).end(suite);
        } else {
          const page = '<!doctype html><meta charset="utf-8"><script type="module" src="/suite.mjs"></script>';
          response.writeHead(200, { "content-type": "text/html" }).end(page);
        }
      });
      server.listen(0, "127.0.0.1", () => {
        const url = `http://127.0.0.1:${server.address().port}/`;
        child = spawn(command, [...args(profile), url], {
          stdio: "ignore",
          detached: true,
          env: { ...process.env, ...env },
        });
        child.on("error", reject);
        child.on("exit", (code) => code && reject(new Error(`${command} ended with ${code}`)));
      });
      timer = setTimeout(
        () => reject(new Error(`${command}: no report in ${TIMEOUT / 1000} s; it was last at: ${at}`)),
        TIMEOUT,
      );
    });
  } finally {
    clearTimeout(timer);
    if (child?.pid) {
      child.removeAllListeners("exit");
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {}
    }
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

async function runWorkerd(command) {
  await bundle("worker", { conditions: ["workerd"], wasm: "copy" });
  const folder = join(out, "worker");
  writeFileSync(
    join(folder, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [
      (name = "suite.mjs", esModule = embed "suite.mjs"),
      (name = "layernorm.wasm", wasm = embed "layernorm.wasm"),
      (name = "heap.wasm", wasm = embed "heap.wasm"),
    ],
    compatibilityDate = "2026-01-01",
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", service = "main")],
);
`,
  );
  const child = spawn(command, ["serve", join(folder, "config.capnp"), "--control-fd=3"], {
    stdio: ["ignore", "inherit", "inherit", "pipe"],
  });
  try {
    const port = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`workerd ended with ${code}`)));
      child.stdio[3].on("data", (data) => {
        const line = String(data)
          .split("\n")
          .find((line) => line.includes('"listen"'));
        if (line) resolve(JSON.parse(line).port);
      });
    });
    const response = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!response.ok) throw new Error(`workerd answered ${response.status}: ${await response.text()}`);
    return await response.json();
  } finally {
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
  }
}

const packaged = (path) => join(here, "node_modules", path);
const npm = "npm ci --prefix test/engines --ignore-scripts";
const apt = (names) => `apt-get install --no-install-recommends ${names}`;
const node = (major) => ({
  binary: packaged(`node${major}/bin/node`),
  install: npm,
  version: says(/\d[\d.]+/),
  run: (binary) => runHost(binary, []),
});
const firstLine = (text, pattern) => pattern.exec(text)?.[0] ?? text.split("\n")[0];
const says = (pattern) => (binary) =>
  firstLine(execFileSync(binary, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }), pattern);
const MINI_BROWSER = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser";

const ENGINES = {
  node20: node(20),
  node22: node(22),
  node24: node(24),
  node26: node(26),
  bun: {
    binary: packaged("@oven/bun-linux-x64/bin/bun"),
    install: npm,
    version: says(/[\d.]+/),
    run: (binary) => runHost(binary, []),
  },
  deno: {
    binary: packaged("@deno/linux-x64-glibc/deno"),
    install: npm,
    version: says(/\d[\d.]+/),
    run: (binary) => runHost(binary, ["run", "--allow-read", "--allow-env", "--node-modules-dir=manual"]),
  },
  workerd: {
    binary: packaged("@cloudflare/workerd-linux-64/bin/workerd"),
    install: npm,
    version: says(/\d{4}-\d\d-\d\d/),
    run: runWorkerd,
  },
  chromium: {
    binary: "/usr/bin/chromium",
    install: apt("chromium"),
    version: says(/\d[\d.]+/),
    run: (binary) =>
      runPage(binary, (profile) => [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        `--user-data-dir=${profile}`,
      ]),
  },
  firefox: {
    binary: "/usr/bin/firefox-esr",
    install: apt("firefox-esr"),
    version: says(/\d[\d.]+/),
    run: (binary) => runPage(binary, (profile) => ["--headless", "--no-remote", "--profile", profile]),
  },
  webkit: {
    binary: MINI_BROWSER,
    install: apt("webkit2gtk-driver xvfb xauth"),
    // It says its version only where there is a display.
    version: () =>
      firstLine(
        execFileSync("dpkg-query", ["--show", "--showformat", "$" + "{Version}", "libwebkit2gtk-4.1-0"], {
          encoding: "utf8",
        }),
        /\d[\d.]+/,
      ),
    run: (binary) => runPage("xvfb-run", () => ["-a", binary], { WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1" }),
  },
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !ENGINES[name]);
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: expected ${Object.keys(ENGINES).join(", ")}`);

unpack();
const rows = [];
let failed = 0;
const widths = [8, 16, 20, 8, 0];
const print = (row) => {
  rows.push(row);
  console.log(
    row
      .map((cell, i) => cell.padEnd(widths[i]))
      .join("  ")
      .trimEnd(),
  );
};
print(["engine", "version", "tests", "digest", ""]);
for (const [name, { binary, install, version, run }] of Object.entries(ENGINES)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  if (!existsSync(binary)) {
    print([name, "missing", "", "", install]);
    if (process.env.CI || chosen.length > 0) failed++;
    continue;
  }
  const start = Date.now();
  try {
    const report = await run(binary);
    for (const failure of report.failures) console.error(`  ${name}: ${failure}`);
    failed += report.failures.length;
    const tests = `${report.passed} passed${report.failures.length > 0 ? `, ${report.failures.length} failed` : ""}`;
    print([name, version(binary), tests, report.digest.slice(0, 8), `${((Date.now() - start) / 1000).toFixed(0)} s`]);
  } catch (error) {
    failed++;
    console.error(`  ${name}: ${error.stack}`);
    print([name, version(binary), "failed", "", ""]);
  }
}

const digests = new Set(
  rows
    .slice(1)
    .map(([, , , digest]) => digest)
    .filter(Boolean),
);
if (digests.size > 1) console.error(`${digests.size} different digests`);
process.exit(failed > 0 || digests.size > 1 ? 1 : 0);
