// Builds and serves an example: node examples/serve.mjs browser | edge | minilm [FOLDER]
//
//   browser   pages at http://localhost:8080/ and http://localhost:8080/worker.html
//   edge      a worker in workerd at http://localhost:8787/layernorm
//   minilm    a page at http://localhost:8080/; its model from a folder, from build/minilm or else from its hub

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { root } from "../test/packed.mjs";
import { serveWorker } from "../test/workerd.mjs";

const here = join(root, "examples");
const common = { bundle: true, format: "esm", logLevel: "error" };

/** The pages of the browser example with their scripts; the folder. */
export async function buildBrowser() {
  const outdir = join(root, "build/examples/browser");
  mkdirSync(outdir, { recursive: true });
  const pages = join(here, "browser");
  const entryPoints = ["main", "worker", "worker-main"].map((name) => join(pages, `${name}.ts`));
  await build({ ...common, entryPoints, outdir, target: "es2022" });
  for (const name of ["index.html", "worker.html", "block.safetensors"]) cpSync(join(pages, name), join(outdir, name));
  return outdir;
}

/** The page of the example of sentence embeddings, with a model if there is one; the folder. */
export async function buildMinilm(model = join(root, "build/minilm")) {
  const outdir = join(root, "build/examples/minilm");
  const page = join(here, "minilm/page");
  rmSync(outdir, { recursive: true, force: true });
  // Not minified: TensorFlow.js starts its threads with the text of a function, which minified no longer runs.
  await build({ ...common, entryPoints: [join(page, "main.js")], outdir, target: "es2022" });
  for (const name of ["index.html", "style.css"]) cpSync(join(page, name), join(outdir, name));
  const binaries = join(root, "node_modules/@tensorflow/tfjs-backend-wasm/wasm-out");
  cpSync(binaries, outdir, { recursive: true, filter: (path) => path === binaries || path.endsWith(".wasm") });
  if (existsSync(model)) symlinkSync(resolve(model), join(outdir, "model"), "junction");
  return outdir;
}

/** The edge worker and its modules, the main one first; their folder. */
export async function buildEdge(entry = join(here, "edge-worker/worker.js")) {
  const outdir = join(root, "build/examples/edge");
  const loader = { ".wasm": "copy" };
  await build({ ...common, entryPoints: [entry], outdir, conditions: ["workerd"], loader, assetNames: "[name]" });
  return { folder: outdir, modules: ["worker.js", "layernorm.wasm", "heap.wasm"] };
}

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit());
  if (process.argv[2] === "edge") {
    const { folder, modules } = await buildEdge();
    await serveWorker(
      folder,
      modules,
      (address) => {
        console.log(`POST ${address}/layernorm`);
        return new Promise(() => {});
      },
      8787,
    );
  } else {
    const [name, model] = process.argv.slice(2);
    const folder = name === "minilm" ? await buildMinilm(model) : await buildBrowser();
    const pages = name === "minilm" ? ["/"] : ["/", "/worker.html"];
    createServer(({ url }, response) => {
      const path = url.split("?")[0].replace(/\/$/, "/index.html");
      try {
        const content = readFileSync(join(folder, normalize(path)));
        response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(content);
      } catch {
        response.writeHead(404).end();
      }
    }).listen(8080, "localhost", () => console.log(pages.map((page) => `http://localhost:8080${page}`).join(" and ")));
  }
}
