// npm run check:package: what a page downloads, minified. The README has these sizes. worker.js of the threads is 1 kB more.

const modifyEsbuildConfig = (config) => ({ ...config, format: "esm" });
const threads = { "dist/index.js": "*", "dist/threads.js": "{ createThreadedRuntime }" };

export default [
  { name: "layernorm-wasm, brotli", path: "dist/index.js", limit: "16 kB" },
  { name: "layernorm-wasm, gzip", path: "dist/index.js", limit: "18.2 kB", gzip: true },
  { name: "with threads, brotli", import: threads, limit: "20.1 kB" },
  { name: "with threads, gzip", import: threads, limit: "31 kB", gzip: true },
].map((entry) => ({ ...entry, modifyEsbuildConfig }));
