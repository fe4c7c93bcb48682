// The Web Worker: the model lives here. Each message is the buffer of an x, and is answered with that of y, both transferred.

import { loadModel } from "./model.js";

const model = loadModel();

addEventListener("message", async ({ data }: MessageEvent<ArrayBuffer>) => {
  const { block } = await model;
  const y = block.forward(new Float32Array(data));
  postMessage(y.buffer, { transfer: [y.buffer] });
});
