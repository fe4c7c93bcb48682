// Browsers as programs that open a page, and the server that the page posts its report to.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const MINI_BROWSER = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser";
const flags = (names) => names.split(" ").map((name) => `--${name}`);

/** An old Chromium of test/engines/chromium, a headless program that its package holds compressed. */
function oldChromium(version) {
  const binary = join(import.meta.dirname, `engines/chromium/node_modules/chromium${version}/bin/chromium.br`);
  const program = binary.replace(".br", "");
  const command = (profile) => {
    if (!existsSync(program)) writeFileSync(program, brotliDecompressSync(readFileSync(binary)), { mode: 0o755 });
    // Without a port for debugging it prints the page and ends.
    const port = "remote-debugging-port=0";
    const names = `headless no-sandbox disable-gpu disable-software-rasterizer disable-dev-shm-usage ${port}`;
    return [program, ...flags(`${names} user-data-dir=${profile}`)];
  };
  return { binary, command };
}

const QUIET = "no-first-run disable-quic disable-background-networking disable-component-update disable-sync";
export const BROWSERS = {
  chromium: {
    binary: "/usr/bin/chromium",
    packages: "chromium",
    command: (profile) => [
      "/usr/bin/chromium",
      ...flags(`headless=new no-sandbox disable-gpu ${QUIET} user-data-dir=${profile}`),
    ],
  },
  firefox: {
    binary: "/usr/bin/firefox-esr",
    packages: "firefox-esr",
    command: (profile) => ["/usr/bin/firefox-esr", "--headless", "--no-remote", "--profile", profile],
  },
  webkit: {
    binary: MINI_BROWSER,
    packages: "webkit2gtk-driver xvfb xauth",
    command: () => ["xvfb-run", "-a", MINI_BROWSER],
  },
  chromium92: oldChromium(92),
  chromium107: oldChromium(107),
};

/** The headers of a page that may share memory with threads. */
export const ISOLATED = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

const textOf = async (request) => Buffer.concat(await request.toArray()).toString();

/**
 * Opens a page and waits for what it posts to /report.
 * @param browser a name of BROWSERS
 * @param folder served as it is
 * @param options `page`: the path to open, or a whole address elsewhere, told where to report by `?report=`; `html`: the page at
 * that path; `headers` of every response, `pageHeaders` of `html` alone; `timeout` in milliseconds
 */
export async function openPage(browser, folder, options = {}) {
  const { page = "/", html, headers = {}, pageHeaders = {}, timeout = 60_000 } = options;
  const profile = mkdtempSync(join(tmpdir(), "layernorm-page-"));
  let at = "the start";
  let child;
  let timer;
  const server = createServer();
  try {
    return await new Promise((resolve, reject) => {
      server.on("request", async (request, response) => {
        const { pathname } = new URL(request.url, "http://localhost");
        if (request.method === "POST") {
          const text = await textOf(request);
          response.end();
          if (pathname === "/report") resolve(JSON.parse(text));
          else at = text;
          return;
        }
        const path = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
        const own = html && pathname === new URL(page, "http://localhost").pathname;
        try {
          const content = own ? html : readFileSync(join(folder, normalize(path)));
          const type = TYPES[extname(path)] ?? "application/octet-stream";
          response.writeHead(200, { "content-type": type, ...headers, ...(own && pageHeaders) }).end(content);
        } catch {
          response.writeHead(404).end();
        }
      });
      server.listen(0, "127.0.0.1", () => {
        const origin = `http://127.0.0.1:${server.address().port}`;
        const url = new URL(page, origin);
        url.searchParams.set("report", `${origin}/report`);
        const [command, ...args] = BROWSERS[browser].command(profile);
        // As in Safari: WebKitGTK itself has shared memory in every page or in none.
        const shares = { ...headers, ...pageHeaders }["cross-origin-opener-policy"] ? "1" : "0";
        const env = { ...process.env, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1", JSC_useSharedArrayBuffer: shares };
        child = spawn(command, [...args, url.href], { stdio: "ignore", detached: true, env });
        child.on("error", reject);
        child.on("exit", (code) => code && reject(new Error(`${command} ended with ${code}`)));
      });
      const late = () => reject(new Error(`${browser}: no report in ${timeout / 1000} s, last at: ${at}`));
      timer = setTimeout(late, timeout);
    });
  } finally {
    clearTimeout(timer);
    server.close();
    server.closeAllConnections();
    child?.removeAllListeners("exit");
    try {
      if (child?.pid) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}
