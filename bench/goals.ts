// The goals, and what a run reached of each: ratios of times in that run, of the fastest rounds. 2 is "2 × as long".

import type { Result } from "./bench.js";
import type { Pass } from "./contenders.js";
import { ON_ARRAYS, OURS } from "./rivals.js";

export interface Goal {
  pass: Pass;
  goal: string;
  bound: "at least" | "at most";
  limit: number;
  got: number;
}

export const reached = ({ bound, limit, got }: Goal) => (bound === "at least" ? got >= limit : got <= limit);

/** What is compared: the time of a call, or of an element or a byte. */
type Unit = (result: Result) => number;

const ofCall: Unit = ({ best }) => best;
const ofElement: Unit = ({ best, rows, cols }) => best / rows / cols;
const ofByte: Unit = ({ gigabytes }) => 1 / gigabytes;

const EARLIER_FORWARD: [number, ...string[]][] = [[0.9, "1024x768", "16384x64", "8192x768", "2048x4096"]];
const EARLIER_BACKWARD: [number, ...string[]][] = [
  [1.08, "16384x64"],
  [0.97, "16384x128"],
  [0.93, "4096x256", "1024x768"],
  [0.95, "8192x768"],
  [0.94, "4096x4096"],
];
const WIDE = ["1024x768", "8192x768", "1024x1024", "1024x2048", "1024x4096", "4096x4096"];

export function goals(results: Result[]): Goal[] {
  const found: Goal[] = [];
  const find = (shape: string, pass: Pass, name: string) =>
    results.find((r) => `${r.rows}x${r.cols}` === shape && r.pass === pass && r.name === name);

  /** That `name` takes at least or at most so many × as long as `other`, at the worst of the shapes. */
  function takes(pass: Pass, name: string, bound: Goal["bound"], limit: number, other: string, ...shapes: string[]) {
    add(pass, `${name}, beside ${other}`, bound, limit, ofCall, pairs(pass, name, other, shapes), shapes);
  }

  function pairs(pass: Pass, name: string, other: string, shapes: string[]) {
    return shapes.map((shape) => [find(shape, pass, name), find(shape, pass, other)] as const);
  }

  function add(
    pass: Pass,
    what: string,
    bound: Goal["bound"],
    limit: number,
    unit: Unit,
    compared: (readonly [Result | undefined, Result | undefined])[],
    shapes: string[],
  ) {
    const ratios = compared.flatMap(([one, other]) => (one && other ? [unit(one) / unit(other)] : []));
    if (ratios.length === 0) return;
    const got = bound === "at least" ? Math.min(...ratios) : Math.max(...ratios);
    found.push({ pass, goal: `${what}, ${shapes.join(", ")}`, bound, limit, got });
  }

  takes("forward", "straight two-pass kernel", "at least", 0.95, "kernel", "1024x768", "1024x1024");
  takes("forward", "onnxruntime-web, its kernel", "at least", 18, "kernel", "1024x768", "8192x768");
  takes("forward", "tfjs, wasm", "at least", 700, "kernel", "1024x768");
  takes("forward", "onnxruntime-node, its kernel", "at least", 1.7, "kernel", ...WIDE);
  takes("forward", "PyTorch CPU", "at least", 2, "kernel", ...WIDE);
  takes("backward", "PyTorch CPU", "at least", 1.3, "kernel", ...WIDE);
  for (const pass of ["forward", "backward"] as const) {
    const forward = pass === "forward";
    for (const [shape, least] of [
      ["8192x768", forward ? 0.8 : 0.75],
      ["65536x256", forward ? 0.8 : 0.7],
      ["4096x4096", forward ? 0.55 : 0.45],
      ["2048x8192", forward ? 0.55 : 0.45],
    ] as const) {
      add(pass, "a byte of copy, beside kernel", "at least", least, ofByte, pairs(pass, "copy", "kernel", [shape]), [
        shape,
      ]);
    }
    for (const [least, ...shapes] of forward ? EARLIER_FORWARD : EARLIER_BACKWARD) {
      for (const shape of shapes) takes(pass, "kernel of 2026-11-21", "at least", least, "kernel", shape);
    }
    takes(pass, "C, AVX2 by hand", "at least", 0.5, "kernel", "1024x768");
    takes(pass, OURS, "at least", 1.8, `${OURS}, 2 threads`, "1024x768");
    takes(pass, OURS, "at least", 1.5, `${OURS}, 2 threads`, "8192x768");
    takes(pass, OURS, "at least", 0.95, `${OURS}, 2 threads`, "1x768");
    takes(pass, OURS, "at most", 1.8, "kernel", "1x768");
    takes(pass, OURS, "at most", 4, "kernel", "1x64");
    takes(pass, ON_ARRAYS, "at most", 2.8, "kernel", "1x768");
    takes(pass, ON_ARRAYS, "at most", 1, "plain JavaScript", "1x64");
    takes(pass, ON_ARRAYS, "at most", 1.7, OURS, "16x768", "128x128", "64x256");
    takes(pass, ON_ARRAYS, "at most", 1.8, OURS, "1024x768");
    takes(pass, ON_ARRAYS, "at most", 1.5, OURS, "4096x4096");
    takes(pass, "kernel", "at least", forward ? 1.25 : 1.08, "kernel, RMSNorm", "128x768", "1024x768");
    takes(pass, "kernel", "at least", 1, "kernel, RMSNorm", "8192x768");
    for (const norm of ["", ", RMSNorm"]) {
      const [apart, fused] = [`addition, then kernel${norm}`, `kernel${norm}, residual`];
      takes(pass, apart, "at least", 1, fused, "128x768", "1024x768");
      takes(pass, apart, "at least", 1.2, fused, "8192x768");
    }
    // In a second-level cache, and beyond all caches.
    for (const shapes of [
      ["16x768", "128x768"],
      ["8192x768", "65536x768"],
    ]) {
      const [few, many] = shapes.map((shape) => find(shape, pass, "kernel"));
      const both = [
        [few, many],
        [many, few],
      ] as const;
      add(pass, "an element at one of two shapes, beside the other", "at most", 1.25, ofElement, [...both], shapes);
    }
    const shapes = ["4096x8", "4096x16", "4096x32", "4096x64"];
    const usual = find("1024x768", pass, "kernel");
    const short = shapes.map((shape) => [find(shape, pass, "kernel"), usual] as const);
    add(pass, "an element, beside one at 1024x768", "at most", 3, ofElement, short, shapes);
  }
  return found;
}
