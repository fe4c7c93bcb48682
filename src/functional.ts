/**
 * The norms as functions.
 *
 * Operands are Tensors, which are used where they lie, or arrays of numbers, which are copied to the memory for the
 * call. A result is of the kind of the first operand. With statistics over the trailing dimensions `normalizedShape` of
 * each row,
 *
 *     layerNorm   y = (x - mean) * rstd * weight + bias        rstd = 1 / sqrt(var + eps)
 *
 *     rmsNorm     y = x * rstd * weight                        rstd = 1 / sqrt(mean(x²) + eps)
 *
 * The variance is that of the population (Ba, Kiros and Hinton, "Layer Normalization", 2016; Zhang and Sennrich,
 * "Root Mean Square Layer Normalization", 2019).
 * @module
 */

import { Call } from "./call.js";
import * as check from "./check.js";
import { workspaceOf } from "./kernels.js";
import { LAYER_NORM } from "./layer-norm.js";
import { type Family, FORWARD_OPTIONS } from "./norm.js";
import { READ, runtimeOf, WRITTEN } from "./operand.js";
import { RMS_NORM } from "./rms-norm.js";
import { storageIn } from "./tensor.js";
import type { BackwardOptions, ForwardOptions, Operand, ResultOf, Target } from "./types.js";

/** y, and `rstd` of each row: one number for each. A Tensor of them has the leading dimensions of x. */
export type RMSNormWithStats<T extends Operand, Stat = T> = { y: T; rstd: Stat };

/** The same with the mean of each row. */
export type WithStats<T extends Operand, Stat = T> = { y: T; mean: Stat; rstd: Stat };

/** dx, and the gradient of the weight: the sum over the rows of dy * xhat, which is there even without a weight. */
export type RMSNormGradients<T extends Operand, W = T> = { dx: T; dweight: W };

/** The same with the gradient of the bias: the sum over the rows of dy. */
export type Gradients<T extends Operand, W = T, B = T> = { dx: T; dweight: W; dbias: B };

/** `dweight` is what to add that gradient to, and to return. `eps` is that of the forward pass, and not used. */
export type RMSNormBackwardOptions<T extends Operand, R = Target<T>, W = Target<T>> = BackwardOptions<T, R> & {
  dweight?: W | undefined;
  eps?: number | undefined;
};

/** The same with `dbias`, what to add the gradient of the bias to and to return. */
export type LayerNormBackwardOptions<T extends Operand, R = Target<T>, W = Target<T>, B = W> = {
  dbias?: B | undefined;
} & RMSNormBackwardOptions<T, R, W>;

/**
 * Layer normalization of x.
 * @param x a Tensor whose trailing dimensions are `normalizedShape`, or an array of any number of rows of its size
 * @param normalizedShape a positive integer or a list of them
 * @param weight of the shape `normalizedShape`; ones where it is absent
 * @param bias the same; zeros where it is absent
 * @param eps added inside the root; 1e-5 by default, as in PyTorch
 * @param options `out` receives the result, and is what is returned. `residual` is added to x: the result is the norm
 * of x + residual, which `sum` receives. Each is of the kind and shape of x. `out` and `sum` may be x or residual
 * @returns a new Tensor or array of the shape of x, or `out`
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNorm<X extends Operand, R extends Target<X> = ResultOf<X>>(
  x: X,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
  options?: ForwardOptions<X, R>,
): NoInfer<R> {
  return forward("layerNorm", LAYER_NORM, [], x, normalizedShape, weight, bias, eps, options).y;
}

/** `layerNorm`, with the mean and rstd of each row, which `layerNormBackward` needs. */
export function layerNormWithStats<X extends Operand, R extends Target<X> = ResultOf<X>>(
  x: X,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  bias?: Operand | null,
  eps?: number,
  options?: ForwardOptions<X, R>,
): WithStats<NoInfer<R>, ResultOf<X>> {
  return forward("layerNormWithStats", LAYER_NORM, ["mean", "rstd"], x, normalizedShape, weight, bias, eps, options);
}

/**
 * RMS normalization of x.
 * @param x a Tensor whose trailing dimensions are `normalizedShape`, or an array of any number of rows of its size
 * @param normalizedShape a positive integer or a list of them
 * @param weight of the shape `normalizedShape`; ones where it is absent
 * @param eps added inside the root; 2⁻²³ by default, as in PyTorch
 * @param options as for `layerNorm`
 * @returns a new Tensor or array of the shape of x, or `out`
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function rmsNorm<X extends Operand, R extends Target<X> = ResultOf<X>>(
  x: X,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  eps?: number,
  options?: ForwardOptions<X, R>,
): NoInfer<R> {
  return forward("rmsNorm", RMS_NORM, [], x, normalizedShape, weight, null, eps, options).y;
}

/** `rmsNorm`, with the rstd of each row, which `rmsNormBackward` needs. */
export function rmsNormWithStats<X extends Operand, R extends Target<X> = ResultOf<X>>(
  x: X,
  normalizedShape: number | readonly number[],
  weight?: Operand | null,
  eps?: number,
  options?: ForwardOptions<X, R>,
): RMSNormWithStats<NoInfer<R>, ResultOf<X>> {
  return forward("rmsNormWithStats", RMS_NORM, ["rstd"], x, normalizedShape, weight, null, eps, options);
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
 * @param options `out` receives dx. `add` is added to dx. Both have the kind and shape of dy, and `out` may be either
 * dy or add. `dweight` and `dbias` are added to. `eps` is accepted and not used
 * @returns Tensors or arrays, as dy is: new ones, or those given; dweight and dbias are of the normalized shape
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function layerNormBackward<
  D extends Operand,
  R extends Target<D> = ResultOf<D>,
  W extends Target = ResultOf<D>,
  B extends Target = ResultOf<D>,
>(
  dy: D,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
  options?: LayerNormBackwardOptions<D, R, W, B>,
): Gradients<NoInfer<R>, NoInfer<W>, NoInfer<B>> {
  return backward("layerNormBackward", LAYER_NORM, ["dweight", "dbias"], dy, x, mean, rstd, weight, options);
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
 * @returns Tensors or arrays, as dy is: new ones, or those given; dweight is of the normalized shape
 * @throws TypeError, RangeError for operands that don't fit, or when the memory is full
 */
export function rmsNormBackward<D extends Operand, R extends Target<D> = ResultOf<D>, W extends Target = ResultOf<D>>(
  dy: D,
  x: Operand,
  rstd: Operand,
  weight?: Operand | null,
  options?: RMSNormBackwardOptions<D, R, W>,
): RMSNormGradients<NoInfer<R>, NoInfer<W>> {
  return backward("rmsNormBackward", RMS_NORM, ["dweight"], dy, x, null, rstd, weight, options);
}

/** A forward pass. Its results have the types that each function declares. */
function forward(
  where: string,
  family: Family,
  stats: readonly ("mean" | "rstd")[],
  x: Operand,
  normalizedShape: number | readonly number[],
  weight: Operand | null | undefined,
  bias: Operand | null | undefined,
  eps: number = family.eps,
  options: ForwardOptions<Operand> = {},
): WithStats<never> {
  check.checkOptions(where, options, FORWARD_OPTIONS);
  const { out, residual, sum } = options;
  const { kernel } = family.forward;
  const normalized = check.checkNormalizedShape(`${where}: normalizedShape`, normalizedShape);
  const call = new Call(where, runtimeOf(x, weight, bias), kernel, normalized);
  call.takeAffine(kernel.weight, weight, READ);
  call.takeAffine(kernel.bias, bias, READ);
  call.args[kernel.eps] = check.checkEps(`${where}: eps`, eps);
  const { shape, array } = call.takeSource(x);
  const leading = shape?.slice(0, -normalized.shape.length) ?? [call.rows];
  call.takeOptions(residual, sum, out);
  const results = {} as Record<"mean" | "rstd", Operand>;
  for (const name of stats) {
    results[name] = call.make(leading, array);
    call.take(kernel[name], results[name], WRITTEN);
  }
  return { y: call.place().run(), ...results } as WithStats<never>;
}

/** A backward pass, in the same way. */
function backward(
  where: string,
  family: Family,
  names: readonly ("dweight" | "dbias")[],
  dy: Operand,
  x: Operand,
  mean: Operand | null,
  rstd: Operand,
  weight: Operand | null | undefined,
  options: LayerNormBackwardOptions<Operand> = {},
): Gradients<never> {
  const { kernel } = family.backward;
  check.checkOptions(where, options, ["out", "add", ...names, "eps"]);
  const { out, add, dweight, dbias, eps } = options;
  const shape = normalizedShapeOf(dy, x, rstd, weight ?? dweight ?? dbias);
  const normalized = { shape, size: check.sizeOf(shape) };
  const call = new Call(where, runtimeOf(dy, x, mean, rstd, weight), kernel, normalized);
  const rstdPlace = call.take(kernel.rstd, rstd, READ);
  if (kernel.mean >= 0) call.checkSize(kernel.rstd, rstdPlace, call.take(kernel.mean, mean, READ), "mean");
  const source = call.takeSource(dy, rstdPlace.size);
  call.checkSize(kernel.x, call.take(kernel.x, x, READ), source, "dy");
  call.takeAffine(kernel.weight, weight, READ);
  if (eps !== undefined) check.checkEps(`${where}: eps`, eps);
  call.workspace = workspaceOf(call.runtime.kernels, kernel, call.rows, normalized.size);
  const sums: Record<string, Operand | null | undefined> = { dweight, dbias };
  for (const name of names) call[name] = call.takeAffine(kernel[name], sums[name], READ | WRITTEN);
  call.takeOptions(add, undefined, out);
  for (const name of names) {
    if (call[name] !== null) continue;
    sums[name] = call.make(shape, source.array);
    storageIn(sums[name])?.data.fill(0);
    call[name] = call.take(kernel[name], sums[name], READ | WRITTEN);
  }
  const results = { dx: call.place().run() } as Record<string, unknown>;
  for (const name of names) results[name] = call[name]?.array ?? sums[name];
  return results as Gradients<never>;
}

/** The normalized shape of a backward pass, as far as the operands tell it. They are yet to be checked. */
function normalizedShapeOf(dy: Operand, x: Operand, rstd: Operand, affine?: Operand | null): readonly number[] {
  const sizeOf = (operand?: Operand | null) => storageIn(operand)?.size ?? (operand as Float32Array)?.length;
  const [shape, leading, own, ofX] = [dy, rstd, affine, x].map((operand) => storageIn(operand)?.shape);
  if (own) return own;
  if (shape && leading && leading.length < shape.length && check.sameShape(shape.slice(0, leading.length), leading)) {
    return shape.slice(leading.length);
  }
  if (affine) return [sizeOf(affine)];
  if (sizeOf(rstd) > 0) return [Math.floor(sizeOf(dy) / sizeOf(rstd))];
  return (shape ?? ofX)?.slice(-1) ?? [0];
}
