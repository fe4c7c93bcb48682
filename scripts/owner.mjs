// npm run owner -- NAME: puts the owner of the repository in place of OWNER, in all addresses of GitHub and its pages.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const ADDRESSES = /(?<=\/\/github\.com\/)OWNER(?=\/)|(?<=\/\/)OWNER(?=\.github\.io\/)/g;

/** The files that have such addresses without a real owner. */
export function filesWithoutOwner() {
  const files = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" }).split("\0").filter(Boolean);
  return files.filter((file) => readFileSync(root + file, "latin1").search(ADDRESSES) >= 0);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [owner = ""] = process.argv.slice(2);
  if (!/^[a-z\d]+(-[a-z\d]+)*$/i.test(owner)) throw new TypeError(`"${owner}" is no name of an owner on GitHub`);
  for (const file of filesWithoutOwner()) {
    writeFileSync(root + file, readFileSync(root + file, "utf8").replace(ADDRESSES, owner));
    console.log(file);
  }
}
