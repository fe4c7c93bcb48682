// npm run test:engines: the suite from the packed tarball, on every engine there is. Prints a table, engine by version by tests
// by digest, and how to install what is missing. A missing engine fails in CI, and wherever names of engines are given.
//
//   npm run test:engines [-- node24 workerd chromium ...]

import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { BROWSERS, ISOLATED, openPage } from "../browsers.mjs";
import { install, root } from "../packed.mjs";
import { serveWorker, WORKERD } from "../workerd.mjs";

const here = join(root, "test/engines");
const out = join(root, "build/engines");
const TIMEOUT = 600_000;

const bundles = new Map();

/** The bundle of the suite for some engines, made once. What the tests take from the sources comes from the package instead. */
function bundle(entry, options) {
  const made = bundles.get(entry) ?? makeBundle(entry, options);
  bundles.set(entry, made);
  return made;
}

async function makeBundle(entry, { conditions = [], packageIsExternal = false, ...options } = {}) {
  const outdir = join(out, entry);
  const standIns = { vitest: "vitest", "node:fs": "files", "./builds.js": "builds" };
  const setup = ({ onResolve, resolve }) => {
    onResolve({ filter: /^vitest$|^node:fs$|^\.\/builds\.js$/ }, ({ path }) => ({
      path: join(here, `${standIns[path]}.ts`),
    }));
    onResolve({ filter: /^layernorm-wasm|\/src\/index\.js$/ }, ({ path, kind, pluginData }) => {
      if (pluginData === "resolving") return undefined;
      const name = path.startsWith("layernorm-wasm") ? path : "layernorm-wasm";
      if (packageIsExternal && !name.endsWith(".wasm")) return { path: name, external: true };
      return resolve(name, { kind, resolveDir: out, pluginData: "resolving" });
    });
  };
  await build({
    // the suite, and the worker that threads.test.ts starts
    entryPoints: { suite: join(here, `${entry}.ts`), "threads-reader": join(root, "test/threads-reader.mjs") },
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["import", ...conditions],
    target: "chrome91",
    loader: { ".safetensors": "binary", ".wasm": "binary" },
    assetNames: "[name]",
    logLevel: "error",
    plugins: [{ name: "stand-ins and the package", setup }],
    ...options,
  });
  return join(outdir, "suite.mjs");
}

/** What a command prints. Killed, and an error, when it takes too long. */
async function output(command, args) {
  const options = { cwd: out, timeout: TIMEOUT, killSignal: "SIGKILL", maxBuffer: 2 ** 28 };
  return (await promisify(execFile)(command, args, options)).stdout.trim();
}

async function runHost(command, args, without) {
  const suite = await bundle("host", { packageIsExternal: true });
  const exit = join(out, "host/exit.mjs");
  copyFileSync(join(here, "exit.mjs"), exit);
  const report = JSON.parse((await output(command, [...args, suite, ...without])).split("\n").at(-1));
  const said = await output(command, [...args, exit]);
  if (said === "3 threads, 300000 elements") report.passed++;
  else report.failures.push(`exit.mjs: ${said}`);
  return report;
}

const queryOf = (without) => without.map((name) => `without=${name}`).join("&");

const IN_PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="/suite.mjs"></script>';
const IN_WORKER = `<!doctype html><meta charset="utf-8"><script type="module">
  new Worker("/suite.mjs" + location.search, { type: "module" });
</script>`;

/** The files of the suite, divided among pages that are opened in turn, each a process of its own. */
async function runPages(browser, without, parts, html = IN_PAGE) {
  await bundle("page");
  const folder = join(out, "page");
  copyFileSync(join(out, "node_modules/layernorm-wasm/dist/worker.js"), join(folder, "worker.js"));
  const all = { passed: 0, failures: [], digest: "" };
  for (let part = 0; part < parts; part++) {
    const page = `/?part=${part}&parts=${parts}&${queryOf(without)}`;
    const report = await openPage(browser, folder, { page, html, headers: ISOLATED, timeout: TIMEOUT });
    all.passed += report.passed;
    all.failures.push(...report.failures);
    all.digest ||= report.digest;
    all.refusal ||= report.refusal;
  }
  return all;
}

async function runWorkerd(without) {
  const loader = { ".safetensors": "binary", ".wasm": "copy" };
  await bundle("worker", { conditions: ["workerd"], loader, define: { "import.meta.url": '"file:///suite"' } });
  return serveWorker(join(out, "worker"), ["suite.mjs", "layernorm.wasm", "heap.wasm"], async (address) => {
    const response = await fetch(`${address}/?${queryOf(without)}`, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!response.ok) throw new Error(`workerd answered ${response.status}: ${await response.text()}`);
    return response.json();
  });
}

const packaged = (path) => join(here, "node_modules", path);
const says = (pattern) => (binary) => {
  const text = execFileSync(binary, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  return pattern.exec(text)?.[0] ?? text;
};

/** An engine that runs programs. `without`: names of files that it leaves out. */
const host = (binary, without = [], args = [], more = {}) => ({
  binary,
  install: "npm ci --prefix test/engines --ignore-scripts",
  version: says(/\d[\d.]+/),
  without,
  run: () => runHost(binary, args, without),
  ...more,
});
const node = (major, without) => host(packaged(`node${major}/bin/node`), without);

/** Node for ARM64, in QEMU's emulation of a process. */
const nodeOnArm = (major, without) => {
  const folder = join(here, `arm64/node_modules/node${major}`);
  const libraries = "/usr/aarch64-linux-gnu";
  // QEMU keeps a table of all addresses ever reserved, and V8 reserves gigabytes for each small memory. This way it takes 5 GB.
  const modest = ["--disable-wasm-trap-handler", "--wasm-max-mem-pages=2048"];
  return host("/usr/bin/qemu-aarch64", without, ["-L", libraries, join(folder, "bin/node"), ...modest], {
    needs: [folder, `${libraries}/lib/libc.so.6`, `${libraries}/lib/libstdc++.so.6`],
    install:
      "npm ci --prefix test/engines/arm64 --ignore-scripts --force; " +
      "apt-get install --no-install-recommends qemu-user libc6-arm64-cross libstdc++6-arm64-cross",
    version: () => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version,
  });
};

const browser = (name, without = [], more = {}) => ({
  binary: BROWSERS[name].binary,
  install: `apt-get install --no-install-recommends ${BROWSERS[name].packages}`,
  version: says(/\d[\d.]+/),
  without,
  run: () => runPages(name, without, 1),
  ...more,
});

/**
 * A Chromium before 115, whose main thread compiles nothing of this size at once. In a page run the tests that make no runtimes of
 * their own, those of threads among them; in a worker, which has no such limit, the others.
 */
const oldChromium = (version, place) => {
  const without = [...KERNELS, ...(place === "page" ? AT_ONCE : THREADS)];
  return browser(`chromium${version}`, without, {
    install: "npm ci --prefix test/engines/chromium --ignore-scripts",
    version: () => String(version),
    async run() {
      const html = place === "page" ? IN_PAGE : IN_WORKER;
      const { refusal, ...report } = await runPages(`chromium${version}`, without, 1, html);
      const told = /await Runtime.create\(\{ async: true \}\)/.test(refusal);
      if (told !== (place === "page")) report.failures.push(`the first call was told: ${refusal}`);
      return report;
    },
  });
};

// It says its version only where there is a display.
const webkitVersion = () =>
  /^Version: (\d[\d.]+)/m.exec(execFileSync("dpkg", ["--status", "libwebkit2gtk-4.1-0"], { encoding: "utf8" }))?.[1] ??
  "?";

// What the kernels compute, on many numbers: it takes most of the time. The newest engine of each compiler runs it (V8 in node26,
// JavaScriptCore in bun, SpiderMonkey in firefox), and npm test does in Node. The digest pins the bits everywhere.
const KERNELS = "accuracy backward conformance forward properties reference".split(" ");
// They make runtimes, or compile, at once.
const AT_ONCE = "borders functional gigabytes memory modules norm runtime state-dict tensor".split(" ");
const THREADS = ["threads", "threads-runtime"];

// Memories of 3 and 4 GiB make WebKit hang, in one run of four. A page reserves gigabytes of addresses for each memory until it is
// collected, and has few: the whole suite in one page ran out of memory in one run of three. So each has two files.
const inWebkit = [...KERNELS, "gigabytes"];
// modules.test.ts compiles bytes, which is forbidden in workerd, and there are no threads.
const inWorkerd = [...KERNELS, "modules", ...THREADS];

// Those that take long come first.
const ENGINES = {
  firefox: browser("firefox"),
  node26: node(26),
  bun: host(packaged("@oven/bun-linux-x64/bin/bun")),
  webkit: browser("webkit", inWebkit, { version: webkitVersion, run: () => runPages("webkit", inWebkit, 7) }),
  // threads take minutes there, others more memory than it is given.
  arm64: nodeOnArm(24, [...KERNELS, "gigabytes", "memory", "runtime", ...THREADS]),
  chromium: browser("chromium", KERNELS),
  node20: node(20, KERNELS),
  // Threads of theirs are those of the Node before and after them; exit.mjs has three of them in any case.
  node22: node(22, [...KERNELS, ...THREADS]),
  node24: node(24, [...KERNELS, ...THREADS]),
  deno: host(packaged("@deno/linux-x64-glibc/deno"), KERNELS, [
    "run",
    "--allow-read",
    "--allow-env",
    "--node-modules-dir=manual",
  ]),
  workerd: host(WORKERD, inWorkerd, [], { version: says(/\d{4}-\d\d-\d\d/), run: () => runWorkerd(inWorkerd) }),
  "chromium107-page": oldChromium(107, "page"),
  "chromium107-worker": oldChromium(107, "worker"),
  "chromium92-page": oldChromium(92, "page"),
  "chromium92-worker": oldChromium(92, "worker"),
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !ENGINES[name]);
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: expected ${Object.keys(ENGINES).join(", ")}`);

install(out);
let failed = 0;
const digests = new Set();
const print = (name, version, tests, digest, remark) =>
  console.log(`${name.padEnd(20)}${version.padEnd(18)}${tests.padEnd(22)}${digest.padEnd(10)}${remark}`.trimEnd());
print("engine", "version", "tests", "digest", "");

async function one([name, { binary, needs = [], install, version, without, run }]) {
  if (![binary, ...needs].every(existsSync)) {
    print(name, "missing", "", "", install);
    if (process.env.CI || chosen.length > 0) failed++;
    return;
  }
  const start = Date.now();
  const report = await run().catch((error) => ({ passed: 0, failures: [error.stack], digest: "" }));
  for (const failure of report.failures) console.error(`  ${name}: ${failure}`);
  failed += report.failures.length;
  if (report.digest) digests.add(report.digest);
  const tests = `${report.passed} passed${report.failures.length > 0 ? `, ${report.failures.length} failed` : ""}`;
  const time = `${((Date.now() - start) / 1000).toFixed(0)} s`;
  const remark = without.length > 0 ? `${time}, without ${without.join(", ")}` : time;
  print(name, version(binary), tests, report.digest.slice(0, 8), remark);
}

// Two at a time: most of the suite runs on one core.
const waiting = Object.entries(ENGINES).filter(([name]) => chosen.length === 0 || chosen.includes(name));
const lane = async () => {
  for (let next = waiting.shift(); next; next = waiting.shift()) await one(next);
};
await Promise.all([lane(), lane()]);

if (digests.size > 1) console.error(`${digests.size} different digests`);
process.exit(failed > 0 || digests.size > 1 ? 1 : 0);
