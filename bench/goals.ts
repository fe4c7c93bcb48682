// The goals, and what a run reached of each: ratios of speeds in that run, of the fastest rounds.

import type { Result } from "./bench.js";
import type { Pass } from "./contenders.js";

export interface Goal {
  goal: string;
  least: number;
  got: number;
}

export function goals(results: Result[]): Goal[] {
  const find = (shape: string, pass: Pass, name: string) =>
    results.find((r) => `${r.rows}x${r.cols}` === shape && r.pass === pass && r.name === name);
  const found: Goal[] = [];
  /** How many times faster our kernel is than `name`, at the worst of the shapes. */
  const faster = (name: string, pass: Pass, least: number, shapes: string[], bytes = false) => {
    const ratios = shapes.flatMap((shape) => {
      const [ours, theirs] = [find(shape, pass, "kernel"), find(shape, pass, name)];
      if (!ours || !theirs) return [];
      return [bytes ? ours.gigabytes / theirs.gigabytes : theirs.best / ours.best];
    });
    if (ratios.length > 0) {
      found.push({ goal: `${pass}, times ${name}, ${shapes.join(", ")}`, least, got: Math.min(...ratios) });
    }
  };
  const wide = ["1024x768", "8192x768", "1024x1024", "1024x2048", "1024x4096", "4096x4096"];
  faster("straight two-pass kernel", "forward", 0.95, ["1024x768", "1024x1024"]);
  faster("onnxruntime-web, its kernel", "forward", 18, ["1024x768", "8192x768"]);
  faster("tfjs, wasm", "forward", 700, ["1024x768"]);
  faster("onnxruntime-node, its kernel", "forward", 1.7, wide);
  faster("PyTorch CPU", "forward", 2, wide);
  faster("PyTorch CPU", "backward", 1.3, wide);
  for (const [shape, forward, backward] of [
    ["8192x768", 0.8, 0.75],
    ["65536x256", 0.8, 0.7],
    ["4096x4096", 0.55, 0.45],
    ["2048x8192", 0.55, 0.45],
  ] as const) {
    faster("copy", "forward", forward, [shape], true);
    faster("copy", "backward", backward, [shape], true);
  }
  for (const pass of ["forward", "backward"] as const) {
    const tensors = "module, Tensor with out";
    for (const [shape, least] of [
      ["1024x768", 1.8],
      ["8192x768", 1.5],
      ["1x768", 0.95],
    ] as const) {
      const [one, two] = [find(shape, pass, tensors), find(shape, pass, `${tensors}, 2 threads`)];
      if (one && two) found.push({ goal: `${pass}, 2 threads times one, ${shape}`, least, got: one.best / two.best });
    }
    faster("C, AVX2 by hand", pass, 0.5, ["1024x768"]);
    /** That `name` takes at most so many times the time of `other`. */
    const atMost = (name: string, other: string, most: number, shape: string) => {
      const [ours, theirs] = [find(shape, pass, name), find(shape, pass, other)];
      if (!ours || !theirs) return;
      const goal = `${pass}, ${shape}, ${name}: at most ${most} times ${other}`;
      found.push({ goal, least: 1, got: (most * theirs.best) / ours.best });
    };
    atMost(tensors, "kernel", 1.4, "1x768");
    atMost("module, Float32Array with out", "kernel", 2.5, "1x768");
    atMost("module, Float32Array with out", "plain JavaScript", 1 / 1.5, "1x64");
    for (const shape of ["16x768", "128x128", "64x256"])
      atMost("module, Float32Array with out", tensors, 1 / 0.6, shape);
    atMost("module, Float32Array with out", tensors, 1 / 0.65, "4096x4096");
    for (const shape of ["128x768", "1024x768"]) {
      atMost("kernel, RMSNorm", "kernel", 1 / (pass === "forward" ? 1.25 : 1.08), shape);
    }
    atMost("kernel, RMSNorm", "kernel", 1, "8192x768");
    for (const norm of ["", ", RMSNorm"]) {
      for (const [shape, least] of [
        ["128x768", 1.1],
        ["1024x768", 1.1],
        ["8192x768", 1.25],
      ] as const) {
        atMost(`kernel${norm}, residual`, `addition, then kernel${norm}`, 1 / least, shape);
      }
    }
    const perElement = ({ best, rows, cols }: Result) => best / rows / cols;
    // In a second-level cache, and beyond all caches.
    for (const pair of [
      ["16x768", "128x768"],
      ["8192x768", "65536x768"],
    ]) {
      const [few, many] = pair.map((shape) => find(shape, pass, "kernel"));
      if (!few || !many) continue;
      const ratio = perElement(few) / perElement(many);
      const goal = `${pass}, per element, ${pair.join(" and ")}: the same within a quarter`;
      found.push({ goal, least: 0.8, got: Math.min(ratio, 1 / ratio) });
    }
    const usual = find("1024x768", pass, "kernel");
    const short = ["4096x8", "4096x16", "4096x32", "4096x64"].flatMap((shape) => find(shape, pass, "kernel") ?? []);
    if (usual && short.length > 0) {
      const worst = Math.max(...short.map(perElement)) / perElement(usual);
      found.push({
        goal: `${pass}, per element 8 to 64 columns: a third of the speed at 768`,
        least: 1,
        got: 3 / worst,
      });
    }
  }
  return found;
}
