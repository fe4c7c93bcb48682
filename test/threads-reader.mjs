// A worker of a user's own: adds 1 to each element of the tensors whose handles it is posted, and answers with their shapes.

import { LayerNorm, Tensor } from "layernorm-wasm";

const port = "postMessage" in globalThis ? globalThis : process.getBuiltinModule("node:worker_threads").parentPort;

port.addEventListener("message", ({ data: handle }) => {
  const tensor = Tensor.from(handle);
  const { data } = tensor;
  for (let i = 0; i < data.length; i++) data[i] += 1;
  let refusal = "";
  try {
    new LayerNorm(3, { runtime: tensor.runtime });
  } catch (error) {
    refusal = error.message;
  }
  port.postMessage({ shape: tensor.shape, refusal });
});
port.start?.();
