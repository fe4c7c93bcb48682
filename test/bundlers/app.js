// What each bundler builds: forward and backward on known numbers, in the copying and the sharing way, reported to the server.

import { LayerNorm, layerNorm, Runtime, Tensor } from "layernorm-wasm";
import { report } from "./report.js";

export function compute() {
  const ln = new LayerNorm(2, { eps: 0 });
  const y = ln.forward(new Float32Array([3, 5, -1, -5]));
  const dx = ln.backward(new Float32Array([1, 2, 3, 4]));
  const t = new Tensor([1, 4], [1, 1, 3, 3]);
  return {
    y: [...y],
    dx: [...dx],
    dweight: [...(ln.weight?.grad ?? [])],
    tensor: [...layerNorm(t, 4, null, null, 0).data],
    bytes: Runtime.default.memory.buffer.byteLength,
  };
}

report(compute);
