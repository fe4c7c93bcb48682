// npm run test:engines: the suite from the packed tarball, on every engine there is. Prints a table, engine by version by tests
// by digest, and how to install what is missing. A missing engine fails in CI, and wherever names of engines are given.
//
//   npm run test:engines [-- node24 workerd chromium ...]

import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
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
  if (!bundles.has(entry)) bundles.set(entry, makeBundle(entry, options));
  return bundles.get(entry);
}

async function makeBundle(entry, { conditions = [], packageIsExternal = false, wasm = "binary", define = {} } = {}) {
  const outfile = join(out, entry, "suite.mjs");
  const standIns = { vitest: "vitest", "node:fs": "files", "./builds.js": "builds" };
  await build({
    // the suite, and the worker that threads.test.ts starts
    entryPoints: { suite: join(here, `${entry}.ts`), "threads-reader": join(root, "test/threads-reader.mjs") },
    outdir: dirname(outfile),
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["import", ...conditions],
    target: "chrome91",
    loader: { ".safetensors": "binary", ".wasm": wasm },
    assetNames: "[name]",
    define,
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
            if (packageIsExternal && !name.endsWith(".wasm")) return { path: name, external: true };
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

async function runHost(command, args, without = []) {
  const suite = await bundle("host", { packageIsExternal: true });
  const exit = join(out, "host/exit.mjs");
  copyFileSync(join(here, "exit.mjs"), exit);
  const report = JSON.parse((await output(command, [...args, suite, ...without])).trim().split("\n").at(-1));
  const said = (await output(command, [...args, exit])).trim();
  if (said === "3 threads, 300000 elements") report.passed++;
  else report.failures.push(`exit.mjs: ${said}`);
  return report;
}

const IN_PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="/suite.mjs"></script>';
const IN_WORKER = `<!doctype html><meta charset="utf-8"><script type="module">
  new Worker("/suite.mjs" + location.search, { type: "module" });
</script>`;

/** The files of the suite, divided among pages that are opened in turn, each a process of its own. */
async function runPages(browser, without, parts, html = IN_PAGE) {
  await bundle("page");
  copyFileSync(join(out, "node_modules/layernorm-wasm/dist/worker.js"), join(out, "page/worker.js"));
  const all = { passed: 0, failures: [], digest: "" };
  for (let part = 0; part < parts; part++) {
    const { passed, failures, digest, refusal } = await openPage(browser, join(out, "page"), {
      page: `/?part=${part}&parts=${parts}&${without.map((name) => `without=${name}`).join("&")}`,
      html,
      headers: ISOLATED,
      timeout: TIMEOUT,
    });
    all.passed += passed;
    all.failures.push(...failures);
    all.digest ||= digest;
    all.refusal ||= refusal;
  }
  return all;
}

async function runWorkerd(without) {
  await bundle("worker", { conditions: ["workerd"], wasm: "copy", define: { "import.meta.url": '"file:///suite"' } });
  return serveWorker(join(out, "worker"), ["suite.mjs", "layernorm.wasm", "heap.wasm"], async (address) => {
    const query = without.map((name) => `without=${name}`).join("&");
    const response = await fetch(`${address}/?${query}`, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!response.ok) throw new Error(`workerd answered ${response.status}: ${await response.text()}`);
    return response.json();
  });
}

const packaged = (path) => join(here, "node_modules", path);
const npm = "npm ci --prefix test/engines --ignore-scripts";
const says = (pattern) => (binary) => {
  const text = execFileSync(binary, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  return pattern.exec(text)?.[0] ?? text;
};
const NUMBER = /\d[\d.]+/;
const node = (major, without = []) => ({
  binary: packaged(`node${major}/bin/node`),
  install: npm,
  version: says(NUMBER),
  without,
  run: (binary) => runHost(binary, [], without),
});
/** Node for ARM64, in QEMU's emulation of a process. */
const nodeOnArm = (major, without) => {
  const folder = join(here, `arm64/node_modules/node${major}`);
  const libraries = "/usr/aarch64-linux-gnu";
  // QEMU keeps a table of all addresses ever reserved, and V8 reserves gigabytes for each small memory. This way it takes 5 GB.
  const modest = ["--disable-wasm-trap-handler", "--wasm-max-mem-pages=2048"];
  return {
    binary: "/usr/bin/qemu-aarch64",
    needs: [folder, `${libraries}/lib/libc.so.6`, `${libraries}/lib/libstdc++.so.6`],
    install:
      "npm ci --prefix test/engines/arm64 --ignore-scripts --force; " +
      "apt-get install --no-install-recommends qemu-user libc6-arm64-cross libstdc++6-arm64-cross",
    version: () => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version,
    without,
    run: (emulator) => runHost(emulator, ["-L", libraries, join(folder, "bin/node"), ...modest], without),
  };
};
/**
 * A Chromium before 115, whose main thread compiles nothing of this size at once. In a page run the tests that make no runtimes of
 * their own, those of threads among them; in a worker, which has no such limit, the others.
 */
const oldChromium = (version, place) => {
  const name = `chromium${version}`;
  const without = [...KERNELS, ...(place === "page" ? AT_ONCE : ["threads"])];
  return {
    ...browser(name, () => String(version), without),
    install: "npm ci --prefix test/engines/chromium --ignore-scripts",
    async run() {
      const { refusal, ...report } = await runPages(name, without, 1, place === "page" ? IN_PAGE : IN_WORKER);
      const told = /await Runtime.create\(\{ async: true \}\)/.test(refusal);
      if (told !== (place === "page")) report.failures.push(`the first call was told: ${refusal}`);
      return report;
    },
  };
};
const browser = (name, version = says(NUMBER), without = [], pages = 1) => ({
  binary: BROWSERS[name].binary,
  install: `apt-get install --no-install-recommends ${BROWSERS[name].packages}`,
  version,
  without,
  run: () => runPages(name, without, pages),
});
// It says its version only where there is a display.
const webkitVersion = () =>
  execFileSync("dpkg", ["--status", "libwebkit2gtk-4.1-0"], { encoding: "utf8" }).match(/^Version: (\d[\d.]+)/m)?.[1] ??
  "?";

// What the kernels compute, on many numbers: it takes most of the time. The newest engine of each compiler runs it (V8 in node26,
// JavaScriptCore in bun, SpiderMonkey in firefox), and npm test does in Node. The digest pins the bits everywhere.
const KERNELS = "accuracy backward conformance forward properties reference".split(" ");
// They make runtimes, or compile, at once.
const AT_ONCE = "functional gigabytes memory modules norm runtime state-dict tensor".split(" ");

// Those that take long come first.
const ENGINES = {
  firefox: browser("firefox"),
  node26: node(26),
  bun: {
    binary: packaged("@oven/bun-linux-x64/bin/bun"),
    install: npm,
    version: says(NUMBER),
    run: (binary) => runHost(binary, []),
  },
  // Memories of 3 and 4 GiB make it hang, in one run of four. A page reserves gigabytes of addresses for each memory until it is
  // collected, and has few: the whole suite in one page ran out of memory in one run of three. So each has two files.
  webkit: browser("webkit", webkitVersion, [...KERNELS, "gigabytes"], 7),
  // threads take minutes there, others more memory than it is given.
  arm64: nodeOnArm(24, [...KERNELS, "gigabytes", "memory", "runtime", "threads"]),
  chromium: browser("chromium", says(NUMBER), KERNELS),
  node20: node(20, KERNELS),
  // Threads of theirs are those of the Node before and after them; exit.mjs has three of them in any case.
  node22: node(22, [...KERNELS, "threads"]),
  node24: node(24, [...KERNELS, "threads"]),
  deno: {
    binary: packaged("@deno/linux-x64-glibc/deno"),
    install: npm,
    version: says(NUMBER),
    without: KERNELS,
    run: (binary) => runHost(binary, ["run", "--allow-read", "--allow-env", "--node-modules-dir=manual"], KERNELS),
  },
  // modules.test.ts compiles bytes, which is forbidden there, and there are no threads.
  workerd: {
    binary: WORKERD,
    install: npm,
    version: says(/\d{4}-\d\d-\d\d/),
    without: [...KERNELS, "modules", "threads"],
    run: () => runWorkerd([...KERNELS, "modules", "threads"]),
  },
  "chromium107-page": oldChromium(107, "page"),
  "chromium107-worker": oldChromium(107, "worker"),
  "chromium92-page": oldChromium(92, "page"),
  "chromium92-worker": oldChromium(92, "worker"),
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !ENGINES[name]);
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: expected ${Object.keys(ENGINES).join(", ")}`);

install(out);
const rows = [];
let failed = 0;
const widths = [18, 16, 20, 8, 0];
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
async function one([name, { binary, needs = [], install, version, without = [], run }]) {
  if (![binary, ...needs].every(existsSync)) {
    print([name, "missing", "", "", install]);
    if (process.env.CI || chosen.length > 0) failed++;
    return;
  }
  const start = Date.now();
  try {
    const report = await run(binary);
    for (const failure of report.failures) console.error(`  ${name}: ${failure}`);
    failed += report.failures.length;
    const tests = `${report.passed} passed${report.failures.length > 0 ? `, ${report.failures.length} failed` : ""}`;
    const time = `${((Date.now() - start) / 1000).toFixed(0)} s`;
    const remark = without.length > 0 ? `${time}, without ${without.join(", ")}` : time;
    print([name, version(binary), tests, report.digest.slice(0, 8), remark]);
  } catch (error) {
    failed++;
    console.error(`  ${name}: ${error.stack}`);
    print([name, version(binary), "failed", "", ""]);
  }
}

// Two at a time: most of the suite runs on one core.
const waiting = Object.entries(ENGINES).filter(([name]) => chosen.length === 0 || chosen.includes(name));
const lane = async () => {
  for (let next = waiting.shift(); next; next = waiting.shift()) await one(next);
};
await Promise.all([lane(), lane()]);

const digests = new Set(
  rows
    .slice(1)
    .map(([, , , digest]) => digest)
    .filter(Boolean),
);
if (digests.size > 1) console.error(`${digests.size} different digests`);
process.exit(failed > 0 || digests.size > 1 ? 1 : 0);
