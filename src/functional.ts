/**
 * Layer normalization as functions: check the shapes, pass the pointers.
 *
 * Operands are Tensors, which are used where they are, or Float32Arrays, which are copied into the memory for the length of
 * the call; a result is of the kind of the first operand. Each function is, per row of x and with statistics over the
 * trailing dimensions `normalizedShape`,
 *
 *     y = (x - mean) * rstd * weight + bias        rstd = 1 / sqrt(var + eps)
 *
 * with the population variance (Ba, Kiros and Hinton, "Layer Normalization", 2016).
 * @module
 */

import { checkEps, checkNormalizedShape, sameShape, sizeOf } from "./check.js";
import {
  checkAffine,
  checkRows,
  checkSame,
  commonRuntime,
  countOf,
  type Operand,
  onTensors,
  pointerOf,
  shapeOf,
  workspaceFor,
} from "./operand.js";
import { Tensor } from "./tensor.js";

export interface WithStats<T extends Operand> {
  y: T;
  /** One per row: the leading dimensions of x, or their product for an array. */
  mean: T;
  /** 1 / sqrt(var + eps), one per row. */
  rstd: T;
}

export interface Gradients<T extends Operand> {
  dx: T;
  /** The sum over the rows of dy * xhat: what a weight would get, also where there is none. */
  dweight: T;
  /** The sum over the rows of dy. */
  dbias: T;
}

/**
 * Layer normalization of x.
 * @param x a Tensor whose trailing dimensions are `normalizedShape`, or an array of any number of rows of its size
 * @param normalizedShape a positive integer or a list of them
 * @param weight, bias of the shape `normalizedShape`; absent: ones, zeros
 * @returns a new Tensor or Float32Array of the shape of x
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNorm(
  x: Tensor,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): Tensor;
export function layerNorm(
  x: Float32Array,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): Float32Array<ArrayBuffer>;
export function layerNorm(
  x: Operand,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): Operand;
export function layerNorm(
  x: Operand,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps = 1e-5,
): Operand {
  return forward("layerNorm", x, normalizedShape, weight, bias, eps, false).y;
}

/** `layerNorm`, with the mean and rstd of each row, which `layerNormBackward` needs. */
export function layerNormWithStats(
  x: Tensor,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): WithStats<Tensor>;
export function layerNormWithStats(
  x: Float32Array,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): WithStats<Float32Array<ArrayBuffer>>;
export function layerNormWithStats(
  x: Operand,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
): WithStats<Operand>;
export function layerNormWithStats(
  x: Operand,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps = 1e-5,
): WithStats<Operand> {
  return forward("layerNormWithStats", x, normalizedShape, weight, bias, eps, true) as WithStats<Operand>;
}

/**
 * The gradients of a loss with respect to x, weight and bias, given that with respect to y.
 *
 *     dx = rstd * (g - mean(g) - xhat * mean(g * xhat))        g = dy * weight, xhat = (x - mean) * rstd
 *
 * @param dy, x of the same shape: rows of normalized dimensions
 * @param mean, rstd one per row, as `layerNormWithStats` gives them
 * @param weight as in the forward pass; absent: ones
 * @returns new Tensors or Float32Arrays, as dy is; dweight and dbias of the normalized shape
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNormBackward(
  dy: Tensor,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
): Gradients<Tensor>;
export function layerNormBackward(
  dy: Float32Array,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
): Gradients<Float32Array<ArrayBuffer>>;
export function layerNormBackward(
  dy: Operand,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
): Gradients<Operand>;
export function layerNormBackward(
  dy: Operand,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
): Gradients<Operand> {
  const where = "layerNormBackward";
  const runtime = commonRuntime(where, { dy, x, mean, rstd, weight });
  checkSame(where, "x", x, "dy", dy);
  checkSame(where, "rstd", rstd, "mean", mean);
  const rows = countOf(mean);
  const normalizedShape = normalizedShapeOf(dy, mean, weight);
  const cols = sizeOf(normalizedShape);
  if (dy instanceof Tensor) checkRows(where, "dy", dy, normalizedShape, cols);
  if (countOf(dy) !== rows * cols) {
    throw new RangeError(
      `${where}: dy has ${countOf(dy)} elements, expected ${rows} rows, one for each mean, of the same size`,
    );
  }
  if (weight) checkAffine(where, "weight", weight, normalizedShape);
  const shape = shapeOf(dy);
  const operands = [dy, x, mean, rstd, weight] as const;
  return onTensors(runtime, operands, dy instanceof Tensor, ([dy, x, mean, rstd, weight], scope) => {
    const dx = scope.make(shape);
    const dweight = scope.make(normalizedShape);
    const dbias = scope.make(normalizedShape);
    const workspace = workspaceFor(rows, cols, runtime.kernels, scope);
    dweight.data.fill(0);
    dbias.data.fill(0);
    runtime.kernels.layerNormBackward(
      dx.pointer,
      dweight.pointer,
      dbias.pointer,
      dy.pointer,
      x.pointer,
      mean.pointer,
      rstd.pointer,
      pointerOf(weight),
      rows,
      cols,
      pointerOf(workspace),
    );
    return { dx, dweight, dbias };
  });
}

function forward(
  where: string,
  x: Operand,
  normalizedShape: number | readonly number[],
  weight: Operand | null | undefined,
  bias: Operand | null | undefined,
  eps: number,
  stats: boolean,
): Partial<WithStats<Operand>> & { y: Operand } {
  const runtime = commonRuntime(where, { x, weight, bias });
  const trailing = checkNormalizedShape(`${where}: normalizedShape`, normalizedShape);
  const cols = sizeOf(trailing);
  const rows = checkRows(where, "x", x, trailing, cols);
  if (weight) checkAffine(where, "weight", weight, trailing);
  if (bias) checkAffine(where, "bias", bias, trailing);
  checkEps(`${where}: eps`, eps);
  const shape = shapeOf(x);
  const perRow = x instanceof Tensor ? shape.slice(0, -trailing.length) : [rows];
  return onTensors(runtime, [x, weight, bias], x instanceof Tensor, ([x, weight, bias], scope) => {
    const y = scope.make(shape);
    const statistics = stats ? { mean: scope.make(perRow), rstd: scope.make(perRow) } : {};
    runtime.kernels.layerNormForward(
      y.pointer,
      pointerOf(statistics.mean),
      pointerOf(statistics.rstd),
      x.pointer,
      pointerOf(weight),
      pointerOf(bias),
      rows,
      cols,
      eps,
    );
    return { y, ...statistics };
  });
}

/** The normalized shape of a backward pass, as far as the operands tell it. */
function normalizedShapeOf(dy: Operand, mean: Operand, weight: Operand | null | undefined): readonly number[] {
  if (weight instanceof Tensor) return weight.shape;
  if (dy instanceof Tensor && mean instanceof Tensor) {
    const leading = mean.shape.length;
    if (leading < dy.shape.length && sameShape(dy.shape.slice(0, leading), mean.shape)) return dy.shape.slice(leading);
  }
  if (weight) return [weight.length];
  if (countOf(mean) === 0) return shapeOf(dy).slice(-1);
  return [Math.floor(countOf(dy) / countOf(mean))];
}
