// The goals, a line each, and what a run reached of them: ratios of times in that run, of the fastest rounds. 2 is "2 × as long".

import { type Name, ON_ARRAYS, OURS } from "./contenders.js";
import { PASSES, type Pass } from "./problem.js";

/** What a run found of a contender on a shape. */
export interface Result {
  rows: number;
  cols: number;
  pass: Pass;
  name: string;
  /** Our kernel that does the same work. */
  ours: string;
  /** Milliseconds of a call: the fastest round, the median, and how far the middle half of the rounds is apart, of the median. */
  best: number;
  median: number;
  spread: number;
  /** Of the fastest round, each tensor counted once: x and y, with a residual that and the sum; x, dy and dx; what a limit reads and writes. */
  gigabytes: number;
}

/** What a run reached of a goal. */
export interface Goal {
  pass: Pass;
  goal: string;
  bound: "at least" | "at most";
  limit: number;
  got: number;
}

export const reached = ({ bound, limit, got }: Goal) => (bound === "at least" ? got >= limit : got <= limit);

/** A bound, and the limits forward and backward. */
type Limits = [Goal["bound"], number | null, number?];
/** A contender on a shape, beside another. */
type Pair = [name: Name, shape: string, other: Name, otherShape: string];
/** What is compared: the time of a call, or of an element or a byte. */
type Time = (result: Result) => number;

const atLeast = (forward: number | null, backward?: number): Limits => ["at least", forward, backward];
const atMost = (forward: number, backward: number): Limits => ["at most", forward, backward];
const ofCall: Time = ({ best }) => best;
const ofElement: Time = ({ best, rows, cols }) => best / rows / cols;
const ofByte: Time = ({ gigabytes }) => 1 / gigabytes;

/** That the ratio of a pair is within the limits at the worst of the shapes. */
const line = (
  goal: string,
  limits: Limits,
  time: Time,
  shapes: string[],
  pair: (shape: string, i: number) => Pair,
) => ({
  goal,
  limits,
  time,
  shapes,
  pairs: shapes.map(pair),
});

const takes = (name: Name, limits: Limits, other: Name, ...shapes: string[]) =>
  line(`${name}, beside ${other}`, limits, ofCall, shapes, (shape) => [name, shape, other, shape]);

const earlier = (limits: Limits, shape: string) => takes("kernel of 2026-11-21", limits, "kernel", shape);

const byteOfCopy = (limits: Limits, shape: string) =>
  line("a byte of copy, beside kernel", limits, ofByte, [shape], () => ["copy", shape, "kernel", shape]);

const ALIKE = "an element at one of two shapes, beside the other";
const elementsAlike = (limits: Limits, ...shapes: [string, string]) =>
  line(ALIKE, limits, ofElement, shapes, (shape, i) => ["kernel", shape, "kernel", shapes[1 - i]!]);

const elementBeside = (usual: string, limits: Limits, ...shapes: string[]) =>
  line(`an element, beside one at ${usual}`, limits, ofElement, shapes, (shape) => ["kernel", shape, "kernel", usual]);

const WIDE = ["1024x768", "8192x768", "1024x1024", "1024x2048", "1024x4096", "4096x4096"];

const LINES = [
  takes("straight two-pass kernel", atLeast(0.95), "kernel", "1024x768", "1024x1024"),
  takes("onnxruntime-web, its kernel", atLeast(18), "kernel", "1024x768", "8192x768"),
  takes("tfjs, wasm", atLeast(700), "kernel", "1024x768"),
  takes("onnxruntime-node, its kernel", atLeast(1.7), "kernel", ...WIDE),
  takes("PyTorch CPU", atLeast(2, 1.3), "kernel", ...WIDE),
  byteOfCopy(atLeast(0.8, 0.75), "8192x768"),
  byteOfCopy(atLeast(0.8, 0.7), "65536x256"),
  byteOfCopy(atLeast(0.55, 0.45), "4096x4096"),
  byteOfCopy(atLeast(0.55, 0.45), "2048x8192"),
  earlier(atLeast(0.9, 0.93), "1024x768"),
  earlier(atLeast(0.9, 1.08), "16384x64"),
  earlier(atLeast(0.9, 0.95), "8192x768"),
  earlier(atLeast(0.9), "2048x4096"),
  takes("C, AVX2 by hand", atLeast(0.5, 0.5), "kernel", "1024x768"),
  takes(OURS, atLeast(1.8, 1.8), `${OURS}, 2 threads`, "1024x768"),
  takes(OURS, atLeast(1.5, 1.5), `${OURS}, 2 threads`, "8192x768"),
  takes(OURS, atLeast(0.95, 0.95), `${OURS}, 2 threads`, "1x768"),
  takes(OURS, atMost(1.8, 1.8), "kernel", "1x768"),
  takes(OURS, atMost(4, 4), "kernel", "1x64"),
  takes(ON_ARRAYS, atMost(2.8, 2.8), "kernel", "1x768"),
  takes(ON_ARRAYS, atMost(1, 1), "plain JavaScript", "1x64"),
  takes(ON_ARRAYS, atMost(1.7, 1.7), OURS, "16x768", "128x128", "64x256"),
  takes(ON_ARRAYS, atMost(1.8, 1.8), OURS, "1024x768"),
  takes(ON_ARRAYS, atMost(1.5, 1.5), OURS, "4096x4096"),
  takes("kernel", atLeast(1.25, 1.08), "kernel, RMSNorm", "128x768", "1024x768"),
  takes("kernel", atLeast(1, 1), "kernel, RMSNorm", "8192x768"),
  takes("addition, then kernel", atLeast(1), "kernel, residual", "128x768", "1024x768"),
  takes("addition, then kernel", atLeast(1.2), "kernel, residual", "8192x768"),
  takes("addition, then kernel, RMSNorm", atLeast(1), "kernel, RMSNorm, residual", "128x768", "1024x768"),
  takes("addition, then kernel, RMSNorm", atLeast(1.2), "kernel, RMSNorm, residual", "8192x768"),
  // In a second-level cache, and beyond all caches.
  elementsAlike(atMost(1.25, 1.25), "16x768", "128x768"),
  elementsAlike(atMost(1.25, 1.25), "8192x768", "65536x768"),
  elementBeside("1024x768", atMost(3, 3), "4096x8", "4096x16", "4096x32", "4096x64"),
  earlier(atLeast(null, 0.97), "16384x128"),
  earlier(atLeast(null, 0.93), "4096x256"),
  earlier(atLeast(null, 0.94), "4096x4096"),
];

/** The shapes that the goals are about. */
export const GOAL_SHAPES = [...new Set(LINES.flatMap(({ shapes }) => shapes))];

export function goals(results: Result[]): Goal[] {
  return PASSES.flatMap((pass, i) => {
    const own = results.filter((result) => result.pass === pass);
    const found = new Map<string, Result>(own.map((r) => [`${r.name} ${r.rows}x${r.cols}`, r]));
    return LINES.flatMap(({ goal, limits: [bound, ...limits], time, shapes, pairs }) => {
      const limit = limits[i];
      const measured = pairs.flatMap(([name, shape, other, otherShape], j) => {
        const [one, two] = [found.get(`${name} ${shape}`), found.get(`${other} ${otherShape}`)];
        return one && two ? [{ shape: shapes[j], ratio: time(one) / time(two) }] : [];
      });
      if (limit == null || measured.length === 0) return [];
      const label = [goal, ...measured.map(({ shape }) => shape)].join(", ");
      const got = Math[bound === "at least" ? "min" : "max"](...measured.map(({ ratio }) => ratio));
      return [{ pass, goal: label, bound, limit, got }];
    });
  });
}
