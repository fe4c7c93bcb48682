// What the release workflow asks for:
//
//   npm run release:check   the tag is the version, the changelog has it, and all addresses have their owner
//   npm run release:notes   prints what the changelog says of the version, and the SHA-256 of each binary

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { filesWithoutOwner } from "./owner.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { version, repository } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
const changelog = readFileSync(`${root}CHANGELOG.md`, "utf8");
/** A version's section, without its heading. */
const [, section] = changelog.split(`\n## ${version}\n`);
const changes = section?.split("\n## ")[0].trim();

const COMMANDS = {
  check() {
    const { GITHUB_REF_NAME: tag, GITHUB_REPOSITORY: name } = process.env;
    const problems = [
      tag !== `v${version}` && `the tag is ${tag}, expected v${version}`,
      !changes && `CHANGELOG.md has no heading "## ${version}" with text below it`,
      repository.url !== `git+https://github.com/${name}.git` && `package.json has ${repository.url}, expected ${name}`,
      ...filesWithoutOwner().map((file) => `${file} has OWNER in an address: npm run owner -- NAME`),
    ].filter(Boolean);
    for (const problem of problems) console.error(problem);
    process.exitCode = problems.length > 0 ? 1 : 0;
  },

  notes() {
    const sums = readdirSync(`${root}dist`)
      .filter((file) => file.endsWith(".wasm"))
      .map(
        (file) =>
          `${createHash("sha256")
            .update(readFileSync(`${root}dist/${file}`))
            .digest("hex")}  ${file}`,
      );
    const check = `\`npm run reproduce -- ${version}\` builds this version again and compares it with the package on npm.`;
    console.log([changes, "SHA-256 of the binaries:", `\`\`\`text\n${sums.join("\n")}\n\`\`\``, check].join("\n\n"));
  },
};

COMMANDS[process.argv[2]]();
