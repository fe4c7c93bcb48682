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

import { checkEps, checkNormalizedShape, describe, isFloat32Array, sameShape, sizeOf } from "./check.js";
import { Runtime } from "./runtime.js";
import { live, Scope, Tensor } from "./tensor.js";

/** What the functions and the module compute on. */
export type Operand = Float32Array | Tensor;

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
): Float32Array;
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
): WithStats<Float32Array>;
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
): Gradients<Float32Array>;
export function layerNormBackward(
  dy: Operand,
  x: Operand,
  mean: Operand,
  rstd: Operand,
  weight?: Operand | null,
): Gradients<Operand> {
  const where = "layerNormBackward";
  const runtime = commonRuntime(where, { dy, x, mean, rstd, weight });
  checkSame(`${where}: x`, x, "dy", dy);
  checkSame(`${where}: rstd`, rstd, "mean", mean);
  const rows = countOf(mean);
  const normalizedShape = normalizedShapeOf(dy, mean, weight);
  const cols = sizeOf(normalizedShape);
  if (countOf(dy) !== rows * cols) {
    throw new RangeError(
      `${where}: dy has ${countOf(dy)} elements, expected ${rows} rows, one for each mean, of the same size`,
    );
  }
  if (weight) checkAffine(`${where}: weight`, weight, normalizedShape);
  return onTensors(runtime, [dy, x, mean, rstd, weight], dy instanceof Tensor, (operands, scope) => {
    const dx = scope.make(shapeOf(dy));
    const dweight = scope.make(normalizedShape);
    const dbias = scope.make(normalizedShape);
    dweight.data.fill(0);
    dbias.data.fill(0);
    const pointers = [dx, dweight, dbias, ...operands].map(pointerOf) as Pointers<8>;
    runtime.kernels.layerNormBackward(...pointers, rows, cols);
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
  const rows = checkRows(`${where}: x`, x, trailing);
  if (weight) checkAffine(`${where}: weight`, weight, trailing);
  if (bias) checkAffine(`${where}: bias`, bias, trailing);
  checkEps(`${where}: eps`, eps);
  return onTensors(runtime, [x, weight, bias], x instanceof Tensor, (operands, scope) => {
    const y = scope.make(shapeOf(x));
    const perRow = x instanceof Tensor ? x.shape.slice(0, -trailing.length) : [rows];
    const moments = stats ? { mean: scope.make(perRow), rstd: scope.make(perRow) } : {};
    const pointers = [y, moments.mean, moments.rstd, ...operands].map(pointerOf) as Pointers<6>;
    runtime.kernels.layerNormForward(...pointers, rows, sizeOf(trailing), eps);
    return { y, ...moments };
  });
}

type Pointers<N extends 6 | 8> = N extends 6
  ? [number, number, number, number, number, number]
  : [number, number, number, number, number, number, number, number];

function pointerOf(tensor: Tensor | null | undefined): number {
  return tensor ? tensor.pointer : 0;
}

function countOf(operand: Operand): number {
  return operand instanceof Tensor ? operand.size : operand.length;
}

function shapeOf(operand: Operand): readonly number[] {
  return operand instanceof Tensor ? operand.shape : [operand.length];
}

/** The number of rows of x; its trailing dimensions, or its length, must fit. */
export function checkRows(where: string, x: Operand, normalizedShape: readonly number[]): number {
  const cols = sizeOf(normalizedShape);
  if (x instanceof Tensor) {
    const leading = x.shape.length - normalizedShape.length;
    if (leading < 0 || !sameShape(x.shape.slice(leading), normalizedShape)) {
      throw new RangeError(
        `${where} has the shape ${describe(x.shape)}, expected [..., ${normalizedShape.join(", ")}]`,
      );
    }
  } else if (x.length % cols !== 0) {
    throw new RangeError(`${where} has ${x.length} elements, expected a multiple of ${cols}`);
  }
  return countOf(x) / cols;
}

/** A Float32Array, or a Tensor that is not disposed, in `runtime` if that is given. */
export function checkOperand(where: string, value: unknown, runtime?: Runtime): asserts value is Operand {
  if (value instanceof Tensor) {
    if (value.disposed) throw new TypeError(`${where} was disposed`);
    if (runtime && value.runtime !== runtime) throw new TypeError(`${where} belongs to another runtime`);
  } else if (!isFloat32Array(value)) {
    throw new TypeError(`${where} is ${describe(value)}, expected a Float32Array or a Tensor`);
  }
}

function checkAffine(where: string, operand: Operand, normalizedShape: readonly number[]): void {
  if (operand instanceof Tensor && !sameShape(operand.shape, normalizedShape)) {
    throw new RangeError(`${where} has the shape ${describe(operand.shape)}, expected ${describe(normalizedShape)}`);
  }
  if (countOf(operand) !== sizeOf(normalizedShape)) {
    throw new RangeError(`${where} has ${countOf(operand)} elements, expected ${sizeOf(normalizedShape)}`);
  }
}

/** As many elements as another operand and, where both are Tensors, its shape. */
export function checkSame(where: string, operand: Operand, otherName: string, other: Operand): void {
  const shapes = operand instanceof Tensor && other instanceof Tensor;
  if (shapes && !sameShape(operand.shape, other.shape)) {
    throw new RangeError(
      `${where} has the shape ${describe(operand.shape)}, expected that of ${otherName}, ${describe(other.shape)}`,
    );
  }
  if (countOf(operand) !== countOf(other)) {
    throw new RangeError(`${where} has ${countOf(operand)} elements, expected ${countOf(other)}, as ${otherName} has`);
  }
}

/** The runtime of the Tensors among the operands, which must be one; the default where there are none. */
function commonRuntime(where: string, operands: Record<string, Operand | null | undefined>): Runtime {
  let runtime: Runtime | undefined;
  for (const [name, operand] of Object.entries(operands)) {
    if (operand == null && (name === "weight" || name === "bias")) continue;
    checkOperand(`${where}: ${name}`, operand, runtime);
    if (operand instanceof Tensor) runtime = operand.runtime;
  }
  return runtime ?? Runtime.default;
}

/** The normalized shape of a backward pass, as far as the operands tell it. */
function normalizedShapeOf(dy: Operand, mean: Operand, weight: Operand | null | undefined): readonly number[] {
  if (weight instanceof Tensor) return weight.shape;
  if (dy instanceof Tensor && mean instanceof Tensor) {
    const leading = mean.shape.length;
    if (leading < dy.shape.length && sameShape(dy.shape.slice(0, leading), mean.shape)) return dy.shape.slice(leading);
  }
  if (weight) return [weight.length];
  return [countOf(mean) === 0 ? 0 : Math.floor(countOf(dy) / countOf(mean))];
}

/**
 * Computes on tensors: an operand that is one as it is, an array as a copy for the length of the call. The results are given
 * as Tensors or as arrays.
 */
function onTensors<K extends string>(
  runtime: Runtime,
  operands: readonly (Operand | null | undefined)[],
  asTensors: boolean,
  compute: (operands: (Tensor | null)[], scope: Scope) => Partial<Record<K, Tensor>>,
): Record<K, Operand> {
  const scope = new Scope(runtime);
  try {
    const sources = operands.map((operand) => (isFloat32Array(operand) ? live(operand, runtime) : operand));
    const tensors = sources.map((source) => {
      if (typeof source !== "function") return source ?? null;
      const copy = scope.make([source().length]);
      copy.data.set(source());
      return copy;
    });
    const results = Object.entries(compute(tensors, scope)) as [K, Tensor][];
    if (asTensors) scope.keep(...results.map(([, tensor]) => tensor));
    const given = results.map(([name, tensor]) => [name, asTensors ? tensor : tensor.data.slice()]);
    return Object.fromEntries(given) as Record<K, Operand>;
  } finally {
    scope.end();
  }
}
