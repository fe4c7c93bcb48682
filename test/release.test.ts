// The release: its workflow, and the scripts that it and a new owner run.

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const workflows = readdirSync(join(root, ".github/workflows")).map((name) =>
  readFileSync(join(root, ".github/workflows", name), "utf8"),
);
const all = (pattern: RegExp) =>
  workflows.flatMap((text) => [...text.matchAll(pattern)].map(([, found]) => found as string));

test("actions are named by their commits", () => {
  const actions = all(/uses: (.*)/g);
  expect(actions.length).toBeGreaterThan(5);
  expect(actions.filter((action) => !/^[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(action))).toEqual([]);
});

test("workflows run only scripts that exist", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: object };
  const named = all(/npm run (?:--silent )?([\w:-]+)/g);
  expect(named).toContain("release:check");
  expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
});

const copy = mkdtempSync(join(tmpdir(), "layernorm-release-"));
afterAll(() => rmSync(copy, { recursive: true, force: true }));

test("a version is released once it has its tag, its changes and its owner", () => {
  for (const path of ["scripts", "package.json", "CHANGELOG.md", "README.md", ".github"]) {
    cpSync(join(root, path), join(copy, path), { recursive: true });
  }
  const run = (program: string, ...args: string[]) => execFileSync(program, args, { cwd: copy, encoding: "utf8" });
  run("git", "init", "-q");
  run("git", "add", ".");
  const manifest = JSON.parse(readFileSync(join(copy, "package.json"), "utf8")) as { version: string };
  manifest.version = "98.7.6";
  writeFileSync(join(copy, "package.json"), JSON.stringify(manifest, null, 2));

  const problems = (tag: string) => {
    const env = { ...process.env, GITHUB_REF_NAME: tag, GITHUB_REPOSITORY: "somebody/layernorm-wasm" };
    const { stderr, status } = spawnSync(process.execPath, ["scripts/release.mjs", "check"], { cwd: copy, env });
    const lines = String(stderr).trim().split("\n").filter(Boolean);
    expect(status).toBe(lines.length > 0 ? 1 : 0);
    return lines;
  };
  const unready = problems("v1.2.3").join("\n");
  for (const words of ["expected v98.7.6", "CHANGELOG.md has no", "package.json has git", "README.md has OWNER"]) {
    expect(unready).toContain(words);
  }

  expect(run(process.execPath, "scripts/owner.mjs", "somebody")).toContain("README.md");
  writeFileSync(join(copy, "CHANGELOG.md"), "# Changelog\n\n## 98.7.6\n\nFaster.\n\n## 0.1.0\n\nFirst.\n");
  expect(problems("v98.7.6")).toEqual([]);
  expect(readFileSync(join(copy, "README.md"), "utf8")).toContain("https://somebody.github.io/layernorm-wasm/");

  cpSync(join(root, "dist"), join(copy, "dist"), { recursive: true });
  const notes = run(process.execPath, "scripts/release.mjs", "notes");
  expect(notes).toMatch(/^Faster\.\n/);
  expect(notes).not.toContain("First.");
  for (const name of ["heap.wasm", "layernorm.wasm"]) {
    const hash = createHash("sha256").update(readFileSync(join(root, "dist", name)));
    expect(notes).toContain(`${hash.digest("hex")}  ${name}`);
  }
});
