// The code blocks of the documents, as programs that run as they stand.
//
// The word after the language of a block says what it is:
//
//   js, ts        runs after the block that is marked as the prelude of its document, if there is one
//   standalone    runs alone
//   prelude       goes before the others of its document
//   edge          a worker for an edge host
//   html          a page
//   a path        an excerpt of that file
//
// Where a block prints, the numbers in the comment on that line are what it prints.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const GUIDES = "docs/guides";

/**
 * All documents, from the root of the repository.
 * @param {string} root
 */
export function documentsOf(root) {
  const guides = readdirSync(join(root, GUIDES)).filter((name) => name.endsWith(".md"));
  return ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "bench/README.md", "docs/index.md"].concat(
    guides.map((name) => `${GUIDES}/${name}`),
  );
}

/**
 * The sources whose comments have examples.
 * @param {string} root
 */
export function sourcesOf(root) {
  const files = readdirSync(join(root, "src"), { recursive: true }).map((name) => `src/${name}`);
  return files.filter((name) => name.endsWith(".ts") && readFileSync(join(root, name), "utf8").includes("@example"));
}

/**
 * The blocks of a document, or of the comments of a source.
 * @param {string} root
 * @param {string} name
 */
export function snippetsOf(root, name) {
  const text = readFileSync(join(root, name), "utf8").replace(/^ \* ?/gm, name.endsWith(".ts") ? "" : "$&");
  const blocks = [...text.matchAll(/^```(\w+)([^\n]*)\n(.*?)^```$/gms)].map(([, language, mark, code]) => ({
    language,
    mark: mark.trim(),
    code,
  }));
  const before = blocks.find(({ mark }) => mark === "prelude")?.code ?? "";
  return blocks.map((block) => {
    const prelude = block.mark === "" && /^[jt]s$/.test(block.language) ? before : "";
    return { ...block, title: block.code.split("\n")[0], code: prelude + block.code };
  });
}
