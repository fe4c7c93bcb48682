// npm run bench:engines: the kernels' speed in each engine, and how many × as long they take as in Node 24. The engines
// take turns, three times; what counts is the fastest. It takes the engines that npm run test:engines takes.

import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { BROWSERS, ISOLATED, openPage } from "../test/browsers.mjs";

const TURNS = 3;
const root = join(import.meta.dirname, "..");
const out = join(root, "build/bench-engines");
const file = join(out, "engine.mjs");
rmSync(out, { recursive: true, force: true });
const options = { bundle: true, format: "esm", platform: "neutral", mainFields: ["module", "main"], logLevel: "error" };
await build({ entryPoints: [join(root, "bench/engine.ts")], outfile: file, ...options });

const html = '<script type="module" src="/engine.mjs"></script>';
const host = (path, ...args) => {
  const binary = join(root, "test/engines/node_modules", path);
  const stdio = ["ignore", "pipe", "ignore"];
  return { binary, run: () => JSON.parse(execFileSync(binary, [...args, file], { encoding: "utf8", stdio })) };
};
const page = (name) => ({
  binary: BROWSERS[name].binary,
  run: () => openPage(name, out, { headers: ISOLATED, html, timeout: 120_000 }),
});
const ENGINES = {
  "Node 24": host("node24/bin/node"),
  "Node 20": host("node20/bin/node"),
  "Node 22": host("node22/bin/node"),
  "Node 26": host("node26/bin/node"),
  Bun: host("@oven/bun-linux-x64/bin/bun"),
  Deno: host("@deno/linux-x64-glibc/deno", "run"),
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
const line = (name, cells) => console.log(name.padEnd(22) + cells.map((cell) => cell.padStart(13)).join(""));
line("GB/s, × as long", Object.keys(best));
for (const [what, first] of Object.entries(best["Node 24"])) {
  line(
    what,
    Object.values(best).map((found) => `${found[what].toFixed(1)} ${(first / found[what]).toFixed(2)}`),
  );
}
