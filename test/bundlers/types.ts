// Compiled against the packed types, without the DOM's: what a user of TypeScript would write.

import {
  type Gradients,
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Runtime,
  type RuntimeOptions,
  Tensor,
} from "layernorm-wasm";
import { createThreadedRuntime, type ThreadedRuntime } from "layernorm-wasm/threads";

const ln = new LayerNorm([2, 3], { eps: 1e-6, bias: false });
let x: Float32Array<ArrayBuffer> = new Float32Array(12);
x = ln.forward(x);
const dx: Float32Array<ArrayBuffer> = ln.backward(x);
for (const p of ln.parameters()) for (let i = 0; i < p.data.length; i++) p.data[i]! -= 0.1 * p.grad[i]!;
{
  using t = new Tensor([4, 2, 3], dx);
  using y = ln.forward(t);
  const shape: readonly number[] = y.shape;
  void shape;
}
const { y, mean, rstd } = layerNormWithStats(x, [2, 3]);
const gradients: Gradients<Float32Array> = layerNormBackward(y, x, mean, rstd);
void gradients.dweight;
const dict = ln.stateDict();
const { missingKeys }: { missingKeys: string[] } = ln.loadStateDict(dict, { strict: false });
void missingKeys;
void layerNorm(x, 3);
const runtime: Runtime = Runtime.create();
const later: Promise<Runtime> = Runtime.create({ module: Promise.resolve(new Uint8Array(8)) });
void later;
const withoutBlocking: Promise<Runtime> = Runtime.create({ async: true, memory: runtime.memory });
void withoutBlocking;
const given: RuntimeOptions = { memory: runtime.memory };
const atOnce: Runtime = Runtime.create({ ...given, async: false });
const sameAsEver: Runtime = Runtime.create(given);
declare const flag: boolean;
const either: Runtime | Promise<Runtime> = Runtime.create({ async: flag });
// @ts-expect-error a promise, perhaps
const notYet: Runtime = Runtime.create({ async: flag });
void [atOnce, sameAsEver, either, notYet];
new LayerNorm(3, { runtime }).dispose();
async function threads(): Promise<void> {
  const runtime: ThreadedRuntime = await createThreadedRuntime({ threads: 2, fallback: "single" });
  const ln = new LayerNorm(3, { runtime });
  const z: Float32Array<ArrayBuffer> = await ln.forwardAsync(x);
  const t: Tensor = await ln.backwardAsync(Tensor.from(new Tensor([4, 3], z, { runtime }).handle));
  void t;
  const reason: string | undefined = runtime.fallbackReason;
  void reason;
  await runtime.close();
  for (const worker of ["/worker.js", { href: "/worker.js" }, () => ({ postMessage() {}, terminate() {} })]) {
    void createThreadedRuntime({ worker });
  }
  // @ts-expect-error not a place
  void createThreadedRuntime({ worker: 5 });
}
void threads;
// @ts-expect-error no such option
new LayerNorm(3, { epsilon: 1 });
// @ts-expect-error not an array of floats
ln.forward("x");
