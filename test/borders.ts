// Calls of the kernels whose bits are pinned beside the golden digest: every operand absent or in place, and rows to both
// sides of each border at which a kernel changes its way. docs/guides/numerics.md derives the borders. Operands lie between
// guards, so that what is written or read beside them shows.

import { ARGUMENTS, type KernelName, type Kernels } from "../src/kernels.js";
import { bell, uniform } from "./random.js";
import { beyond } from "./reference.js";

type Floats = Float32Array<ArrayBuffer>;

export interface Machine {
  kernels: Kernels;
  memory: WebAssembly.Memory;
}

export interface Call {
  kernel: KernelName;
  rows: number;
  cols: number;
  eps: number;
  /** What an operand holds, or the operand whose place it takes. Others are absent. */
  operands: { readonly [name: string]: Floats | string };
  /** Bytes of each operand from a multiple of 16. */
  misalignment?: number;
  /** The operand that ends where the memory does, so that reading behind it traps; the workspace when absent. */
  last?: string;
  /** The rows of each call of backward for some rows, instead of one call for all. */
  split?: readonly number[];
}

export interface Made {
  /** What each output then holds. */
  results: { [name: string]: Floats };
  /** The address of what was written beside the outputs, or -1. */
  stray: number;
}

/** A NaN that no kernel makes: what is read beside the operands shows. */
const GUARD = 0xffffffff;
/** Behind outputs, and from address 0. As a float it is 3, so that an addition to it shows. */
const BEHIND = 0x40404040;
const NAN = 0x7fc00000;
/** Address 0 and what follows is guarded up to here. */
const LOW = 1024;

/** How far a pointer moves with a row, in floats. */
const strideOf = (name: string, cols: number) =>
  /^(mean|rstd)$/.test(name) ? 1 : /^(d?weight|d?bias)$/.test(name) ? 0 : cols;

/** Makes a call. */
export function made({ kernels, memory }: Machine, call: Call): Made {
  const { kernel, rows, cols, eps, operands, misalignment = 0, split, last = "workspace" } = call;
  const forward = kernel.endsWith("Forward");
  const backward = kernel as "layerNormBackward";
  const lengths: Record<string, number> = {};
  for (const [name, operand] of Object.entries(operands))
    if (typeof operand !== "string") lengths[name] = operand.length;
  if (operands.dweight || operands.dbias)
    lengths.workspace = (split ? kernels.sumsWorkspace(rows, cols) : kernels[`${backward}Workspace`](rows, cols)) / 4;

  // From the end of the memory downwards.
  const order = Object.keys(lengths).sort((a, b) => Number(b === last) - Number(a === last));
  const room = order.reduce((sum, name) => sum + 4 * lengths[name]! + 64, LOW);
  if (room > memory.buffer.byteLength) memory.grow(Math.ceil((room - memory.buffer.byteLength) / 65536));
  const at: Record<string, number> = { rows, cols, eps };
  let low = memory.buffer.byteLength;
  for (const name of order) {
    low -= 4 * lengths[name]!;
    if (name !== order[0]) low -= 32 + (low % 16) + misalignment;
    at[name] = low;
  }
  low -= 64;
  for (const [name, other] of Object.entries(operands)) if (typeof other === "string") at[name] = at[other]!;

  const words = new Uint32Array(memory.buffer);
  const guarded = [words.subarray(0, LOW / 4), words.subarray(low / 4)];
  guarded[0]!.fill(BEHIND);
  guarded[1]!.fill(GUARD);
  const isOutput = forward ? /^(y|sum|mean|rstd)$/ : /^(dx|dweight|dbias|workspace)$/;
  for (const name of order.filter((name) => isOutput.test(name)))
    words.fill(BEHIND, at[name]! / 4 + lengths[name]!, at[name]! / 4 + lengths[name]! + 8);
  for (const [name, values] of Object.entries(operands))
    if (typeof values !== "string") new Float32Array(memory.buffer).set(values, at[name]! / 4);
  const before = guarded.map((part) => part.slice());
  const argumentsFrom = (row: number) =>
    ARGUMENTS[kernel].split(" ").map((name) => (at[name] ?? 0) + (operands[name] ? 4 * row * strideOf(name, cols) : 0));
  if (split) {
    let start = 0;
    for (const count of split) {
      at.rows = count;
      (kernels[`${backward}Rows`] as (...args: number[]) => void)(...argumentsFrom(start), start, rows);
      start += count;
    }
    if (at.workspace) kernels.addSums(at.dweight ?? 0, at.dbias ?? 0, rows, cols, at.workspace);
  } else (kernels[kernel] as (...args: number[]) => void)(...argumentsFrom(0));

  const results: Made["results"] = {};
  for (const name of Object.keys(at).filter((name) => isOutput.test(name))) {
    const operand = operands[name];
    const start = at[name]! / 4;
    const written = words.subarray(start, start + lengths[typeof operand === "string" ? operand : name]!);
    before[1]!.set(written, start - low / 4);
    if (name !== "workspace")
      results[name] = new Float32Array(written.map((word) => ((word & 0x7fffffff) > 0x7f800000 ? NAN : word)).buffer);
  }
  const [below = -1, within = -1] = guarded.map((part, i) => part.findIndex((word, at) => word !== before[i]![at]));
  return { results, stray: below >= 0 ? 4 * below : within >= 0 ? low + 4 * within : -1 };
}

/** Seeded numbers, nearly N(0, 1) * scale + offset. */
function bells(size: number, seed: number, offset = 0, scale = 1): Floats {
  const next = uniform(seed);
  return Float32Array.from({ length: size }, () => bell(next) * scale + offset);
}

/** mean and rstd of rows, rounded from double. */
function statistics(norm: string, x: Floats, rows: number, cols: number, eps: number) {
  const mean = new Float32Array(rows);
  const rstd = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const values = Array.from(x.subarray(row * cols, (row + 1) * cols));
    const first = norm === "rmsNorm" ? 0 : values[0]!;
    const rest = norm === "rmsNorm" ? 0 : values.reduce((sum, v) => sum + (v - first), 0) / cols;
    mean[row] = first + rest;
    rstd[row] = 1 / Math.sqrt(values.reduce((sum, v) => sum + (v - first - rest) ** 2, 0) / cols + eps);
  }
  return { mean, rstd };
}

/** Rows one after the other: near, with a shift, far, very far, squares that overflow and underflow, constant, zeros. */
const KINDS = [
  [0, 1],
  [0.7, 1],
  [2, 1],
  [1e3, 1],
  [0, 1e-3],
  [-1e7, 1],
  [0, 1e20],
  [0, 1e-25],
  [-3.7, 0],
  [0, 0],
] as const;
const kinds = (rows: number, cols: number, seed: number): Floats => {
  const values = bells(rows * cols, seed);
  return values.map((v, i) => {
    const [offset, scale] = KINDS[(seed + Math.floor(i / cols)) % KINDS.length]!;
    return v * scale + offset;
  });
};

const NORMS = ["layerNorm", "rmsNorm"] as const;
type Norm = (typeof NORMS)[number];

interface Given {
  norm: Norm;
  rows: number;
  cols: number;
  x: Floats;
  dy?: Floats;
  eps?: number;
  weight?: Floats;
}

const garbage = (length: number) => new Float32Array(new Uint32Array(length).fill(GUARD).buffer);

/** Forward and backward of rows, with all operands. */
function calls({ norm, rows, cols, x, eps = 1e-5, ...given }: Given): [Call, Call] {
  const size = rows * cols;
  const seed = size + rows;
  const { dy = bells(size, seed + 1), weight = bells(cols, seed + 2, 1, 0.5) } = given;
  const ofMean: Call["operands"] = norm === "layerNorm" ? { mean: garbage(rows), bias: bells(cols, seed + 3) } : {};
  const { mean, rstd } = statistics(norm, x, rows, cols, eps);
  const [dweight, dbias] = [bells(cols, seed + 4), bells(cols, seed + 5)];
  const stats: Call["operands"] = norm === "layerNorm" ? { mean, rstd, dbias } : { rstd };
  return [
    {
      kernel: `${norm}Forward`,
      rows,
      cols,
      eps,
      operands: { y: garbage(size), rstd: garbage(rows), x, weight, ...ofMean },
    },
    { kernel: `${norm}Backward`, rows, cols, eps, operands: { dx: garbage(size), dweight, dy, x, weight, ...stats } },
  ];
}

const without = (call: Call, ...names: string[]): Call => ({
  ...call,
  operands: Object.fromEntries(Object.entries(call.operands).filter(([name]) => !names.includes(name))),
});
const having = (call: Call, operands: Call["operands"]): Call => ({
  ...call,
  operands: { ...call.operands, ...operands },
});

// Columns to both sides of every step, of a block and of what is short; rows of four, of a group and of a chunk.
const SHAPES = (
  "1x1 2x2 5x3 4x4 3x5 9x7 8x8 3x9 17x15 4x16 5x17 9x31 8x32 7x33 15x47 16x48 17x49 5x63 9x64 6x65 4x72 3x96 3x127 " +
  "5x128 9x129 2x255 5x256 10x257 2x258 3x272 11x288 2x303 1x520 97x5 200x6 3080x2"
)
  .split(" ")
  .map((shape) => shape.split("x").map(Number) as [number, number]);

/** Which may be absent, one at a time or together. */
const OPTIONAL = {
  Forward: ["sum", "mean", "rstd", "residual", "weight", "bias", "sum mean rstd weight bias"],
  Backward: ["dx", "dweight", "dbias", "weight", "dweight dbias", "dx weight", "dweight dbias weight"],
};
/** Which may take the place of another. */
const IN_PLACE: { readonly [name: string]: string }[] = [
  { y: "x" },
  { y: "residual" },
  { sum: "x" },
  { sum: "x", y: "residual" },
  { sum: "residual", y: "x" },
  { dx: "dy" },
  { dx: "add" },
];

/** Calls with each set of operands. */
function* operandsCalls(): Generator<Call> {
  for (const norm of NORMS) {
    for (const [rows, cols] of SHAPES) {
      const size = rows * cols;
      for (const kind of [0, 4]) {
        const more = bells(size, 7);
        const plain = calls({ norm, rows, cols, x: kinds(rows, cols, kind + cols) });
        const full = [having(plain[0], { residual: more, sum: garbage(size) }), having(plain[1], { add: more })];
        const all = [...plain, ...full].flatMap((call) => {
          const has = (name: string) => name in call.operands;
          const kernel = call.kernel.endsWith("Forward") ? "Forward" : "Backward";
          const absent = OPTIONAL[kernel].map((list) => list.split(" ")).filter((names) => names.some(has));
          const places = IN_PLACE.filter((place) => Object.entries(place).every((names) => names.every(has)));
          return [
            call,
            ...absent.map((names) => without(call, ...names)),
            ...places.map((place) => having(call, place)),
          ];
        });
        for (const [i, call] of all.entries()) {
          const names = [...Object.keys(call.operands), "workspace"];
          yield { ...call, misalignment: (4 * (i + cols)) % 16, last: names[(i + cols) % names.length]! };
        }
      }
    }
    // Two chunks of one column: the sums of the second are the last 32 bytes of the memory.
    yield calls({ norm, rows: 97, cols: 1, x: bells(97, 3) })[1];
    // Rows that are fetched some at a time: reading behind the last one traps.
    for (const last of ["dy", "x"]) yield { ...calls({ norm, rows: 9, cols: 1376, x: bells(12384, 3) })[1], last };
    // Sums of nothing: what a group leaves would show.
    const [, backward] = calls({ norm, rows: 35, cols: 5, x: bells(175, 3), dy: new Float32Array(175) });
    yield having(backward, {
      dweight: new Float32Array(5),
      ...(norm === "layerNorm" && { dbias: new Float32Array(5) }),
    });
    for (const [rows, cols, split] of [
      [200, 6, [96, 96, 8]],
      [200, 6, [16, 80, 32, 64, 8]],
      [97, 5, [96, 1]],
      [3080, 2, [112, 2968]],
    ] as const) {
      const [, backward] = calls({ norm, rows, cols, x: bells(rows * cols, 3) });
      yield { ...backward, split };
      yield { ...without(backward, "dbias"), split };
      yield { ...without(backward, "dweight", "dx"), split };
    }
  }
}

/** The results of a call that are beyond their limits, or an address that was written beside them. */
export function wrong({ kernel, rows, cols, eps, operands }: Call, { results, stray }: Made): object {
  if (stray >= 0) return { stray };
  const norm = kernel.startsWith("rms") ? "rmsNorm" : "layerNorm";
  const { residual, add, dweight, dbias, ...inputs } = operands as Record<string, Floats>;
  const given = inputs.x!;
  const x = residual ? given.map((v, i) => v + residual[i]!) : given;
  const { dx, sum, ...got } = results;
  // dx is rounded once more where something is added to it.
  const own = { ...got, ...(dx && !add && { dx }) };
  const before = { ...(dweight && { dweight }), ...(dbias && { dbias }) };
  return beyond(own, { ...inputs, norm, x, rows, cols, eps }, { before });
}

/** The float that is so many floats above a positive one. */
function above(value: number, floats: number): number {
  const bits = Int32Array.of(new Int32Array(Float32Array.of(value).buffer)[0]! + floats);
  return new Float32Array(bits.buffer)[0]!;
}
/** Just below a border, at it, and just above. */
const around = (border: number) => [-1, 0, 1].map((floats) => above(border, floats));
/** Values over and over. */
const turns = (size: number, values: ArrayLike<number>): Floats =>
  Float32Array.from({ length: size }, (_, i) => values[i % values.length]!);

// Of mean 0 and variance 4.
const EIGHT = [3, 3, -3, 1, -1, -1, -1, -1];
const SIXTEEN = [3, 1, -1, -3, 1, -1, 3, -1, 1, -3, 3, 1, -1, -3, 1, -1];

function* forwardBorders(): Generator<Call> {
  for (const norm of NORMS) {
    // The variance and eps at 2^-100, the variance at 2^126: squares of sixteen columns would overflow.
    for (const [deviation, values, widths] of [
      [2 ** -50, SIXTEEN, [16, 64, 512]],
      [2 ** 63, EIGHT, [8]],
    ] as const) {
      for (const cols of widths) {
        for (const value of around(deviation / 2)) {
          const x = turns(5 * cols, values).map((v) => v * value);
          yield calls({ norm, rows: 5, cols, x, eps: 0 })[0];
        }
      }
    }
    for (const eps of [-1, 0, 1].map((change) => 2 ** -100 * (1 + change * 2 ** -40))) {
      const x = turns(5 * 16, SIXTEEN).map((v) => v * 2 ** -120);
      yield calls({ norm, rows: 5, cols: 16, x, eps })[0];
      yield calls({ norm, rows: 5, cols: 512, x: turns(5 * 512, x), eps })[0];
    }
    // The square of the mean is the variance, and 0.54 of it, to the last bit of a double.
    const short = turns(5 * 25, [4, 4, 4, 4, -2, ...turns(16, [4, 4, 4, 0]), 4, -2, -2, -2]);
    yield calls({ norm, rows: 5, cols: 25, x: short, eps: 0 })[0];
    const sorted = Float32Array.from({ length: 300 }, (_, i) => (i < 8 ? 4 : i < 248 ? -3 : i < 249 ? -5 : 3));
    const long = sorted.map((_, i) => sorted[(i * 7919) % 300]!);
    yield calls({ norm, rows: 1, cols: 300, x: long, eps: 0 })[0];
    // Rows that begin about a shift of exactly 1, which is near enough, or not quite.
    for (const offset of [1, 1.11]) {
      const x = bells(2 * 300, 12, offset, 0.2).map((v, i) => (i % 300 < 16 ? 1 + SIXTEEN[i % 300]! / 64 : v));
      const [forward] = calls({ norm, rows: 2, cols: 300, x });
      yield forward;
      const quarters = turns(600, [0.25]);
      yield having(forward, { x: x.map((v) => v - 0.25), residual: quarters, sum: garbage(600) });
    }
    // The square of the mean of the first numbers is just not enough for a shift.
    const first = bells(300, 14, 0.3, 2).map((v, i) => (i < 16 ? [0, 2, 4, 2][i % 4]! : v));
    yield calls({ norm, rows: 1, cols: 300, x: first })[0];
    // The square of the mean beside the variance.
    for (const cols of [16, 24, 256, 257, 512, 770]) {
      for (const ratio of [0.2, 0.54, 1, 2]) {
        for (const change of [-0.01, -(2 ** -20), 0, 2 ** -20, 0.01]) {
          const m = Math.sqrt(ratio * (1 + change));
          const turned = Float32Array.from({ length: 5 * cols }, (_, i) => 1.3 * (m + (i % 2 ? -1 : 1)));
          // The first numbers suggest a shift that is as far from the mean.
          const misled = turned.map((v, i) => v + 1.3 * (i % cols < 16 ? 40 - m : 40));
          for (const x of [turned, misled]) yield calls({ norm, rows: 5, cols, x, eps: 0 })[0];
        }
      }
    }
  }
}

// Of mean 0 and deviation 5. Each number is four columns before its opposite, so that products with equal numbers cancel.
const FIVE = [1, 5, -5, 7, -1, -5, 5, -7];

function* backwardBorders(): Generator<Call> {
  for (const norm of NORMS) {
    for (const [rows, cols] of [
      [1, 40],
      [3, 64],
    ] as const) {
      const size = rows * cols;
      const row = (deviation: number, offset = 0) => turns(size, FIVE).map((v) => (v / 5) * deviation + offset);
      /** Backward from statistics that are at a border, or one float beside it. */
      const from = (rstd: number, mean: number, given: Pick<Given, "x" | "dy" | "weight">): Call => {
        const [, call] = calls({ norm, rows, cols, eps: 0, ...given });
        const ofMean = norm === "layerNorm" && { mean: new Float32Array(rows).fill(mean) };
        return having(call, { rstd: new Float32Array(rows).fill(rstd), ...ofMean });
      };
      for (const border of norm === "layerNorm" ? [4, 2 ** 14] : []) {
        for (const mean of around(border)) {
          yield from(1, mean, { x: turns(size, [border + 1, border - 1]) });
          yield from(1, -mean, { x: turns(size, [-border - 1, 1 - border]) });
        }
      }
      for (const border of [2 ** -24, 2 ** 24, 2 ** -126]) {
        for (const rstd of around(border)) {
          const call = from(rstd, 0, { x: row(1 / border) });
          yield call;
          // A term of -0 that is added to -0.
          yield having(call, { dy: turns(size, [-0]), dweight: turns(cols, [-0]) });
        }
      }
      yield from(2 ** 130 / 5, 0, { x: row(5 * 2 ** -130) });
      yield from(Infinity, 0, { x: row(5 * 2 ** -140) });
      // The sums of g at 2^-67 and 2^64, and the largest |g| where they cancel.
      const [a, b, c, d] = [0x2a5b * 2 ** -18, 0x1c3d * 2 ** -18, 0.062, 0.013];
      for (const rstd of [1.37, 12345.6, 1e-5]) {
        for (const border of [2 ** -67, 2 ** 64]) {
          for (const g of around(border)) {
            const dy = turns(size, [1 + a, 1 - a, 1 + b, 1 - b]).map((v) => v * g);
            yield without(from(rstd, 0, { x: row(1 / rstd), dy }), "weight");
            yield from(rstd, 0, { x: row(1 / rstd), dy: dy.map((v) => v / 4), weight: turns(cols, [4]) });
          }
        }
        // dy along xhat: all of the sums is that of the products.
        const along = turns(size, FIVE).map((v) => v * 2 ** -69);
        yield without(from(rstd, 0, { x: row(1 / rstd), dy: along }), "weight");
        // One |g| is the largest, in each of the lanes and the last columns; the sums are small.
        for (const [cols, columns] of [
          [43, [0, 1, 40, 41, 42]],
          [64, [2, 63]],
        ] as const) {
          const x = bells(rows * cols, 13, 0, 1 / rstd);
          for (const column of columns) {
            for (const most of around(2 ** -67 * Math.sqrt(cols))) {
              const values = turns(rows * cols, [c, -c, d, -d]);
              const dy = values.map((v, i) => (i % cols === column ? -most : v * most));
              const [, call] = calls({ norm, rows, cols, x, dy, eps: 0 });
              yield without(call, "weight");
              yield having(call, { dy: dy.map((v) => v / 4), weight: turns(cols, [4]) });
            }
          }
        }
      }
      // g that underflows to 0.
      for (const rstd of around(8192)) {
        yield from(rstd, 0, { x: row(2 ** -13), dy: bells(size, 9, 0, 2 ** -100), weight: turns(cols, [2 ** -53]) });
        yield from(rstd, 0, { x: row(2 ** -13), dy: turns(size, [0]) });
      }
      for (const last of ["dy", "weight"]) {
        const x = bells(size + 3 * rows, 10);
        const [, call] = calls({ norm, rows, cols: cols + 3, x, dy: turns(x.length, [0]) });
        yield { ...call, last };
      }
    }
  }
}

/** All calls whose bits are pinned. */
export function* allCalls(): Generator<Call> {
  yield* operandsCalls();
  yield* forwardBorders();
  yield* backwardBorders();
}

/** What the functions that tell sizes say. */
export function sizesOf({ kernels }: Machine): Uint32Array<ArrayBuffer> {
  const rows = [0, 1, 15, 16, 17, 95, 96, 97, 192, 193, 3071, 3072, 3073, 3329, 6144, 6145, 2 ** 20, 2 ** 31 - 1];
  const cols = [1, 2, 3, 768, 134_217_727, 134_217_728, 2 ** 31, 2 ** 32 - 1];
  const { layerNormBackwardWorkspace, rmsNormBackwardWorkspace, sumsWorkspace } = kernels;
  return Uint32Array.from([
    kernels.sumsGroup(),
    ...rows.map((r) => kernels.sumsChunk(r)),
    ...[layerNormBackwardWorkspace, rmsNormBackwardWorkspace, sumsWorkspace].flatMap((room) =>
      rows.flatMap((r) => cols.map((c) => room(r, c))),
    ),
  ]);
}
