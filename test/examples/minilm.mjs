// node test/examples/minilm.mjs [FOLDER]: the example of sentence embeddings, in Node and as a page in Chromium and Firefox, with
// and without cross-origin isolation. Its model lies in that folder, or in build/minilm.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
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

/** Asks the questions as a user does, the first of them with each of the norms, and reports what the page shows. */
const DRIVER = `
const address = new URL(location.href).searchParams.get("report");
const [question, norms] = ["#question", "#norms"].map((name) => document.querySelector(name));
const radios = [...norms.querySelectorAll("input")];
const progress = [];
new MutationObserver(() => progress.push(document.querySelector("#status").textContent)).observe(
  document.querySelector("#loading"), { subtree: true, childList: true, characterData: true });
const until = (condition) => new Promise((resolve) => {
  const timer = setInterval(() => condition() && (clearInterval(timer), resolve()), 20);
});
const failed = () => !document.querySelector("#error").hidden;
const texts = (selector) => [...document.querySelectorAll(selector)].map((element) => element.textContent);
await until(() => !question.disabled || failed());
const answers = [];
async function ask(text, radio, change) {
  delete norms.dataset.measured;
  change();
  await until(() => norms.dataset.measured === text);
  answers.push({ text, norm: radio.value, results: texts("#results li"), times: texts("#norms .time"), ratios: texts("#norms .ratio") });
}
if (!failed()) {
  for (const { question: text } of ${JSON.stringify(expected)}) {
    await ask(text, radios.find((radio) => radio.checked), () => {
      question.value = text;
      question.dispatchEvent(new Event("input"));
    });
  }
  for (const radio of radios) if (!radio.checked) await ask(question.value, radio, () => radio.click());
}
await fetch(address, { method: "POST", body: JSON.stringify({
  error: document.querySelector("#error").textContent, about: document.querySelector("#about").textContent,
  isolated: crossOriginIsolated, progress, answers,
  binary: performance.getEntriesByType("resource").map(({ name }) => name).find((name) => /backend-wasm.*[.]wasm$/.test(name)) }) });
`;

async function inPage(browser, isolated) {
  const folder = await buildMinilm(model);
  writeFileSync(join(folder, "driver.js"), DRIVER);
  const html = `${readFileSync(join(folder, "index.html"), "utf8")}<script type="module" src="driver.js"></script>`;
  const headers = isolated ? ISOLATED : {};
  const report = await openPage(browser, folder, { html, headers, timeout: 180_000 });
  strictEqual(report.error, "");
  strictEqual(report.isolated, isolated);
  const { answers, about, progress, binary } = report;
  match(about, isolated ? /cross-origin isolated\.$/ : /threads: 1\.$/);
  match(binary, isolated ? /-threaded-simd\.wasm$/ : /-simd\.wasm$/);
  for (const stage of [/^Loading the model: \d+ of 91 MB/, /^Reading the sentences: 99 of 100/]) {
    ok(
      progress.some((text) => stage.test(text)),
      `${stage} in ${progress}`,
    );
  }
  for (const [i, { question, nearest, cosine }] of expected.entries()) {
    strictEqual(answers[i].text, question);
    strictEqual(answers[i].results[0], `${nearest}${cosine.toFixed(3)}`);
  }
  const [last, ...others] = answers.slice(expected.length - 1);
  strictEqual(others.length, 3);
  for (const { norm, results } of others) deepStrictEqual(results, last.results, `${norm} and ${last.norm}`);
  console.log(`        ${about}`);
  for (const { text, times, ratios } of answers)
    console.log(`        ${text}: ${times.join(", ")}; ${ratios.join(", ")}`);
}

const CASES = { "sentence embeddings, in Node": inNode };
for (const browser of ["chromium", "firefox"]) {
  CASES[`sentence embeddings in a page, in ${browser}`] = () => inPage(browser, false);
  CASES[`sentence embeddings in an isolated page, in ${browser}`] = () => inPage(browser, true);
}

await runCases(CASES);
