// Runs in the page of the example of sentence embeddings: asks questions.json as a user does, the last question then with each of the
// norms, and reports what the page shows.

const address = new URL(location.href).searchParams.get("report");
const element = (selector) => document.querySelector(selector);
const texts = (selector) => Array.from(document.querySelectorAll(selector), ({ textContent }) => textContent);
const [question, norms, error] = ["#question", "#norms", "#error"].map(element);
const radios = [...norms.querySelectorAll("input")];

const progress = [];
const observer = new MutationObserver(() => progress.push(element("#status").textContent));
observer.observe(element("#loading"), { subtree: true, childList: true });

function until(condition) {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (!condition() && error.hidden) return;
      clearInterval(timer);
      resolve();
    }, 20);
  });
}

const answers = [];

/** Changes something in the page, and waits for its answer and all times. */
async function ask(change) {
  delete norms.dataset.measured;
  change();
  await until(() => norms.dataset.measured === question.value);
  const [results, times, ratios] = ["#results li", "#norms .time", "#norms .ratio"].map(texts);
  answers.push({ question: question.value, norm: radios.find(({ checked }) => checked).value, results, times, ratios });
}

const questions = await (await fetch("questions.json")).json();
await until(() => !question.disabled);
for (const text of questions) {
  await ask(() => {
    question.value = text;
    question.dispatchEvent(new Event("input"));
  });
}
for (const radio of radios) if (!radio.checked) await ask(() => radio.click());

const files = performance.getEntriesByType("resource").map(({ name }) => name);
const report = {
  error: error.textContent,
  about: element("#about").textContent,
  isolated: crossOriginIsolated,
  backend: files.find((name) => name.endsWith(".wasm")),
  progress,
  answers,
};
await fetch(address, { method: "POST", body: JSON.stringify(report) });
