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
  /** Those of the rows for which it is given in place of eps. */
  rstd?: ArrayLike<number | undefined>;
}

/** Of one float32: the weight of the last bit of its mantissa, relative. */
export const UNIT = 2 ** -23;
/** The least float32 with all of its digits. Below it floats lie as far apart as there, so no scale is smaller. */
const NORMAL = 2 ** -126;
const atLeastNormal = (value: number) => Math.max(NORMAL, value);
/** The first power of two beyond float32. */
const BEYOND = 2 ** 128;

/** What backward knows of rstd where it is not told eps: the floats that it gets, if they are well within range. */
export const rstdWithoutEps = (rstd: ArrayLike<number>) =>
  Array.from(rstd, (r) => (r > 2 ** -120 && r < 2 ** 120 ? r : undefined));

export function referenceForward({ norm, x, weight, bias, rows, cols, eps, rstd: given }: Case) {
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
    const r = given?.[row] ?? 1 / Math.sqrt(variance + eps);
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

/**
 * The largest of |got - expected| / (2^-23 * scale), `scale` being one number for each stretch of `length`. 0 / 0 is 0, NaN is
 * infinitely far off. Infinity is no error where four units more take the truth beyond float32, nor is anything where the truth
 * itself is not finite.
 */
export function unitsOff(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  scales: ArrayLike<number>,
  length: number,
): number {
  if (got.length !== expected.length) throw new Error(`${got.length} numbers, expected ${expected.length}`);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(expected[i])) continue;
    const error = Math.abs(got[i]! - expected[i]!);
    const unit = UNIT * scales[Math.floor(i / length)]!;
    if (error === 0 || (error === Infinity && Math.abs(expected[i]!) + 4 * unit > BEYOND)) continue;
    const units = error / unit;
    if (Number.isNaN(units)) return Infinity;
    worst = Math.max(worst, units);
  }
  return worst;
}

/** What the kernels give, as far as it is wanted. */
export interface Results {
  y: ArrayLike<number>;
  rstd: ArrayLike<number>;
  dx: ArrayLike<number>;
  dweight: ArrayLike<number>;
  dbias: ArrayLike<number>;
}

/**
 * How far each result is off, in units of 2^-23 of
 *
 *   y        |weight| * max|xhat of the row| + |bias|: an error of the mean is one of every xhat, whatever its weight
 *   rstd     itself
 *   dx       rstd * max|dy * weight| of the row, or itself where it is larger
 *   dweight  the sum over rows of |dy| * max|xhat of the row|
 *   dbias    the sum over rows of |dy|
 *
 * where none of these, nor xhat and dy, count as smaller than the least normal float. To `dweight` and `dbias` one
 * call has added its sums; what they were `before` counts as another row. Nothing is asked of a `dweight` or `dbias`
 * whose scale is beyond float32: its sum may overflow on the way, even where its terms cancel in the end.
 */
export function errorsOf(
  got: Partial<Results>,
  input: Case,
  before: Partial<Pick<Results, "dweight" | "dbias">> = {},
): { [name in keyof Results]?: number } {
  const { dy, weight, bias, rows, cols } = input;
  const { y, xhat, rstd } = referenceForward(input);
  const largest = Array.from({ length: rows }, (_, row) => {
    let most = NORMAL;
    for (let at = row * cols; at < (row + 1) * cols; at++) most = Math.max(most, Math.abs(xhat[at]!));
    return most;
  });
  const terms = y.map((_, at) => {
    const i = at % cols;
    return atLeastNormal(Math.abs(weight ? weight[i]! : 1) * largest[(at - i) / cols]! + Math.abs(bias ? bias[i]! : 0));
  });
  const errors = {
    ...(got.y && { y: unitsOff(got.y, y, terms, 1) }),
    ...(got.rstd && { rstd: unitsOff(got.rstd, rstd, rstd.map(atLeastNormal), 1) }),
  };
  if (!dy) return errors;

  const { dx, dweight, dbias } = backwardOf({ ...input, dy }, { xhat, rstd });
  const ofDx = dx.map(Math.abs);
  const ofDweight = dweight.map((_, i) => Math.abs(before.dweight?.[i] ?? 0));
  const ofDbias = dbias.map((_, i) => Math.abs(before.dbias?.[i] ?? 0));
  for (let row = 0; row < rows; row++) {
    let g = 0;
    for (let i = 0; i < cols; i++) {
      const d = Math.abs(dy[row * cols + i]!);
      g = Math.max(g, atLeastNormal(d) * Math.abs(weight ? weight[i]! : 1));
      ofDweight[i]! += atLeastNormal(d * largest[row]!);
      ofDbias[i]! += d;
    }
    for (let at = row * cols; at < (row + 1) * cols; at++)
      ofDx[at] = Math.max(ofDx[at]!, atLeastNormal(rstd[row]! * atLeastNormal(g)));
  }
  const after = (sum: Float64Array, scales: Float64Array, was: ArrayLike<number> = []) =>
    sum.map((value, i) => (scales[i]! < BEYOND ? (was[i] ?? 0) + value : NaN));
  return {
    ...errors,
    ...(got.dx && { dx: unitsOff(got.dx, dx, ofDx, 1) }),
    ...(got.dweight && { dweight: unitsOff(got.dweight, after(dweight, ofDweight, before.dweight), ofDweight, 1) }),
    ...(got.dbias && { dbias: unitsOff(got.dbias, after(dbias, ofDbias, before.dbias), ofDbias, 1) }),
  };
}

/**
 * How far y is off, as `errorsOf` says. What a float32 kernel needs: x - mean, rstd, their product, that with weight and that
 * with bias are five roundings of half a unit; mean and variance, sums of many roundings that mostly cancel, may take as much
 * again.
 */
export function forwardUnits(y: ArrayLike<number>, input: Case): number {
  return errorsOf({ y }, input).y!;
}

/**
 * How far mean and rstd are off: the mean in units of 2^-23 of itself or of the standard deviation, whichever is larger, rstd
 * of itself. Half a unit is the rounding to a float, the rest for the sums.
 */
export function statsUnits(mean: ArrayLike<number>, rstd: ArrayLike<number>, input: Case): number {
  const reference = referenceForward(input);
  const sizes = Array.from(reference.mean, (m, row) => atLeastNormal(Math.max(Math.abs(m), 1 / reference.rstd[row]!)));
  const own = unitsOff(rstd, reference.rstd, reference.rstd.map(atLeastNormal), 1);
  return Math.max(unitsOff(mean, reference.mean, sizes, 1), own);
}

/** How far dx is off, as `errorsOf` says. */
export function dxUnits(dx: ArrayLike<number>, input: Case & { dy: ArrayLike<number> }): number {
  return errorsOf({ dx }, input).dx!;
}

/** How far a gradient of a parameter is off, in units of 2^-23 times the largest sum of the magnitudes of its terms. */
export function gradientUnits(got: ArrayLike<number>, expected: ArrayLike<number>, terms: ArrayLike<number>): number {
  const cols = expected.length;
  let scale = 0;
  for (let i = 0; i < cols; i++) {
    let sum = 0;
    for (let at = i; at < terms.length; at += cols) sum += Math.abs(terms[at]!);
    scale = Math.max(scale, sum);
  }
  return unitsOff(got, expected, [scale], Math.max(cols, 1));
}
