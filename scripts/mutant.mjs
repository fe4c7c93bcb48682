// A worker of mutate.mjs: makes the calls of test/borders.ts and test/digest.ts with a build of the kernels, and says how
// its results differ from those of the first build that it was given.

import { parentPort } from "node:worker_threads";
import { register } from "tsx/esm/api";

register();
const { allCalls, made, sizesOf, wrong } = await import("../test/borders.ts");
const { results } = await import("../test/digest.ts");

const calls = [...allCalls()];
const pages = new WebAssembly.Memory({ initial: 1200 });
// Of the first hundred calls with other bits it is asked whether they are beyond their limits, too.
const ASKED = 100;

/**
 * What a build makes, part by part, and the call that made it if there is one.
 * @returns {Generator<[part: Uint32Array | Float32Array, call?: object, made?: object]>}
 */
function* partsOf(module) {
  const instantiate = (memory) => ({ kernels: new WebAssembly.Instance(module, { env: { memory } }).exports, memory });
  const machine = instantiate(new WebAssembly.Memory({ initial: 4 }));
  yield [sizesOf(machine)];
  for (const call of calls) {
    const all = made(machine, call);
    yield [Float32Array.of(all.stray), call, all];
    for (const part of Object.values(all.results)) yield [part, call, all];
  }
  let next = 16;
  const allocate = (bytes) => {
    next += bytes;
    return next - bytes;
  };
  for (const part of results({ ...instantiate(pages), allocate })) yield [part];
}

const bytesOf = (part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength);
/** @type {Buffer[]} */
let expected = [];

/** "limits", "bits" or "". */
function differenceOf(module) {
  let found = "";
  let [index, asked] = [0, 0];
  for (const [part, call, all] of partsOf(module)) {
    if (bytesOf(part).equals(expected[index++])) continue;
    found = "bits";
    if (!call || asked === ASKED) return found;
    if (Object.keys(wrong(call, all)).length > 0) return "limits";
    asked++;
  }
  return found;
}

parentPort.on("message", (bytes) => {
  try {
    const module = new WebAssembly.Module(bytes);
    if (expected.length > 0) parentPort.postMessage(differenceOf(module));
    else {
      expected = Array.from(partsOf(module), ([part]) => bytesOf(part));
      parentPort.postMessage("");
    }
  } catch {
    parentPort.postMessage("limits"); // a trap
  }
});
