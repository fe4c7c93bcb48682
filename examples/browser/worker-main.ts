// The page with the model in a Web Worker: x goes there and y comes back without a copy.

import { compare, loadModel } from "./model.js";

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const { x, y } = await loadModel();

worker.addEventListener("message", ({ data }: MessageEvent<ArrayBuffer>) => {
  (document.querySelector("#result") as Element).textContent =
    `${compare(new Float32Array(data), y)}; x was ${x.length === 0 ? "transferred" : "copied"}`;
});
worker.postMessage(x.buffer, [x.buffer]);
