// Contenders that run natively, each in a process of its own that times itself: bench/native.c and scripts/rivals.py.

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Problem } from "./contenders.js";

/**
 * Memory that a process frees stays with it, as it would in a program that has run for a while. By default glibc may give
 * a result's memory back after each call, and a call of 0.2 ms then takes 0.7.
 */
const MALLOC = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

/** A process that answers each line with a line. */
export class Native {
  readonly #child;
  readonly #answers: AsyncIterator<string>;
  #last = "";
  readonly #file = join(mkdtempSync(join(tmpdir(), "layernorm-bench-")), "data");

  constructor(command: string, args: string[] = []) {
    this.#child = spawn(command, args, { stdio: "pipe", env: { ...process.env, ...MALLOC } });
    // TensorFlow logs there what it is built for. Only an error is of interest, which comes last.
    this.#child.stderr.on("data", (text) => {
      this.#last = String(text).trim();
    });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async #ask(line: string): Promise<string> {
    this.#child.stdin.write(`${line}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`no answer to ${line}: ${this.#last.split("\n").pop()}`);
    return value;
  }

  async load({ x, dy, weight, bias, rows, cols }: Problem): Promise<void> {
    writeFileSync(this.#file, Buffer.concat([x, dy, weight, bias].map((part) => new Uint8Array(part.buffer))));
    await this.#ask(`load ${this.#file} ${rows} ${cols}`);
  }

  /** Milliseconds of one call, over so many. */
  async time(pass: "forward" | "backward", calls: number): Promise<number> {
    return Number(await this.#ask(`${pass} ${calls}`));
  }

  /** What forward and backward give. */
  async results({ rows, cols }: Problem): Promise<Record<"y" | "dx" | "dweight" | "dbias", Float32Array>> {
    await this.#ask(`save ${this.#file}`);
    const { buffer } = new Uint8Array(readFileSync(this.#file));
    rmSync(this.#file);
    const size = rows * cols;
    const part = (start: number, length: number) => new Float32Array(buffer, start * 4, length);
    const [dweight, dbias] = [part(2 * size, cols), part(2 * size + cols, cols)];
    return { y: part(0, size), dx: part(size, size), dweight, dbias };
  }

  end(): void {
    this.#child.kill();
    rmSync(join(this.#file, ".."), { recursive: true, force: true });
  }
}

/** bench/native.c compiled with these flags. */
export function compileC(name: string, flags: string[]): string {
  const folder = fileURLToPath(new URL("../build/bench", import.meta.url));
  mkdirSync(folder, { recursive: true });
  const source = fileURLToPath(new URL("native.c", import.meta.url));
  const binary = join(folder, name);
  execFileSync("cc", ["-O3", ...flags, "-o", binary, source, "-lm"]);
  return binary;
}
