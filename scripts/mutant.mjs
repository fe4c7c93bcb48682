// A worker of mutate.mjs: makes the pinned calls with a build of the kernels, and says where its results differ from those
// of the first build that it was given.

import { parentPort } from "node:worker_threads";
import { register } from "tsx/esm/api";

register();
const { allCalls, made, sizesOf, wrong } = await import("../test/borders.ts");
const { results } = await import("../test/digest.ts");

const calls = [...allCalls()];
const pages = new WebAssembly.Memory({ initial: 1200 });
/** What is right: the image of each call, then the parts of the golden digest. @type {Uint32Array[]} */
const expected = [];

/** Each part of what a build makes, and the call if there is one. */
function* partsOf(module) {
  const instantiate = (memory) => ({ kernels: new WebAssembly.Instance(module, { env: { memory } }).exports, memory });
  const machine = instantiate(new WebAssembly.Memory({ initial: 4 }));
  yield [sizesOf(machine)];
  for (const call of calls) {
    const all = made(machine, call);
    yield [Int32Array.of(all.stray), call, all];
    for (const part of Object.values(all.results)) yield [part, call, all];
  }
  let next = 16;
  const allocate = (bytes) => {
    next += bytes;
    return next - bytes;
  };
  for (const part of results({ ...instantiate(pages), allocate })) yield [part];
}

const equal = (a, b) => a.length === b.length && Buffer.compare(bufferOf(a), bufferOf(b)) === 0;
const bufferOf = (a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

parentPort.on("message", ({ bytes, first }) => {
  let found = "";
  try {
    let [index, looked] = [0, 0];
    for (const [part, call, all] of partsOf(new WebAssembly.Module(bytes))) {
      const before = expected[index++];
      if (first) expected.push(part);
      else if (!equal(part, before)) {
        // Bits that differ may still be right: of some hundred calls this is asked.
        const isWrong = call && looked++ < 100 && Object.keys(wrong(call, all)).length > 0;
        found = isWrong ? "limits" : found || (call ? "bits" : "golden digest");
        if (isWrong) break;
      }
    }
  } catch (error) {
    found = `an exception: ${error.message}`;
  }
  parentPort.postMessage(found);
});
parentPort.postMessage("ready");
