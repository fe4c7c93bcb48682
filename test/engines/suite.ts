// The suite as a function, for any engine: what passed, what failed, and the digest of sameness.

import { startTests, type Task, type VitestRunner, type VitestRunnerConfig } from "@vitest/runner";
import { Runtime } from "../../src/index.js";
import { digest, GOLDEN } from "../digest.js";

// abi.test.ts reads the binary and node.test.ts needs Node's own modules: neither would tell one engine from another. Suites that
// make hundreds of memories are left out, because a page has no room for so many: the digest, which is compared below, has what
// they would show.
const FILES: Record<string, () => Promise<unknown>> = {
  accuracy: () => import("../accuracy.test.js"),
  axes: () => import("../axes.test.js"),
  backward: () => import("../backward.test.js"),
  borders: () => import("../borders.test.js"),
  conformance: () => import("../conformance.test.js"),
  forward: () => import("../forward.test.js"),
  functional: () => import("../functional.test.js"),
  gigabytes: () => import("../gigabytes.test.js"),
  keras: () => import("../keras.test.js"),
  memory: () => import("../memory.test.js"),
  modules: () => import("../modules.test.js"),
  norm: () => import("../norm.test.js"),
  operands: () => import("../operands.test.js"),
  properties: () => import("../properties.test.js"),
  pytorch: () => import("../pytorch.test.js"),
  reference: () => import("../reference.test.js"),
  residual: () => import("../residual.test.js"),
  runtime: () => import("../runtime.test.js"),
  "state-dict": () => import("../state-dict.test.js"),
  tensor: () => import("../tensor.test.js"),
  threads: () => import("../threads.test.js"),
  "threads-runtime": () => import("../threads-runtime.test.js"),
};

export interface Report {
  passed: number;
  failures: string[];
  digest: string;
  /** What a first call is told that may not compile at once. */
  refusal: string;
}

class Runner implements VitestRunner {
  config = {
    root: "/",
    setupFiles: [],
    sequence: { hooks: "stack", setupFiles: "list" },
    maxConcurrency: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    retry: 0,
    tags: [],
  } as unknown as VitestRunnerConfig;

  readonly #progress: (name: string) => unknown;

  constructor(progress: (name: string) => unknown) {
    this.#progress = progress;
  }

  async importFile(path: string): Promise<unknown> {
    return FILES[path]?.();
  }

  onBeforeRunTask({ name }: Task): void {
    this.#progress(name);
  }
}

/**
 * @param without names of files that this engine can't run
 * @param progress told the name of each test before it runs
 * @param part which of `parts` shares of the files to run, from 0
 */
export async function run(
  without: string[] = [],
  progress: (name: string) => unknown = () => {},
  part = 0,
  parts = 1,
): Promise<Report> {
  const names = Object.keys(FILES)
    .filter((name) => !without.includes(name))
    .filter((_, i) => i % parts === part);
  const report: Report = { passed: 0, failures: [], digest: "", refusal: "" };
  const visit = (task: Task, path: string): void => {
    const name = `${path} > ${task.name}`;
    const errors = task.result?.errors?.map(({ message, stack }) => `${message}\n${stack}`) ?? [];
    if (task.type === "suite") {
      if (errors.length > 0) report.failures.push(`${name}: ${errors.join("; ")}`);
      for (const child of task.tasks) visit(child, name);
    } else if (task.result?.state === "pass") report.passed++;
    else report.failures.push(`${name}: ${task.result?.state ?? "not run"} ${errors.join("; ")}`);
  };
  const runtime = await Runtime.create({ async: true });
  try {
    Runtime.create();
  } catch (error) {
    report.refusal = (error as Error).message;
    Runtime.default = runtime;
  }
  // First, as the tests leave memories behind that an engine frees when it likes.
  if (part === 0) {
    report.digest = await digest(runtime);
    if (report.digest !== GOLDEN) report.failures.push(`the digest is ${report.digest}, expected ${GOLDEN}`);
  }
  await import("./polyfills.js");
  const files = await startTests(names, new Runner(progress));
  for (const [i, file] of files.entries()) {
    for (const { message } of file.result?.errors ?? []) report.failures.push(`${names[i]}: ${message}`);
    if (file.tasks.length === 0) report.failures.push(`${names[i]}: no tests`);
    for (const task of file.tasks) visit(task, names[i] ?? "");
  }
  return report;
}
