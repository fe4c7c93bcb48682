// The formulas in float64, straight from their definition, and the measures that errors are given in.

export interface Case {
  x: ArrayLike<number>;
  dy?: ArrayLike<number>;
  weight?: ArrayLike<number> | null;
  bias?: ArrayLike<number> | null;
  rows: number;
  cols: number;
  eps: number;
}

/** Of one float32: the weight of the last bit of its mantissa, relative. */
export const UNIT = 2 ** -23;

export function referenceForward({ x, weight, bias, rows, cols, eps }: Case) {
  const y = new Float64Array(rows * cols);
  const xhat = new Float64Array(rows * cols);
  const mean = new Float64Array(rows);
  const rstd = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * cols;
    let m = 0;
    for (let i = 0; i < cols; i++) m += x[start + i]!;
    m /= cols;
    let variance = 0;
    for (let i = 0; i < cols; i++) variance += (x[start + i]! - m) ** 2;
    variance /= cols;
    const r = 1 / Math.sqrt(variance + eps);
    for (let i = 0; i < cols; i++) {
      const value = (x[start + i]! - m) * r;
      xhat[start + i] = value;
      y[start + i] = value * (weight ? weight[i]! : 1) + (bias ? bias[i]! : 0);
    }
    mean[row] = m;
    rstd[row] = r;
  }
  return { y, xhat, mean, rstd };
}

export function referenceBackward(input: Case & { dy: ArrayLike<number> }) {
  const { dy, weight, rows, cols } = input;
  const { xhat, rstd } = referenceForward(input);
  const dx = new Float64Array(rows * cols);
  const dweight = new Float64Array(cols);
  const dbias = new Float64Array(cols);
  for (let row = 0; row < rows; row++) {
    const start = row * cols;
    let a = 0;
    let c = 0;
    for (let i = 0; i < cols; i++) {
      const g = dy[start + i]! * (weight ? weight[i]! : 1);
      a += g / cols;
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

/** The largest of |got - expected| / (2^-23 * scale), `scale` being one number for each stretch of `length`. 0 / 0 is 0, NaN is infinitely far off. */
export function unitsOff(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  scales: number[],
  length: number,
): number {
  if (got.length !== expected.length) throw new Error(`${got.length} numbers, expected ${expected.length}`);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(got[i]! - expected[i]!);
    if (error === 0) continue;
    const units = error / (UNIT * scales[Math.floor(i / length)]!);
    if (Number.isNaN(units)) return Infinity;
    worst = Math.max(worst, units);
  }
  return worst;
}

/**
 * How far y is off, in units of 2^-23 times the largest sum of the magnitudes of the terms of y, |xhat * weight| + |bias|, of
 * its row. What a float32 kernel needs: x - mean, rstd, their product, that with weight and that with bias are five
 * roundings of half a unit; mean and variance, sums of many roundings that mostly cancel, may take as much again.
 */
export function forwardUnits(y: ArrayLike<number>, input: Case): number {
  const reference = referenceForward(input);
  const { weight, bias, rows, cols } = input;
  const scales = Array.from({ length: rows }, (_, row) => {
    let scale = 0;
    for (let i = 0; i < cols; i++) {
      const term = Math.abs(reference.xhat[row * cols + i]! * (weight ? weight[i]! : 1));
      scale = Math.max(scale, term + Math.abs(bias ? bias[i]! : 0));
    }
    return scale;
  });
  return unitsOff(y, reference.y, scales, cols);
}

/**
 * How far mean and rstd are off: the mean in units of 2^-23 of itself or of the standard deviation, whichever is larger, rstd
 * of itself. Half a unit is the rounding to a float, the rest for the sums.
 */
export function statsUnits(mean: ArrayLike<number>, rstd: ArrayLike<number>, input: Case): number {
  const reference = referenceForward(input);
  const sizes = Array.from(reference.mean, (m, row) => Math.max(Math.abs(m), 1 / reference.rstd[row]!));
  return Math.max(unitsOff(mean, reference.mean, sizes, 1), unitsOff(rstd, reference.rstd, [...reference.rstd], 1));
}

/** How far dx is off, in units of 2^-23 * rstd * max|dy * weight| of its row. */
export function dxUnits(dx: ArrayLike<number>, input: Case & { dy: ArrayLike<number> }): number {
  const { dy, weight, rows, cols } = input;
  const { rstd } = referenceForward(input);
  const scales = Array.from({ length: rows }, (_, row) => {
    let scale = 0;
    for (let i = 0; i < cols; i++) scale = Math.max(scale, Math.abs(dy[row * cols + i]! * (weight ? weight[i]! : 1)));
    return scale * rstd[row]!;
  });
  return unitsOff(dx, referenceBackward(input).dx, scales, cols);
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
