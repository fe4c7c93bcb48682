// npm run test:examples: the edge worker in workerd under load, and the pages in Chromium, Firefox and WebKit.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { layerNorm } from "../../dist/index.js";
import { buildBrowser, buildEdge } from "../../examples/serve.mjs";
import { openPage } from "../browsers.mjs";
import { runCases } from "../cases.mjs";
import { root } from "../packed.mjs";
import { serveWorker } from "../workerd.mjs";

const BINARY = { "content-type": "application/octet-stream" };
const json = (body, type = "application/json") => ({ headers: { "content-type": type }, body });
const binary = (bytes) => ({ headers: BINARY, body: Buffer.alloc(bytes) });
const rows = (count) => json(`{"x": [${"[1],".repeat(count - 1)}[1]]}`);

/** What the worker answers: the status, the path, what is sent, and y or the words of the error. */
const ANSWERS = [
  [
    200,
    "/layernorm",
    json('{"x": [[3, 5], [5, 1]], "eps": 0}'),
    [
      [-1, 1],
      [1, -1],
    ],
  ],
  [200, "/layernorm", json('{"x": [[3, 5]], "weight": [2, 3], "bias": [1, 10], "eps": 0}'), [[-1, 13]]],
  [200, "/layernorm", json('{"x": [[3, 5]], "eps": 0}', "Application/JSON"), [[-1, 1]]],
  [200, "/layernorm", json('{"x": [[3, 5]], "eps": 0}', "application/json ; charset=utf-8"), [[-1, 1]]],
  [200, "/layernorm", json('{"x": [[3, 5]], "eps": 0}', "application/json;charset=utf-8"), [[-1, 1]]],
  [200, "/layernorm", rows(65536), new Array(65536).fill([0])],
  [404, "/", json("{}"), /expected POST \/layernorm/],
  [405, "/layernorm", { method: "GET" }, /GET, expected POST/],
  [415, "/layernorm", json("hello", "text/plain"), /text\/plain/],
  [415, "/layernorm", { body: "hello" }, /none/],
  [400, "/layernorm", json("{"), /not JSON/],
  [400, "/layernorm", json("null"), /x: expected/],
  [400, "/layernorm", json('{"x": [[1, 2], [3]]}'), /x: expected/],
  [400, "/layernorm", json('{"x": [[1, "2"]]}'), /x: expected 2 numbers/],
  [400, "/layernorm", json('{"x": [[1, 2]], "weight": [1]}'), /weight: expected 2 numbers/],
  [400, "/layernorm", json('{"x": [[1, 2]], "eps": -1}'), /eps is -1/],
  [400, "/layernorm", json('{"x": [[]]}'), /normalizedShape/],
  [400, "/layernorm", json('{"x": [[1, 1e39]]}'), /x: 1e\+39 is beyond/],
  [400, "/layernorm", json('{"x": [[1, 2]], "weight": [1, -1e39]}'), /weight: -1e\+39 is beyond/],
  [413, "/layernorm", json(`{"x": [[${"1,".repeat(2 ** 21)}1]]}`), /more than 1048576 bytes/],
  [413, "/layernorm", rows(65537), /x: more than 65536 rows/],
  [400, "/layernorm", binary(8), /shape is null/],
  [400, "/layernorm?shape=2,x", binary(8), /shape is 2,x/],
  [400, "/layernorm?shape=2,3", binary(8), /8 bytes, expected 24/],
  [400, "/layernorm?shape=2&eps=x", binary(8), /eps is NaN/],
  [413, "/layernorm?shape=2,1024,1024", binary(8 * 1024 * 1024), /more than 4194304 bytes/],
];

/** Megabytes of memory that a process holds. */
function memoryOf(pid) {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;
}

async function edgeWorker() {
  const { folder, modules } = await buildEdge(join(root, "test/examples/worker.js"));
  await serveWorker(folder, modules, async (address, pid) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 16 });
    const send = (path, { method = "POST", headers = {}, body } = {}) =>
      new Promise((resolve, reject) => {
        const sent = request(`${address}${path}`, { method, headers, agent }, async (response) => {
          resolve({ status: response.statusCode, body: Buffer.concat(await response.toArray()) });
        });
        sent.on("error", reject);
        sent.end(body);
      });

    for (const [status, path, sent, expected] of ANSWERS) {
      const answer = await send(path, sent);
      strictEqual(answer.status, status, String(answer.body));
      const { y, error } = JSON.parse(answer.body);
      if (status === 200) deepStrictEqual(y, expected);
      else match(error, expected);
    }

    // Sixteen at a time, of different shapes and numbers: each answer is that of its own question.
    const question = (i) => {
      const cols = 1 + (i % 67);
      const x = Float32Array.from({ length: (1 + (i % 5)) * cols }, (_, k) => Math.sin(i * 31 + k * k) * (i % 7));
      return { path: `/layernorm?shape=${x.length / cols},${cols}`, x, y: layerNorm(x, cols) };
    };
    const load = async (from, to) => {
      let next = from;
      const client = async () => {
        for (let i = next++; i < to; i = next++) {
          const { path, x, y } = question(i);
          const { status, body } = await send(path, { headers: BINARY, body: Buffer.from(x.buffer) });
          strictEqual(status, 200);
          deepStrictEqual(new Float32Array(new Uint8Array(body).buffer), y);
        }
      };
      await Promise.all(Array.from({ length: 16 }, client));
    };
    // The linear memory stays as it is, to the byte; the process' own moves with the garbage that is yet to be collected.
    const memory = async () => Number((await send("/memory", { method: "GET" })).body);
    await load(0, 10_000);
    const [linear, before] = [await memory(), memoryOf(pid)];
    await load(10_000, 20_000);
    const grown = memoryOf(pid) - before;
    strictEqual(await memory(), linear);
    const megabytes = `${before.toFixed(0)} MB in all, ${grown.toFixed(0)} MB more later`;
    console.log(`        ${linear / 1024} KB of linear memory; ${megabytes}`);
    ok(grown < 80, `the process grew by ${grown} MB, 8 KB a request`);
    agent.destroy();
  });
}

/** A page of the browser example, with a script more that reports what it shows. */
async function page(browser, name) {
  const folder = await buildBrowser();
  const script = `<script type="module">
  const timer = setInterval(() => {
    const text = document.querySelector("#result").textContent;
    if (text.startsWith("computing")) return;
    clearInterval(timer);
    fetch("/report", { method: "POST", body: JSON.stringify(text) });
  }, 20);
</script>`;
  const html = readFileSync(join(folder, name), "utf8") + script;
  const text = await openPage(browser, folder, { page: `/${name}`, html });
  console.log(`        ${text}`);
  match(text, /^equal to PyTorch/);
  if (name === "worker.html") match(text, /x was transferred/);
}

const CASES = { "edge worker, in workerd": edgeWorker };
for (const browser of ["chromium", "firefox", "webkit"]) {
  CASES[`a transformer block in a page, in ${browser}`] = () => page(browser, "index.html");
  CASES[`a transformer block in a Web Worker, in ${browser}`] = () => page(browser, "worker.html");
}

await runCases(CASES);
