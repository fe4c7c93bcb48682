// What the documents name exists.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md"];
if (existsSync(join(root, "docs"))) {
  for (const name of readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })) {
    if (name.endsWith(".md")) DOCUMENTS.push(`docs/${name}`);
  }
}

const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

describe.each(DOCUMENTS)("%s", (name) => {
  const text = readFileSync(join(root, name), "utf8");
  const all = (pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1] as string);

  test("names only npm scripts that exist", () => {
    const named = all(/npm run (?:--silent )?([\w:-]+)/g);
    expect(named.filter((script) => !Object.hasOwn(scripts, script))).toEqual([]);
  });

  test("names only files that exist", () => {
    const paths = all(/(?<![\w/.-])((?:assembly|bench|docs|examples|playground|scripts|src|test)\/[\w./*-]*)/g);
    const missing = paths.filter((path) => {
      const file = path.replace(/[.,:]+$/, "");
      if (!file.includes("*")) return !existsSync(join(root, file));
      const pattern = new RegExp(`^${file.split("/").pop()?.replaceAll(".", "\\.").replaceAll("*", ".*")}$`);
      return !readdirSync(join(root, dirname(file))).some((name) => pattern.test(name));
    });
    expect(missing).toEqual([]);
  });

  test("links only to files that exist", () => {
    const links = all(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g);
    expect(links.filter((link) => !existsSync(join(root, dirname(name), link)))).toEqual([]);
  });

  test("has no line numbers of sources, which move", () => {
    expect(all(/([\w-]+\.(?:ts|mjs|js):\d+)/g)).toEqual([]);
  });
});
