// npm run reproduce -- 1.2.3: builds a version from its tag, in a fresh clone, and compares each file with the package on npm.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const { name, version: current } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const version = process.argv[2] ?? current;
const folder = mkdtempSync(join(tmpdir(), "reproduce-"));
const run = (cwd, program, ...args) =>
  execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

/** The SHA-256 of each file of a package, by name. */
function unpacked(tarball) {
  const to = `${tarball}.files`;
  mkdirSync(to);
  run(folder, "tar", "-xzf", tarball, "-C", to);
  const files = readdirSync(to, { recursive: true }).filter((file) => statSync(join(to, file)).isFile());
  const sum = (file) =>
    createHash("sha256")
      .update(readFileSync(join(to, file)))
      .digest("hex");
  return new Map(files.sort().map((file) => [file.replace("package/", ""), sum(file)]));
}

/** Packs what is at `from`, and reads it. */
function packed(cwd, from, to) {
  mkdirSync(join(folder, to));
  const [{ filename }] = JSON.parse(run(cwd, "npm", "pack", from, "--json", "--pack-destination", join(folder, to)));
  return unpacked(join(folder, to, filename));
}

try {
  const published = packed(folder, `${name}@${version}`, "published");
  const source = join(folder, "source");
  run(folder, "git", "-c", "advice.detachedHead=false", "clone", "-q", "--branch", `v${version}`, root, source);
  run(source, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund");
  run(source, "npm", "run", "--silent", "build");
  const built = packed(source, ".", "built");
  const files = [...new Set([...published.keys(), ...built.keys()])];
  const different = files.filter((file) => published.get(file) !== built.get(file));
  for (const file of different) {
    console.log(`${file}: ${published.get(file) ?? "missing"} on npm, ${built.get(file) ?? "missing"} as built`);
  }
  for (const file of files.filter((file) => file.endsWith(".wasm"))) console.log(`${built.get(file)}  ${file}`);
  console.log(`${name}@${version}: ${files.length - different.length} of ${files.length} files have the same bytes`);
  if (different.length > 0) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
