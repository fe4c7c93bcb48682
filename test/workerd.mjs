// workerd as a program that serves one worker.

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { root } from "./packed.mjs";

export const WORKERD = join(root, "test/engines/node_modules/@cloudflare/workerd-linux-64/bin/workerd");

/**
 * Serves the worker of `folder` while `use` runs, which is given its address.
 * @param modules names of files there, the main one first; those that end in .wasm are WebAssembly modules
 * @param port by default one that is free
 */
export async function serveWorker(folder, modules, use, port = 0) {
  const kind = (name) => (name.endsWith(".wasm") ? "wasm" : "esModule");
  const list = modules.map((name) => `(name = "${name}", ${kind(name)} = embed "${name}")`).join(", ");
  const config = join(folder, "config.capnp");
  const text = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (modules = [${list}], compatibilityDate = "2026-01-01"))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", service = "main")],
);
`;
  writeFileSync(config, text);
  const stdio = ["ignore", "inherit", "inherit", "pipe"];
  const child = spawn(WORKERD, ["serve", config, "--control-fd=3"], { stdio });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  try {
    const listening = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`workerd ended with ${code}`)));
      const events = createInterface({ input: child.stdio[3] });
      events.on("line", (line) => line.includes('"listen"') && resolve(JSON.parse(line).port));
    });
    return await use(`http://127.0.0.1:${listening}`, child.pid);
  } finally {
    child.removeAllListeners("exit");
    process.off("exit", kill);
    kill();
  }
}
