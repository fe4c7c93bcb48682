// The package as its users get it: packed, unpacked, and put in the node_modules of a folder.

import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "..");

/** Makes `folder` anew, with the packed package installed in it. */
export function install(folder) {
  rmSync(folder, { recursive: true, force: true });
  const modules = join(folder, "node_modules");
  const installed = join(modules, "layernorm-wasm");
  mkdirSync(installed, { recursive: true });
  const pack = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
  const [{ filename }] = JSON.parse(execFileSync("npm", pack, { cwd: root, stdio: ["ignore", "pipe", "ignore"] }));
  execFileSync("tar", ["-xzf", join(folder, filename), "-C", installed, "--strip-components=1"]);
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ type: "module", dependencies: { "layernorm-wasm": "*" } }),
  );
}
