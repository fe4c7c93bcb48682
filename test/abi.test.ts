import { describe, expect, test } from "vitest";
import { BUILDS, moduleOf, readBuild } from "./builds.js";

/** The numbers of the sections of a WebAssembly binary. */
function sections(bytes: Uint8Array): number[] {
  const found: number[] = [];
  for (let at = 8; at < bytes.length; ) {
    found.push(bytes[at++]!);
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      size |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    at += size;
  }
  return found;
}

// From the WebAssembly core specification, 5.5.2.
const OWN = { table: 4, memory: 5, global: 6, start: 8, element: 9, data: 11, dataCount: 12 };

describe("the kernels' release binary", () => {
  const bytes = readBuild("release");
  const module = new WebAssembly.Module(bytes);

  test("leaves no mark on the memory it is linked to: no data, start, global, table or memory of its own", () => {
    expect(sections(bytes).filter((id) => Object.values(OWN).includes(id))).toEqual([]);
  });

  test("has code, so that the sections are read right", () => {
    expect(sections(bytes)).toEqual(expect.arrayContaining([1, 2, 3, 7, 10]));
  });

  test("imports env.memory and nothing else", () => {
    expect(WebAssembly.Module.imports(module)).toEqual([{ module: "env", name: "memory", kind: "memory" }]);
  });
});

test.each(BUILDS)("the %s build exports the kernels and nothing else", (build) => {
  const exports = WebAssembly.Module.exports(moduleOf(build));
  const ofNorm = ["Backward", "BackwardRows", "BackwardWorkspace", "Forward"];
  const names = ["layerNorm", "rmsNorm"].flatMap((norm) => ofNorm.map((name) => `${norm}${name}`));
  const all = ["addSums", ...names, "sumsChunk", "sumsGroup", "sumsWorkspace"];
  expect(exports.map(({ name, kind }) => `${kind} ${name}`).sort()).toEqual(all.map((name) => `function ${name}`));
});

test("the heap's binary imports env.memory and exports allocate and free", () => {
  const module = moduleOf("heap");
  expect(WebAssembly.Module.imports(module)).toEqual([{ module: "env", name: "memory", kind: "memory" }]);
  expect(WebAssembly.Module.exports(module).map(({ name }) => name)).toEqual(["allocate", "free"]);
});
