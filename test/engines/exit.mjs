// Leaves threads idle: the process has to end all the same, after a call that it waits for.

import { LayerNorm } from "layernorm-wasm";
import { createThreadedRuntime } from "layernorm-wasm/threads";

const runtime = await createThreadedRuntime({ threads: 3 });
const y = await new LayerNorm(300, { runtime }).forwardAsync(new Float32Array(300 * 1000));
console.log(`${runtime.threads} threads, ${y.length} elements`);
