// npm run bench:engines: the kernels' speed in each engine, and how many × as long they take as in Node 24. The engines
// take turns, three times; what counts is the fastest. It takes the engines that npm run test:engines takes.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { BROWSERS, ISOLATED, openPage } from "../test/browsers.mjs";

const TURNS = 3;
const root = join(import.meta.dirname, "..");
const out = join(root, "build/bench-engines");
const file = join(out, "engine.mjs");
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({
  entryPoints: [join(root, "bench/engine.ts")],
  outfile: file,
  bundle: true,
  format: "esm",
  platform: "neutral",
  mainFields: ["module", "main"],
  logLevel: "error",
});

const packaged = (path) => join(root, "test/engines/node_modules", path);
const host = (binary, ...args) => ({
  binary,
  run: () =>
    JSON.parse(execFileSync(binary, [...args, file], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })),
});
const page = (name) => ({
  binary: BROWSERS[name].binary,
  run: () =>
    openPage(name, out, {
      headers: ISOLATED,
      html: '<script type="module" src="/engine.mjs"></script>',
      timeout: 120_000,
    }),
});
const ENGINES = {
  "Node 24": host(packaged("node24/bin/node")),
  "Node 20": host(packaged("node20/bin/node")),
  "Node 22": host(packaged("node22/bin/node")),
  "Node 26": host(packaged("node26/bin/node")),
  Bun: host(packaged("@oven/bun-linux-x64/bin/bun")),
  Deno: host(packaged("@deno/linux-x64-glibc/deno"), "run"),
  Chromium: page("chromium"),
  Firefox: page("firefox"),
  WebKit: page("webkit"),
};

const best = {};
for (let turn = 1; turn <= TURNS; turn++) {
  for (const [name, { binary, run }] of Object.entries(ENGINES)) {
    if (!existsSync(binary)) {
      if (turn === 1) console.log(`without ${name}: it is not installed`);
      continue;
    }
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${turn}/${TURNS} ${name}`);
    best[name] ??= {};
    for (const [what, gigabytes] of Object.entries(await run())) {
      best[name][what] = Math.max(best[name][what] ?? 0, gigabytes);
    }
  }
}
if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
const first = best["Node 24"];
console.log(
  `${"GB/s, × as long".padEnd(22)}${Object.keys(best)
    .map((name) => name.padStart(13))
    .join("")}`,
);
for (const what of Object.keys(first)) {
  const cells = Object.values(best).map(
    (found) => `${found[what].toFixed(1)} ${(first[what] / found[what]).toFixed(2)}`,
  );
  console.log(`${what.padEnd(22)}${cells.map((cell) => cell.padStart(13)).join("")}`);
}
