// The JavaScript of the package, as it is built.

import { readdirSync, readFileSync } from "node:fs";
import { transform } from "esbuild";
import { describe, expect, test } from "vitest";
import * as unshared from "../src/binaries.js";
import * as shared from "../src/binaries.shared.js";
import { inlined } from "../src/compile.js";
import { readBuild } from "./builds.js";

const dist = new URL("../dist/", import.meta.url);
const scripts = readdirSync(dist).filter((name) => name.endsWith(".js"));
const OLDEST = ["chrome91", "firefox90", "safari16.4", "node20.19"];

test("there are seven scripts", () => {
  expect(scripts.length).toBe(7);
});

describe.each(scripts)("dist/%s", (name) => {
  const script = readFileSync(new URL(name, dist), "utf8");

  test("has only syntax that the oldest engines know", async () => {
    const { code } = await transform(script, { target: "esnext" });
    expect((await transform(script, { target: OLDEST })).code === code).toBe(true);
  });

  test("has private fields as they are, which are faster than the maps that older syntax needs", () => {
    expect(script).not.toMatch(/__private/);
  });
});

test("the texts of the modules stand for all of their bytes", () => {
  const texts = { release: unshared.kernels, heap: unshared.heap, shared: shared.kernels, "shared-heap": shared.heap };
  for (const [name, text] of Object.entries(texts)) {
    expect(Buffer.compare(inlined(text) as Uint8Array, readBuild(name))).toBe(0);
  }
});
