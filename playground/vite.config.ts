// The playground's pages. README's picture of it, docs/playground.png, is a window of 1200 by 890:
//
//   chromium --headless=new --hide-scrollbars --window-size=1200,890 --virtual-time-budget=5000 \
//     --screenshot=page.png http://localhost:5173/
//   pngquant --nofs --output docs/playground.png 64 page.png    a third of the size

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { homepage, repository } from "../package.json";
import { ISOLATED } from "../test/browsers.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./", // any folder of any host
  resolve: {
    alias: { "layernorm-wasm/threads": `${root}dist/threads.js`, "layernorm-wasm": `${root}dist/index.js` },
  },
  plugins: [
    {
      name: "links",
      transformIndexHtml: (html) =>
        html
          .replace("%DOCUMENTATION%", homepage)
          .replace("%REPOSITORY%", repository.url.replace(/^git\+(.*)\.git$/, "$1")),
    },
  ],
  worker: { format: "es" },
  build: { target: "es2022", modulePreload: false, chunkSizeWarningLimit: 1000, license: { fileName: "licenses.md" } },
  server: { headers: ISOLATED, fs: { allow: [root] } },
  preview: { headers: ISOLATED },
});
