// The page: loads the model, embeds a hundred sentences, and then each question. After an answer, all norms take turns
// at embedding the question again, and the page shows what each takes.

import { getThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { Encoder, NORMS, nearest, tf } from "../encoder.js";
import { HUB, SIZE } from "../hub.js";
import sentences from "../sentences.json" with { type: "json" };

const RESULTS = 5;
const ROUNDS = 9;
const OURS = "layernorm-wasm";

/** @template {HTMLElement} E @param {string} selector @returns {E} */
const element = (selector) => /** @type {E} */ (document.querySelector(selector));
const question = /** @type {HTMLInputElement} */ (element("#question"));
const suggestions = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#suggestions button"));
const progress = /** @type {HTMLProgressElement} */ (element("#progress"));
const norms = /** @type {HTMLFieldSetElement} */ (element("#norms"));

/** Lets the page be drawn, and events come. */
const pause = () => new Promise((resolve) => setTimeout(resolve));

/** @param {string} status @param {number} done @param {number} total */
function show(status, done, total) {
  element("#status").textContent = status;
  progress.value = (100 * done) / total;
}

/** @param {string} tag @param {string} className @param {string} [text] */
function make(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

/**
 * A file, from beside the page or else from the hub, while the bar shows how much of it has come.
 * @param {string} name
 */
async function read(name) {
  const beside = await fetch(`model/${name}`);
  const hub = () =>
    fetch(`${HUB}/${name}`).catch((cause) => {
      throw new Error(`It is not beside the page, and ${HUB} can't be reached.`, { cause });
    });
  const response = beside.ok ? beside : await hub();
  if (!response.ok || !response.body) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
  const parts = [];
  let bytes = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    bytes += part.value.length;
    if (name === "model.safetensors") {
      show(`Loading the model: ${(bytes / 1e6).toFixed(0)} of ${(SIZE / 1e6).toFixed(0)} MB`, bytes, SIZE);
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** @param {Encoder} encoder */
async function embedSentences(encoder) {
  const embeddings = [];
  for (const sentence of sentences) {
    show(`Reading the sentences: ${embeddings.length} of ${sentences.length}`, embeddings.length, sentences.length);
    embeddings.push(encoder.embed(encoder.tokens(sentence), OURS).embedding);
    await pause();
  }
  return embeddings;
}

for (const norm of Object.keys(NORMS)) {
  const label = make("label", "");
  label.append(
    Object.assign(document.createElement("input"), {
      type: "radio",
      name: "norm",
      value: norm,
      checked: norm === OURS,
    }),
    make("span", "name", norm),
    make("span", "figure time"),
    make("span", "figure ratio"),
  );
  norms.append(label);
}
const labels = /** @type {NodeListOf<HTMLElement>} */ (norms.querySelectorAll("label"));

/** What each norm took, in milliseconds, as bars. @param {Record<string, number>} times */
function showTimes(times) {
  const slowest = Math.max(...Object.values(times));
  for (const [i, [norm, time]] of Object.entries(times).entries()) {
    const [duration, ratio] = labels[i].querySelectorAll(".figure");
    labels[i].style.setProperty("--share", String(time / slowest));
    duration.textContent = `${time.toFixed(1)} ms`;
    ratio.textContent = norm === OURS ? "" : `${(time / times[OURS]).toFixed(2)} × as long`;
  }
}

/** The question that is being answered. */
let current = {};

/** @param {Encoder} encoder @param {Float32Array[]} embeddings */
async function answer(encoder, embeddings) {
  const own = {};
  current = own;
  const text = question.value.trim();
  element("#results").replaceChildren();
  for (const label of labels) {
    label.style.removeProperty("--share");
    for (const figure of label.querySelectorAll(".figure")) figure.textContent = "";
  }
  if (text === "") return;
  const tokens = encoder.tokens(text);
  const { value: norm } = /** @type {HTMLInputElement} */ (element("#norms :checked"));
  const { embedding } = encoder.embed(tokens, norm);
  for (const { index, cosine } of nearest(embedding, embeddings).slice(0, RESULTS)) {
    const item = make("li", "");
    item.style.setProperty("--share", String(Math.max(0, cosine)));
    item.append(make("span", "", sentences[index]), make("span", "figure", cosine.toFixed(3)));
    element("#results").append(item);
  }
  const times = Object.fromEntries(Object.keys(NORMS).map((name) => [name, Infinity]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of Object.keys(times)) {
      await pause();
      if (current !== own) return;
      times[name] = Math.min(times[name], encoder.embed(tokens, name).total);
    }
    showTimes(times);
  }
  norms.dataset.measured = text;
}

async function start() {
  setWasmPaths("./");
  const encoder = await Encoder.load(read);
  const embeddings = await embedSentences(encoder);
  const ask = () => answer(encoder, embeddings);
  let timer = 0;
  question.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(ask, 150);
  });
  norms.addEventListener("change", ask);
  element("#ask").addEventListener("submit", (event) => event.preventDefault());
  for (const button of suggestions) {
    button.addEventListener("click", () => {
      question.value = button.textContent;
      ask();
    });
  }
  for (const control of [question, norms, ...suggestions]) control.disabled = false;
  element("#loading").hidden = true;
  element("#about").textContent =
    `Time of embedding the question: the fastest of ${ROUNDS}. TensorFlow.js ${tf.version_core}, ` +
    `${tf.getBackend()} backend, threads: ${getThreadsCount()}${crossOriginIsolated ? ", cross-origin isolated" : ""}.`;
  if (document.activeElement === document.body) question.focus();
}

start().catch((error) => {
  element("#loading").hidden = true;
  element("#error").textContent = `The model could not be loaded. ${error.message}`;
  element("#error").hidden = false;
});
