// npm run test:playground: the playground as it is built, in a folder of a server, tried by a script in the page (page.ts) in
// Chromium, Firefox and WebKit: all of it cross-origin isolated, then what differs where it isn't, without TensorFlow.js' files,
// for who wants no motion.

import { deepStrictEqual, ok } from "node:assert";
import { cpSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { ISOLATED, openPage } from "../../test/browsers.mjs";
import { runCases } from "../../test/cases.mjs";
import { root } from "../../test/packed.mjs";

const LIMIT = 300_000; // bytes
const dist = join(root, "playground/dist");
const out = join(root, "build/playground");
const isTensorFlow = (name) => /tensorflow|tfjs/.test(name);

/** A folder to serve: the page in `site`, what tries it beside it. */
async function prepare(name, filter = () => true) {
  const folder = join(out, name);
  cpSync(dist, join(folder, "site"), { recursive: true, filter });
  const common = { bundle: true, outdir: folder, target: "es2022", logLevel: "error" };
  await build({ ...common, entryPoints: [join(root, "playground/test/hooks.ts")], format: "iife" });
  await build({
    ...common,
    entryPoints: [join(root, "playground/test/page.ts")],
    format: "esm",
    alias: { "layernorm-wasm": join(root, "dist/index.js") },
  });
  const html = readFileSync(join(dist, "index.html"), "utf8")
    .replace("<head>", '<head><script src="../hooks.js"></script>')
    .replace("</body>", '<script type="module" src="../page.js"></script></body>');
  return { folder, html };
}

async function check(browser, { folder, html }, page, headers) {
  const { passed, failures } = await openPage(browser, folder, { page, html, headers, timeout: 90_000 });
  console.log(`        ${passed.length} passed, ${failures.length} failed`);
  deepStrictEqual(failures, []);
}

rmSync(out, { recursive: true, force: true });
const whole = await prepare("whole");
const lean = await prepare("lean", (path) => !isTensorFlow(path));

const CASES = {
  [`the page has at most ${LIMIT} bytes without TensorFlow.js`]() {
    const files = readdirSync(dist, { recursive: true }).filter((name) => statSync(join(dist, name)).isFile());
    const size = files
      .filter((name) => !isTensorFlow(name))
      .reduce((sum, name) => sum + statSync(join(dist, name)).size, 0);
    console.log(`        ${size} bytes`);
    ok(size <= LIMIT && files.some(isTensorFlow));
  },
};
const chosen = process.argv.slice(2);
for (const browser of ["chromium", "firefox", "webkit"]) {
  if (chosen.length > 0 && !chosen.includes(browser)) continue;
  CASES[`${browser}, isolated`] = () => check(browser, whole, "/site/?isolated", ISOLATED);
  CASES[`${browser}, not isolated, no motion, no TensorFlow.js`] = () => check(browser, lean, "/site/?still", {});
}
CASES["no page of the documentation, built by npm run docs, is wider than a phone"] = async () => {
  const folder = join(root, "docs/dist");
  const pages = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".html"));
  const html = `<iframe style="width: 390px; height: 844px"></iframe><script type="module">
    const frame = document.querySelector("iframe");
    const wide = [];
    for (const page of ${JSON.stringify(pages)}) {
      frame.src = page;
      await new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
      const { scrollWidth } = frame.contentDocument.documentElement;
      if (scrollWidth > 390) wide.push(page + ": " + scrollWidth);
    }
    fetch(new URLSearchParams(location.search).get("report"), { method: "POST", body: JSON.stringify(wide) });
  </script>`;
  deepStrictEqual(await openPage("chromium", folder, { page: "/", html, timeout: 60_000 }), []);
};
await runCases(CASES);
