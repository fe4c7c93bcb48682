// How fast on this machine: the bench as a form, its progress, and its results.

import { version } from "../../package.json";
import { GOLDEN } from "../../test/digest.js";
import type { Message, Result, Task } from "./bench-worker.js";
import { element, words } from "./controls.js";

const form = element<HTMLFormElement>("bench-form");
const button = element<HTMLButtonElement>("bench-run");
const progress = element<HTMLProgressElement>("bench-progress");
const status = element<HTMLOutputElement>("bench-status");
const results = element("bench-results");
const line = element<HTMLTextAreaElement>("bench-line");
const copied = element<HTMLOutputElement>("bench-copied");

element("bench-isolation").textContent = crossOriginIsolated
  ? `This page is cross-origin isolated, so threads can share memory: ${navigator.hardwareConcurrency} of them here.`
  : "This page is not cross-origin isolated, so only one thread can be measured. Its host would have to send two headers.";

let worker: Worker | undefined;
let entry = "";

/** Tells where the entry is, which the worker runs. */
export function runWorkerFrom(url: string): void {
  entry = url;
}

function end(text: string) {
  worker?.terminate();
  worker = undefined;
  button.textContent = "Run";
  progress.hidden = true;
  status.value = text;
}

function start(task: Task) {
  button.textContent = "Cancel";
  progress.hidden = false;
  progress.value = 0;
  status.value = "Loading …";
  results.hidden = true;
  worker = new Worker(entry, { type: "module", name: JSON.stringify(task) });
  worker.addEventListener("message", ({ data }: MessageEvent<Message>) => {
    if ("error" in data) return end(`It failed: ${data.error}`);
    if ("result" in data) {
      show(task, data.result);
      return end("Done.");
    }
    progress.value = data.done;
    // Each of these is read out once.
    if (status.value !== data.doing) status.value = data.doing;
  });
  worker.addEventListener("error", (event) => end(`It failed: ${event.message || "the worker did not load"}`));
}

const duration = (ms: number) => (ms < 1 ? `${words(ms * 1000, 3)} µs` : `${words(ms, 3)} ms`);

function show({ rows, cols }: Task, { times, digest }: Result) {
  const own = times[0]?.ms as number;
  const fastest = Math.min(...times.map(({ ms }) => ms));
  const caption = `Forward, ${rows} × ${cols}: the fastest of several rounds. Longer bars are faster.`;
  element("bench-caption").textContent = caption;
  element("bench-rows").replaceChildren(
    ...times.map(({ name, ms }) => {
      const row = document.createElement("tr");
      const cells = [name, duration(ms), `${words(ms / own, 3)} × as long`].map((text, i) => {
        const cell = document.createElement(i === 0 ? "th" : "td");
        if (i === 0) cell.setAttribute("scope", "row");
        cell.textContent = text;
        return cell;
      });
      const bar = document.createElement("span");
      bar.className = name.startsWith("ours") ? "bar ours" : "bar";
      bar.style.width = `${(100 * fastest) / ms}%`;
      cells[0]?.append(bar);
      row.append(...cells);
      return row;
    }),
  );
  const agrees = digest === GOLDEN;
  element<HTMLOutputElement>("bench-digest").value = agrees
    ? `✓ The golden digest, ${digest.slice(0, 16)}…, agrees: the kernels give the same bits here as everywhere.`
    : `✗ The digest is ${digest}, which differs from the golden ${GOLDEN}. Please open an issue with the line below.`;
  const measured = times.map(({ name, ms }) => `${name} ${duration(ms)}`).join("; ");
  const host = `${navigator.hardwareConcurrency} threads, ${crossOriginIsolated ? "" : "not "}isolated; ${navigator.userAgent}`;
  line.value = `layernorm-wasm ${version}, forward ${rows}×${cols}: ${measured}; digest ${digest.slice(0, 16)} ${agrees ? "agrees" : "DIFFERS"}; ${host}`;
  copied.value = "";
  results.hidden = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (worker) return end("Cancelled.");
  const data = new FormData(form);
  const [rows, cols] = String(data.get("shape")).split("x").map(Number) as [number, number];
  start({ rows, cols, tensorflow: data.has("tensorflow") });
});

element("bench-copy").addEventListener("click", async () => {
  line.select();
  try {
    await navigator.clipboard.writeText(line.value);
    copied.value = "Copied.";
  } catch {
    copied.value = "It is selected: copy it with your keyboard.";
  }
});
