// node test/examples/minilm.mjs [FOLDER]: the example of sentence embeddings, in Node and as a page in Chromium and
// Firefox, with and without cross-origin isolation. Its model lies in that folder, or in build/minilm.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { spawnSync } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseSafetensors } from "../../examples/safetensors.js";
import { buildMinilm } from "../../examples/serve.mjs";
import { ISOLATED, openPage } from "../browsers.mjs";
import { runCases } from "../cases.mjs";
import { root } from "../packed.mjs";

const model = resolve(process.argv[2] ?? join(root, "build/minilm"));
const { metadata } = parseSafetensors(readFileSync(join(root, "test/fixtures/minilm.safetensors")));
const expected = JSON.parse(metadata.questions);

async function inNode() {
  const { status, stdout, stderr } = spawnSync("npm", ["run", "--silent", "example:minilm", "--", model], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, SKIP_BUILD: "1" },
  });
  console.log(stdout);
  strictEqual(status, 0, stderr);
}

async function inPage(browser, isolated) {
  const folder = await buildMinilm(model);
  writeFileSync(join(folder, "questions.json"), JSON.stringify(expected.map(({ question }) => question)));
  copyFileSync(join(import.meta.dirname, "minilm-page.js"), join(folder, "report.js"));
  const html = `${readFileSync(join(folder, "index.html"), "utf8")}<script type="module" src="report.js"></script>`;
  const headers = isolated ? ISOLATED : {};
  const report = await openPage(browser, folder, { html, headers, timeout: 180_000 });
  const { error, about, backend, progress, answers } = report;
  strictEqual(error, "");
  strictEqual(report.isolated, isolated);
  match(backend, isolated ? /-threaded-simd\.wasm$/ : /wasm-simd\.wasm$/);
  for (const stage of [/^Loading the model: \d+ of 91 MB/, /^Reading the sentences: 99 of 100/]) {
    ok(
      progress.some((text) => stage.test(text)),
      String(stage),
    );
  }
  for (const [i, { question, nearest, cosine }] of expected.entries()) {
    strictEqual(answers[i].question, question);
    strictEqual(answers[i].results[0], `${nearest}${cosine.toFixed(3)}`);
  }
  const [asked, ...switched] = answers.slice(expected.length - 1);
  strictEqual(new Set(switched.map(({ norm }) => norm)).size, 3);
  for (const { norm, results } of switched) deepStrictEqual(results, asked.results, norm);
  console.log(`        ${about}`);
  for (const { question, norm, times, ratios } of answers) {
    console.log(`        ${question} (${norm}): ${times.join(", ")}; ${ratios.filter(Boolean).join(", ")}`);
  }
}

const CASES = { "sentence embeddings, in Node": inNode };
for (const browser of ["chromium", "firefox"]) {
  CASES[`sentence embeddings in a page, in ${browser}`] = () => inPage(browser, false);
  CASES[`sentence embeddings in an isolated page, in ${browser}`] = () => inPage(browser, true);
}

await runCases(CASES);
