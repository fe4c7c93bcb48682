/**
 * The norms as functions.
 *
 * Operands are Tensors, which are used where they lie, or Float32Arrays, which are copied to the memory for the call.
 * A result is of the kind of the first operand. With statistics over the trailing dimensions `normalizedShape` of
 * each row,
 *
 *     layerNorm   y = (x - mean) * rstd * weight + bias        rstd = 1 / sqrt(var + eps)
 *     rmsNorm     y = x * rstd * weight                        rstd = 1 / sqrt(mean(x²) + eps)
 *
 * The variance is that of the population (Ba, Kiros and Hinton, "Layer Normalization", 2016; Zhang and Sennrich,
 * "Root Mean Square Layer Normalization", 2019).
 * @module
 */

import {
  type BackwardOptions,
  Call,
  checkAffine,
  checkApart,
  checkRows,
  checkSame,
  type Family,
  FORWARD_OPTIONS,
  type ForwardOptions,
  handOut,
  type Operand,
  type Place,
  placeFor,
  type Result,
  runtimeOf,
} from "./call.js";
import { checkEps, checkNormalizedShape, checkOptions, sameShape, sizeOf, wrongType } from "./check.js";
import { LAYER_NORM } from "./layer-norm.js";
import { RMS_EPS, RMS_NORM } from "./rms-norm.js";
import type { Tensor } from "./tensor.js";

/** The type of a result, which is of the kind of the first operand. */
export type ResultOf<T extends Operand> = T extends Float32Array ? Float32Array<ArrayBuffer> : Tensor;

export interface RMSNormWithStats<T extends Operand> {
  y: T;
  /** One number for each row. A Tensor of it has the leading dimensions of x. */
  rstd: T;
}

export interface WithStats<T extends Operand> extends RMSNormWithStats<T> {
  /** The mean of each row, of the shape of rstd. */
  mean: T;
}

export interface RMSNormGradients<T extends Operand> {
  dx: T;
  /** The gradient of the weight, the sum over the rows of dy * xhat. It is there even if no weight was given. */
  dweight: T;
}

export interface Gradients<T extends Operand> extends RMSNormGradients<T> {
  /** The sum over the rows of dy. */
  dbias: T;
}

export interface RMSNormBackwardOptions<T extends Operand> extends BackwardOptions<T> {
  /** What to add the gradient of the weight to, and to return as `dweight`. */
  dweight?: Operand | undefined;
  /** That of the forward pass. Without it, rows whose variance is small beside eps take longer. */
  eps?: number | undefined;
}

export interface LayerNormBackwardOptions<T extends Operand> extends RMSNormBackwardOptions<T> {
  /** What to add the gradient of the bias to, and to return as `dbias`. */
  dbias?: Operand | undefined;
}

/**
 * Layer normalization of x.
 * @param x a Tensor whose trailing dimensions are `normalizedShape`, or an array of any number of rows of its size
 * @param normalizedShape a positive integer or a list of them
 * @param weight of the shape `normalizedShape`; ones where it is absent
 * @param bias the same; zeros where it is absent
 * @param eps added inside the root
 * @param options `out`: what to write to and return; `residual`: what is added to x before it is normalized; `sum`:
 * what to write x + residual to. Each is of the kind and shape of x. `out` and `sum` may be x or residual
 * @returns a new Tensor or Float32Array of the shape of x, or `out`
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNorm<T extends Operand>(
  x: T,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps = 1e-5,
  options: ForwardOptions<Operand> = {},
  ...rest: never[]
): ResultOf<T> {
  checkNoMore("layerNorm", 6, rest);
  return forward("layerNorm", LAYER_NORM, x, normalizedShape, weight, bias, eps, options, false).y as ResultOf<T>;
}

/** `layerNorm`, with the mean and rstd of each row, which `layerNormBackward` needs. */
export function layerNormWithStats<T extends Operand>(
  x: T,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps = 1e-5,
  options: ForwardOptions<Operand> = {},
  ...rest: never[]
): WithStats<ResultOf<T>> {
  const where = "layerNormWithStats";
  checkNoMore(where, 6, rest);
  return forward(where, LAYER_NORM, x, normalizedShape, weight, bias, eps, options, true) as WithStats<ResultOf<T>>;
}

/**
 * RMS normalization of x.
 * @param x a Tensor whose trailing dimensions are `normalizedShape`, or an array of any number of rows of its size
 * @param normalizedShape a positive integer or a list of them
 * @param weight of the shape `normalizedShape`; ones where it is absent
 * @param eps added inside the root; 2⁻²³ by default, as in PyTorch
 * @param options as for `layerNorm`
 * @returns a new Tensor or Float32Array of the shape of x, or `out`
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function rmsNorm<T extends Operand>(
  x: T,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  eps = RMS_EPS,
  options: ForwardOptions<Operand> = {},
  ...rest: never[]
): ResultOf<T> {
  checkNoMore("rmsNorm", 5, rest);
  return forward("rmsNorm", RMS_NORM, x, normalizedShape, weight, null, eps, options, false).y as ResultOf<T>;
}

/** `rmsNorm`, with the rstd of each row, which `rmsNormBackward` needs. */
export function rmsNormWithStats<T extends Operand>(
  x: T,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  eps = RMS_EPS,
  options: ForwardOptions<Operand> = {},
  ...rest: never[]
): RMSNormWithStats<ResultOf<T>> {
  const where = "rmsNormWithStats";
  checkNoMore(where, 5, rest);
  return forward(where, RMS_NORM, x, normalizedShape, weight, null, eps, options, true) as RMSNormWithStats<
    ResultOf<T>
  >;
}

/**
 * The gradients of a loss with respect to x, weight and bias, given that with respect to y.
 *
 *     dx = rstd * (g - mean(g) - xhat * mean(g * xhat))        g = dy * weight, xhat = (x - mean) * rstd
 *
 * @param dy the gradient with respect to y: rows of normalized dimensions
 * @param x what was normalized, of the shape of dy
 * @param mean one number for each row, as `layerNormWithStats` gives them
 * @param rstd the same
 * @param weight as in the forward pass; ones where it is absent
 * @param options `out`: what to write dx to; `add`: what is added to dx. Both are of the kind and shape of dy, and
 * `out` may be dy or add. `dweight`, `dbias`: what to add those gradients to; `eps`: that of the forward pass
 * @returns Tensors or Float32Arrays, as dy is: new ones, or those given; dweight and dbias are of the normalized shape
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNormBackward<T extends Operand>(
  dy: T,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
  options: LayerNormBackwardOptions<Operand> = {},
  ...rest: never[]
): Gradients<ResultOf<T>> {
  const where = "layerNormBackward";
  checkNoMore(where, 6, rest);
  return backward(where, LAYER_NORM, dy, x, mean, rstd, weight, options) as Gradients<ResultOf<T>>;
}

/**
 * The gradients of a loss with respect to x and weight, given that with respect to y.
 *
 *     dx = rstd * (g - xhat * mean(g * xhat))        g = dy * weight, xhat = x * rstd
 *
 * @param dy the gradient with respect to y: rows of normalized dimensions
 * @param x what was normalized, of the shape of dy
 * @param rstd one number for each row, as `rmsNormWithStats` gives them
 * @param weight as in the forward pass; ones where it is absent
 * @param options as for `layerNormBackward`, without `dbias`
 * @returns Tensors or Float32Arrays, as dy is: new ones, or those given; dweight is of the normalized shape
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function rmsNormBackward<T extends Operand>(
  dy: T,
  x: Operand,
  rstd: Operand,
  weight?: Operand | null,
  options: RMSNormBackwardOptions<Operand> = {},
  ...rest: never[]
): RMSNormGradients<ResultOf<T>> {
  const where = "rmsNormBackward";
  checkNoMore(where, 5, rest);
  return backward(where, RMS_NORM, dy, x, null, rstd, weight, options) as RMSNormGradients<ResultOf<T>>;
}

function checkNoMore(where: string, most: number, rest: readonly unknown[]): void {
  if (rest.length > 0) {
    wrongType(`${where}: argument ${most + 1}`, rest[0], `no more than ${most} arguments`);
  }
}

function forward(
  where: string,
  family: Family,
  x: Operand,
  normalizedShape: number | readonly number[],
  weight: Operand | null | undefined,
  bias: Operand | null | undefined,
  eps: number,
  options: ForwardOptions<Operand>,
  stats: boolean,
): { y: Operand; mean?: Operand; rstd?: Operand } {
  checkOptions(where, options, FORWARD_OPTIONS);
  const { out, residual, sum } = options;
  const runtime = runtimeOf(x, weight, bias);
  const trailing = checkNormalizedShape(`${where}: normalizedShape`, normalizedShape);
  const call = new Call(where, runtime, family, sizeOf(trailing), false);
  call.weight = takeAffine(call, "weight", weight, trailing);
  call.bias = takeAffine(call, "bias", bias, trailing);
  call.eps = checkEps(`${where}: eps`, eps);
  const source = call.takeForward(x, trailing, out, residual, sum);
  if (!stats) return { y: call.placeForward(null).run() };
  const shape = source.array === null ? source.shape.slice(0, -trailing.length) : [call.rows];
  const mean = family.hasMean ? call.makeLike(source, shape) : null;
  const rstd = call.makeLike(source, shape);
  call.mean = mean && placeFor(mean);
  call.rstd = placeFor(rstd);
  const y = call.placeForward(null).run();
  return { y, ...(mean && { mean: handOut(mean) }), rstd: handOut(rstd) };
}

function backward(
  where: string,
  family: Family,
  dy: Operand,
  x: Operand,
  mean: Operand | null,
  rstd: Operand,
  weight: Operand | null | undefined,
  options: LayerNormBackwardOptions<Operand>,
): { dx: Operand; dweight: Operand; dbias?: Operand } {
  checkOptions(where, options, ["out", "add", "dweight", ...(family.hasMean ? ["dbias"] : []), "eps"]);
  const { out, add, dweight, dbias, eps } = options;
  const call = new Call(where, runtimeOf(dy, x, mean, rstd, weight), family, 0, false);
  const source = call.take("dy", dy);
  const xPlace = call.take("x", x);
  const rstdPlace = call.take("rstd", rstd);
  const meanPlace = family.hasMean ? call.take("mean", mean) : null;
  const weightPlace = weight === null || weight === undefined ? null : call.take("weight", weight);
  checkSame(where, "x", xPlace, "dy", source);
  if (meanPlace) checkSame(where, "rstd", rstdPlace, "mean", meanPlace);
  const rows = rstdPlace.size;
  const trailing = normalizedShapeOf(source, rstdPlace, weightPlace);
  const cols = sizeOf(trailing);
  if (source.array === null) checkRows(where, "dy", source, trailing, cols);
  if (source.size !== rows * cols) {
    throw new RangeError(
      `${where}: dy has ${source.size} elements, expected ${rows} rows, one for each rstd, of the same size`,
    );
  }
  if (weightPlace) checkAffine(where, "weight", weightPlace, trailing);
  call.cols = cols;
  call.rows = rows;
  if (eps !== undefined) call.eps = checkEps(`${where}: eps`, eps);
  call.x = xPlace;
  call.mean = meanPlace;
  call.rstd = rstdPlace;
  call.weight = weightPlace;
  call.takeBackward(source, out, add);
  const given = { dweight, dbias };
  const names = family.hasMean ? (["dweight", "dbias"] as const) : (["dweight"] as const);
  for (const name of names) {
    const place = takeAffine(call, name, given[name], trailing);
    if (place === null) continue;
    call.checkBackward(name, place);
    checkApart(where, name, place, "dy", source);
    checkApart(where, name, place, "add", call.add);
    checkApart(where, name, place, "out", call.dx);
    checkApart(where, name, place, "dweight", call.dweight);
    call[name] = place;
  }
  const sums: Partial<Record<"dweight" | "dbias", Result>> = {};
  for (const name of names) {
    const place = call[name];
    const sum =
      place === null ? call.makeLike(source, trailing) : place.array === null ? (given[name] as Tensor) : place;
    sums[name] = sum;
    if (place !== null) continue;
    call[name] = placeFor(sum);
    if (call[name].array === null) call[name].data.fill(0);
  }
  const dx = call.placeBackward().run();
  return { dx, dweight: handOut(sums.dweight as Result), ...(sums.dbias && { dbias: handOut(sums.dbias) }) };
}

/** A parameter or its gradient, null where it is absent. */
function takeAffine(
  call: Call,
  name: string,
  value: Operand | null | undefined,
  normalizedShape: readonly number[],
): Place | null {
  if (value === null || value === undefined) return null;
  const place = call.take(name, value);
  checkAffine(call.where, name, place, normalizedShape);
  return place;
}

/** The normalized shape of a backward pass, as far as the operands tell it. */
function normalizedShapeOf(dy: Place, rstd: Place, weight: Place | null): readonly number[] {
  if (weight?.array === null) return weight.shape;
  if (dy.array === null && rstd.array === null) {
    const leading = rstd.shape.length;
    if (leading < dy.shape.length && sameShape(dy.shape.slice(0, leading), rstd.shape)) {
      return dy.shape.slice(leading);
    }
  }
  if (weight) return [weight.size];
  if (rstd.size === 0) return dy.array === null ? dy.shape.slice(-1) : [dy.size];
  return [Math.floor(dy.size / rstd.size)];
}
