// Threads, as each bundler builds them: whether they are there, and whether they give what one gives.

import { LayerNorm, Tensor } from "layernorm-wasm";
import { createThreadedRuntime } from "layernorm-wasm/threads";
import { report } from "./report.js";

export async function compute(options) {
  let refusal = "";
  try {
    await (await createThreadedRuntime({ threads: 2, ...options })).close();
  } catch (error) {
    refusal = error.message;
  }
  const runtime = await createThreadedRuntime({ threads: 2, fallback: "single", ...options });
  const [rows, cols] = [200, 300];
  const values = Float32Array.from({ length: rows * cols }, (_, i) => ((i * 7919) % 1000) / 1000);
  const x = new Tensor([rows, cols], values, { runtime });
  const module = new LayerNorm(cols, { runtime });
  const y = await module.forwardAsync(x);
  const dx = module.backward(y);
  const single = new LayerNorm(cols);
  const expected = single.forward(values);
  const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  const { threads, fallbackReason } = runtime;
  const shared = !(x.data.buffer instanceof ArrayBuffer);
  const right = same(y.data, expected) && same(dx.data, single.backward(expected));
  await runtime.close();
  return { threads, shared, right, refusal, fallbackReason };
}

report(() => compute(globalThis.threadsOptions));
