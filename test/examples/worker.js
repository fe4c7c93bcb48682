// The edge worker of the example, which tells the size of its memory as well.

import { Runtime } from "layernorm-wasm";
import worker from "../../examples/edge-worker/worker.js";

export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/memory") return Response.json(Runtime.default.memory.buffer.byteLength);
    return worker.fetch(request);
  },
};
