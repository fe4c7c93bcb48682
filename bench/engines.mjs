// npm run bench:engines: the kernels' speed in each engine, how many × as long they take as in Node 24, and how many × as
// long the kernels of 2026-11-29 take in the same engine. The engines take turns, three times. Of the speeds the fastest
// counts, of the last ratio the median. It takes the engines that npm run test:engines takes.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { BROWSERS, ISOLATED, openPage } from "../test/browsers.mjs";
import { binaryOf } from "./wasm.ts";

const TURNS = 3;
const root = join(import.meta.dirname, "..");
const out = join(root, "build/bench-engines");
const file = join(out, "engine.mjs");
rmSync(out, { recursive: true, force: true });
const options = { bundle: true, format: "esm", platform: "neutral", mainFields: ["module", "main"], logLevel: "error" };
const define = { EARLIER: JSON.stringify(readFileSync(binaryOf("guessing"), "base64")) };
await build({ entryPoints: [join(root, "bench/engine.ts")], outfile: file, define, ...options });

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

const runs = {};
for (let turn = 1; turn <= TURNS; turn++) {
  for (const [name, { binary, run }] of Object.entries(ENGINES)) {
    if (!existsSync(binary)) {
      if (turn === 1) console.log(`without ${name}: it is not installed`);
      continue;
    }
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${turn}/${TURNS} ${name}`);
    runs[name] = [...(runs[name] ?? []), await run()];
  }
}
if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
const line = (name, cells) => console.log(name.padEnd(22) + cells.map((cell) => cell.padStart(18)).join(""));
const fastest = (all, what) => Math.max(...all.map(({ [what]: { gigabytes } }) => gigabytes));
const median = (all, what) => all.map(({ [what]: { earlier } }) => earlier).sort((a, b) => a - b)[all.length >> 1];
line("GB/s, × as long, ×", Object.keys(runs));
for (const what of Object.keys(runs["Node 24"][0])) {
  const first = fastest(runs["Node 24"], what);
  const cells = Object.values(runs).map((all) => {
    const speed = fastest(all, what);
    return `${speed.toFixed(1)} ${(first / speed).toFixed(2)} ${median(all, what).toFixed(2)}`;
  });
  line(what, cells);
}
