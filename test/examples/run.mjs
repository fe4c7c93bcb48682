// npm run test:examples: the edge worker in workerd under load, and the pages in Chromium, Firefox and WebKit.

import { deepStrictEqual, match, ok, strictEqual } from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { layerNorm } from "../../dist/index.js";
import { buildBrowser, buildEdge } from "../../examples/serve.mjs";
import { openPage } from "../browsers.mjs";
import { runCases } from "../cases.mjs";
import { root } from "../packed.mjs";
import { serveWorker } from "../workerd.mjs";

const JSON_TYPE = { "content-type": "application/json" };
const BINARY_TYPE = { "content-type": "application/octet-stream" };

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
        const sent = request(`${address}${path}`, { method, headers, agent }, (response) => {
          const parts = [];
          response.on("data", (part) => parts.push(part));
          response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(parts) }));
        });
        sent.on("error", reject);
        sent.end(body);
      });
    const ask = async (input) => {
      const { status, body } = await send("/layernorm", { headers: JSON_TYPE, body: JSON.stringify(input) });
      return [status, JSON.parse(body)];
    };
    const expectRefusal = async (status, pattern, path, options) => {
      const answer = await send(path, options);
      strictEqual(answer.status, status, String(answer.body));
      match(JSON.parse(answer.body).error, pattern);
    };

    deepStrictEqual(
      await ask({
        x: [
          [3, 5],
          [5, 1],
        ],
        eps: 0,
      }),
      [
        200,
        {
          y: [
            [-1, 1],
            [1, -1],
          ],
        },
      ],
    );
    deepStrictEqual(await ask({ x: [[3, 5]], weight: [2, 3], bias: [1, 10], eps: 0 }), [200, { y: [[-1, 13]] }]);

    const json = (body) => ({ headers: JSON_TYPE, body });
    await expectRefusal(404, /expected POST \/layernorm/, "/", json("{}"));
    await expectRefusal(405, /GET, expected POST/, "/layernorm", { method: "GET" });
    await expectRefusal(415, /text\/plain/, "/layernorm", { headers: { "content-type": "text/plain" }, body: "hello" });
    await expectRefusal(415, /none/, "/layernorm", { body: "hello" });
    await expectRefusal(400, /not JSON/, "/layernorm", json("{"));
    await expectRefusal(400, /x: expected/, "/layernorm", json("null"));
    await expectRefusal(400, /x: expected/, "/layernorm", json('{"x": [[1, 2], [3]]}'));
    await expectRefusal(400, /x: expected 2 numbers/, "/layernorm", json('{"x": [[1, "2"]]}'));
    await expectRefusal(400, /weight: expected 2 numbers/, "/layernorm", json('{"x": [[1, 2]], "weight": [1]}'));
    await expectRefusal(400, /eps is -1/, "/layernorm", json('{"x": [[1, 2]], "eps": -1}'));
    await expectRefusal(400, /normalizedShape/, "/layernorm", json('{"x": [[]]}'));
    for (const type of ["Application/JSON", "application/json ; charset=utf-8", "application/json;charset=utf-8"]) {
      const { status, body } = await send("/layernorm", {
        headers: { "content-type": type },
        body: '{"x": [[3, 5]], "eps": 0}',
      });
      strictEqual(status, 200, `${type}: ${body}`);
    }
    await expectRefusal(400, /x: 1e\+39 is beyond/, "/layernorm", json('{"x": [[1, 1e39]]}'));
    await expectRefusal(400, /weight: -1e\+39 is beyond/, "/layernorm", json('{"x": [[1, 2]], "weight": [1, -1e39]}'));
    await expectRefusal(
      413,
      /more than 1048576 bytes/,
      "/layernorm",
      json(`{"x": [[${"1,".repeat(2 * 1024 * 1024)}1]]}`),
    );
    const single = (rows) => json(`{"x": [${"[1],".repeat(rows - 1)}[1]]}`);
    await expectRefusal(413, /x: more than 65536 rows/, "/layernorm", single(65537));
    strictEqual((await send("/layernorm", single(65536))).status, 200);
    const binary = (bytes) => ({ headers: BINARY_TYPE, body: Buffer.alloc(bytes) });
    await expectRefusal(400, /shape is null/, "/layernorm", binary(8));
    await expectRefusal(400, /shape is 2,x/, "/layernorm?shape=2,x", binary(8));
    await expectRefusal(400, /8 bytes, expected 24/, "/layernorm?shape=2,3", binary(8));
    await expectRefusal(400, /eps is NaN/, "/layernorm?shape=2&eps=x", binary(8));
    await expectRefusal(413, /more than 4194304 bytes/, "/layernorm?shape=2,1024,1024", binary(8 * 1024 * 1024));

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
          const { status, body } = await send(path, { headers: BINARY_TYPE, body: Buffer.from(x.buffer) });
          strictEqual(status, 200);
          deepStrictEqual(new Float32Array(body.buffer.slice(body.byteOffset, body.byteOffset + body.length)), y);
        }
      };
      await Promise.all(Array.from({ length: 16 }, client));
    };
    // The linear memory stays as it is, to the byte; the process' own moves with the garbage that is yet to be collected.
    const memory = async () => Number((await send("/memory", { method: "GET" })).body);
    await load(0, 10_000);
    const linear = await memory();
    const before = memoryOf(pid);
    await load(10_000, 20_000);
    const grown = memoryOf(pid) - before;
    strictEqual(await memory(), linear);
    console.log(
      `        ${linear / 1024} KB of linear memory; ${before.toFixed(0)} MB in all, ${grown.toFixed(0)} MB more later`,
    );
    ok(grown < 80, `the process grew by ${grown} MB, 8 KB a request`);
    agent.destroy();
  });
}

/** A page of the browser example, with a script more that reports what it shows. */
async function page(browser, name) {
  const folder = await buildBrowser();
  writeFileSync(
    join(folder, "report.js"),
    `const address = new URL(location.href).searchParams.get("report");
const timer = setInterval(() => {
  const text = document.querySelector("#result").textContent;
  if (text.startsWith("computing")) return;
  clearInterval(timer);
  fetch(address, { method: "POST", body: JSON.stringify(text) });
}, 20);
`,
  );
  const html = `${readFileSync(join(folder, name), "utf8")}<script type="module" src="report.js"></script>`;
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
