// The last step of npm run docs: llms.txt, the list of the guides for programs that read them, and beside the pages the
// guides as they are.

import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const docs = fileURLToPath(new URL(".", import.meta.url));
const { name, description, homepage } = JSON.parse(readFileSync(`${docs}../package.json`, "utf8"));

cpSync(`${docs}guides`, `${docs}dist/guides`, { recursive: true });
const [, list] = /^\*\*Guides\*\*\n\n(.*?)\n\n/ms.exec(readFileSync(`${docs}index.md`, "utf8"));
const guides = list.replace(/\]\((guides\/[^)]*)\)/g, (_, path) => {
  if (!existsSync(`${docs}dist/${path}`)) throw new Error(`index.md links to ${path}, which is not there`);
  return `](${homepage}${path})`;
});
writeFileSync(`${docs}dist/llms.txt`, `# ${name}\n\n> ${description}\n\n## Guides\n\n${guides}\n`);
