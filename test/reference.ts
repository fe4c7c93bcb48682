// The formulas in float64, straight from their definition, and the measures that errors are given in.

export interface Case {
  /** layerNorm when absent. */
  norm?: "layerNorm" | "rmsNorm";
  x: ArrayLike<number>;
  dy?: ArrayLike<number> | undefined;
  weight?: ArrayLike<number> | null;
  bias?: ArrayLike<number> | null;
  rows: number;
  cols: number;
  eps: number;
}

/** Of one float32: the weight of the last bit of its mantissa, relative. */
export const UNIT = 2 ** -23;

/** What the kernels give, as far as it is wanted. */
export type Results = Record<"y" | "mean" | "rstd" | "dx" | "dweight" | "dbias", ArrayLike<number>>;

type Units = { [name in keyof Results]?: number };

/** The units that a result may be off, as `errorsOf` counts them: docs/guides/numerics.md derives them. */
export const LIMITS: Record<NonNullable<Case["norm"]>, Record<keyof Results, number>> = {
  layerNorm: { y: 6, mean: 2.25, rstd: 3.5, dx: 16, dweight: 9, dbias: 4 },
  rmsNorm: { y: 2.25, mean: 0, rstd: 1.25, dx: 8.25, dweight: 6.25, dbias: 0 },
};

/** The least float32 with all of its digits. Below it floats lie as far apart as there, and products lose digits. */
const NORMAL = 2 ** -126;
/** Beyond these sizes of its terms a result may overflow on the way: those of dx take part in sums and products of a few. */
const LARGEST = { y: 2 ** 127, mean: 2 ** 127, rstd: 2 ** 128, dx: 2 ** 124, dweight: 2 ** 127, dbias: 2 ** 127 };

export function referenceForward({ norm, x, weight, bias, rows, cols, eps }: Case) {
  const y = new Float64Array(rows * cols);
  const xhat = new Float64Array(rows * cols);
  const mean = new Float64Array(rows);
  const rstd = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * cols;
    // The mean is m + rest: one double cannot hold it well enough for a row whose numbers differ in their last bits alone.
    let m = 0;
    let rest = 0;
    if (norm !== "rmsNorm") {
      for (let i = 0; i < cols; i++) m += x[start + i]!;
      m /= cols;
      for (let i = 0; i < cols; i++) rest += x[start + i]! - m;
      rest /= cols;
    }
    let variance = 0;
    for (let i = 0; i < cols; i++) variance += (x[start + i]! - m - rest) ** 2;
    variance /= cols;
    const r = 1 / Math.sqrt(variance + eps);
    for (let i = 0; i < cols; i++) {
      const value = (x[start + i]! - m - rest) * r;
      xhat[start + i] = value;
      y[start + i] = value * (weight ? weight[i]! : 1) + (bias ? bias[i]! : 0);
    }
    mean[row] = m + rest;
    rstd[row] = r;
  }
  return { y, xhat, mean, rstd };
}

export function referenceBackward(input: Case & { dy: ArrayLike<number> }) {
  return backwardOf(input, referenceForward(input));
}

function backwardOf(
  { norm, dy, weight, rows, cols }: Case & { dy: ArrayLike<number> },
  { xhat, rstd }: { xhat: Float64Array; rstd: Float64Array },
) {
  const dx = new Float64Array(rows * cols);
  const dweight = new Float64Array(cols);
  const dbias = new Float64Array(cols);
  for (let row = 0; row < rows; row++) {
    const start = row * cols;
    let a = 0;
    let c = 0;
    for (let i = 0; i < cols; i++) {
      const g = dy[start + i]! * (weight ? weight[i]! : 1);
      if (norm !== "rmsNorm") a += g / cols;
      c += (g * xhat[start + i]!) / cols;
      dweight[i]! += dy[start + i]! * xhat[start + i]!;
      dbias[i]! += dy[start + i]!;
    }
    for (let i = 0; i < cols; i++) {
      const g = dy[start + i]! * (weight ? weight[i]! : 1);
      dx[start + i] = rstd[row]! * (g - a - xhat[start + i]! * c);
    }
  }
  return { dx, dweight, dbias };
}

/** The largest of |got - expected| / (2^-23 * scale). 0 / 0 is 0, NaN is infinitely far off, but of NaN nothing is. */
export function unitsOff(got: ArrayLike<number>, expected: ArrayLike<number>, scales: ArrayLike<number>): number {
  if (got.length !== expected.length) throw new Error(`${got.length} numbers, expected ${expected.length}`);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    if (got[i] === expected[i] || Number.isNaN(expected[i])) continue;
    const units = Math.abs(got[i]! - expected[i]!) / (UNIT * scales[i]!);
    if (Number.isNaN(units)) return Infinity;
    worst = Math.max(worst, units);
  }
  return worst;
}

/**
 * How far each result is off, in units of 2^-23 of the sizes of the terms of its formula:
 *
 *   y        |weight| * (1 + |xhat|) + |bias|; for RMSNorm |weight| * (|xhat| + 2^-126)
 *   mean     |mean| + 1 / rstd
 *   rstd     rstd
 *   dx       rstd * (|g| + (1 + |xhat|) * rms(g)), g = dy * weight and rms(g) that of the row
 *   dweight  the sum over rows of |dy| * (1 + |xhat|)
 *   dbias    the sum over rows of |dy|
 *
 * each 2^-126 larger, for dweight once a row. To `dweight` and `dbias` one call has added its sums; what they were
 * `before` counts as another row. Nothing is asked of what is not finite, nor where the scale is beyond `LARGEST`, nor
 * of a dx whose g are all too small for a float, nor of the gradients of rows whose rstd is too large for a float: then
 * backward takes eps as 0.
 */
export function errorsOf(
  got: Partial<Results>,
  input: Case,
  before: Partial<Pick<Results, "dweight" | "dbias">> = {},
): Units {
  const { norm, dy, weight, bias, rows, cols, eps } = input;
  const { y, xhat, mean, rstd } = referenceForward(input);
  const least = norm === "rmsNorm" ? NORMAL : 1;
  const expected: Results = {
    y,
    mean,
    rstd,
    dx: [],
    dweight: [],
    dbias: [],
    ...(dy && backwardOf({ ...input, dy }, { xhat, rstd })),
  };
  const scales = {
    y: y.map(
      (_, at) =>
        Math.abs(weight ? weight[at % cols]! : 1) * (least + Math.abs(xhat[at]!)) + Math.abs(bias?.[at % cols] ?? 0),
    ),
    mean: mean.map((m, row) => Math.abs(m) + 1 / rstd[row]!),
    rstd: rstd.slice(),
    dx: new Float64Array(rows * cols),
    dweight: Float64Array.from({ length: cols }, (_, i) => Math.abs(before.dweight?.[i] ?? 0)),
    dbias: Float64Array.from({ length: cols }, (_, i) => Math.abs(before.dbias?.[i] ?? 0)),
  };
  for (let row = 0; dy && row < rows; row++) {
    const start = row * cols;
    const g = Float64Array.from({ length: cols }, (_, i) => Math.abs(dy[start + i]! * (weight ? weight[i]! : 1)));
    const rms = Math.sqrt(g.reduce((sum, v) => sum + v * v, 0) / cols);
    const known = rstd[row]! < 2 ** 128 || eps === 0;
    const vanished = rms > 0 && g.every((v) => Math.fround(v) === 0);
    for (let i = 0; i < cols; i++) {
      const x = 1 + Math.abs(xhat[start + i]!);
      const d = Math.abs(dy[start + i]!);
      scales.dx[start + i] = known && !vanished ? rstd[row]! * (g[i]! + x * rms) : Infinity;
      scales.dweight[i]! += known ? d * x + (row > 0 ? NORMAL : 0) : Infinity;
      scales.dbias[i]! += d;
    }
  }
  const errors: Units = {};
  for (const name of Object.keys(LIMITS.layerNorm) as (keyof Results)[]) {
    const own = got[name];
    if (!own) continue;
    const was = name === "dweight" || name === "dbias" ? before[name] : undefined;
    const truth = Float64Array.from(expected[name], (value, i) => value + (was?.[i] ?? 0));
    const asked = truth.map((value, i) => (Number.isFinite(value) && scales[name][i]! < LARGEST[name] ? value : NaN));
    errors[name] = unitsOff(
      own,
      asked,
      scales[name].map((scale) => scale + NORMAL),
    );
  }
  return errors;
}

/** The results that are more units off than `share` of their limits. */
export function beyond(
  got: Partial<Results>,
  input: Case,
  { before = {}, share = 1 }: { before?: Parameters<typeof errorsOf>[2]; share?: number } = {},
): Units {
  const limits = LIMITS[input.norm ?? "layerNorm"];
  const errors = Object.entries(errorsOf(got, input, before)) as [keyof Results, number][];
  return Object.fromEntries(errors.filter(([name, units]) => !(units <= limits[name] * share)));
}
