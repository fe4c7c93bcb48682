// npm run docs: the guides and the reference, as pages in docs/dist.

import { readFileSync } from "node:fs";
import { Converter } from "typedoc";

const { homepage, repository } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

/** The title of a guide is its first heading, not its file's name. */
function titles(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_, page) => {
    const [, title] = /^# (.*)/.exec(page.content[0].text) ?? [];
    if (!title) throw new Error(`${page.name}.md does not begin with a heading`);
    page.name = title;
  });
}

/** @type {import("typedoc").TypeDocOptions} */
export default {
  name: "layernorm-wasm",
  entryPoints: ["../src/index.ts", "../src/threads/index.ts", "../src/tfjs/index.ts"],
  tsconfig: "tsconfig.json",
  readme: "index.md",
  projectDocuments: ["guides/*.md"],
  out: "dist",
  customCss: "style.css",
  navigationLinks: {
    Playground: `${homepage}playground/`,
    Repository: repository.url.replace(/^git\+(.*)\.git$/, "$1"),
  },
  plugin: [titles],
  includeVersion: true,
  highlightLanguages: ["html", "javascript", "shellscript", "typescript", "wasm"],
  disableSources: true,
  excludeInternal: true,
  excludePrivate: true,
  excludeProtected: true,
  // What is said of them in words is shorter than the conditional types that they are.
  intentionallyNotExported: ["ParameterUnless", "WithBoth", "WithWeight"],
  treatWarningsAsErrors: true,
  validation: { notExported: true, invalidLink: true, invalidPath: true, notDocumented: false },
};
