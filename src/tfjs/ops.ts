/**
 * The norms as ops of tfjs, with gradients.
 * @module
 */

import {
  add,
  backend,
  cast,
  customGrad,
  engine,
  getBackend,
  getKernel,
  keep,
  mean,
  mul,
  type NamedTensorMap,
  reshape,
  rsqrt,
  square,
  sub,
  Tensor,
  type TensorLike,
  tensor,
  tidy,
  transpose,
  util,
  zeros,
} from "@tensorflow/tfjs-core";
import { checkOptions, describe } from "../check.js";
import { type Attributes, BACKWARD, FORWARD } from "./kernels.js";

/** What to do on backends other than wasm and cpu. */
export interface FallbackOptions {
  /** Whether to compute with the ops of tfjs there; by default that is an error. */
  fallback?: boolean | undefined;
}

/** What an op takes beside its arguments. */
export interface NormOptions extends FallbackOptions {
  /** Of the shape of x. It is added to x before that is normalized, in the same pass. */
  residual?: Tensor | TensorLike | undefined;
  /** Whether to return `[y, sum]`, where sum is x + residual, instead of y. */
  returnSum?: boolean | undefined;
}

type Norm = Attributes["norm"];
type Optional = Tensor | TensorLike | null | undefined;

/**
 * Layer normalization: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, with the mean and variance over `axis`.
 *
 * It has gradients for x, gamma, beta and the residual. A gradient that is differentiated in its turn is computed with
 * the ops of tfjs.
 * @param gamma of the shape that x has along `axis`, its dimensions in the order of the axes; null for none
 * @param beta of the same shape; null for none
 * @param axis one or several dimensions, negative ones from the end
 * @returns y, of the shape of x and of type float32; with `returnSum`, y and x + residual
 */
export function layerNorm(
  x: Tensor | TensorLike,
  gamma: Tensor | TensorLike | null | undefined,
  beta: Tensor | TensorLike | null | undefined,
  axis: number | number[] | undefined,
  epsilon: number | undefined,
  options: NormOptions & { returnSum: true },
): [y: Tensor, sum: Tensor];
export function layerNorm<T extends Tensor>(
  x: T | TensorLike,
  gamma?: Tensor | TensorLike | null,
  beta?: Tensor | TensorLike | null,
  axis?: number | number[],
  epsilon?: number,
  options?: NormOptions & { returnSum?: false | undefined },
): T;
export function layerNorm(
  x: Tensor | TensorLike,
  gamma?: Tensor | TensorLike | null,
  beta?: Tensor | TensorLike | null,
  axis: number | number[] = -1,
  epsilon = 1e-3,
  options: NormOptions = {},
): Tensor | [Tensor, Tensor] {
  return normalize("layerNorm", x, gamma, beta, axis, epsilon, options);
}

/**
 * RMS normalization: `x / sqrt(mean(x^2) + epsilon) * gamma`, with the mean over `axis`.
 *
 * It has gradients for x, gamma and the residual. A gradient that is differentiated in its turn is computed with the
 * ops of tfjs.
 * @param gamma of the shape that x has along `axis`, its dimensions in the order of the axes; null for none
 * @param axis one or several dimensions, negative ones from the end
 * @returns y, of the shape of x and of type float32; with `returnSum`, y and x + residual
 */
export function rmsNorm(
  x: Tensor | TensorLike,
  gamma: Tensor | TensorLike | null | undefined,
  axis: number | number[] | undefined,
  epsilon: number | undefined,
  options: NormOptions & { returnSum: true },
): [y: Tensor, sum: Tensor];
export function rmsNorm<T extends Tensor>(
  x: T | TensorLike,
  gamma?: Tensor | TensorLike | null,
  axis?: number | number[],
  epsilon?: number,
  options?: NormOptions & { returnSum?: false | undefined },
): T;
export function rmsNorm(
  x: Tensor | TensorLike,
  gamma?: Tensor | TensorLike | null,
  axis: number | number[] = -1,
  epsilon = 1e-3,
  options: NormOptions = {},
): Tensor | [Tensor, Tensor] {
  return normalize("rmsNorm", x, gamma, null, axis, epsilon, options);
}

/** A tensor of floats from an argument. */
function floats(norm: Norm, name: string, value: Tensor | TensorLike): Tensor {
  const what = `Argument '${name}' passed to '${norm}' must be`;
  util.assert(value !== null && value !== undefined, () => `${what} a Tensor or TensorLike, but got '${value}'.`);
  const given = value instanceof Tensor ? value : tensor(value);
  util.assert(!given.isDisposed, () => `Argument '${name}' passed to '${norm}' is a tensor that was disposed.`);
  const numeric = given.dtype !== "string" && given.dtype !== "complex64";
  util.assert(numeric, () => `${what} a numeric tensor, but got a ${given.dtype} tensor.`);
  return given.dtype === "float32" ? given : cast(given, "float32");
}

/** An argument that has to be of a shape, null where it is absent. */
function optional(norm: Norm, name: string, value: Optional, shape: number[]): Tensor | null {
  if (value === null || value === undefined) return null;
  const given = floats(norm, name, value);
  util.assert(
    util.arraysEqual(given.shape, shape),
    () => `Error in ${norm}: ${name} has the shape [${given.shape}], but [${shape}] is expected.`,
  );
  return given;
}

/** The axes as dimensions from 0 on, in the order in which they were given. */
function axesOf(norm: Norm, axis: number | number[], rank: number): number[] {
  util.assert(rank > 0, () => `Error in ${norm}: x is a scalar, but a tensor of rank 1 or higher is expected.`);
  // Of null, which the types don't allow, tfjs would make all of them.
  util.assert(
    [axis].flat().every((dimension) => typeof dimension === "number"),
    () => `Error in ${norm}: axis is ${describe(axis)}, but a number or an array of numbers is expected.`,
  );
  const axes = util.parseAxisParam(axis, new Array(rank).fill(1));
  util.assert(axes.length > 0, () => `Error in ${norm}: axis is [], but at least one dimension is expected.`);
  util.assert(new Set(axes).size === axes.length, () => `Error in ${norm}: axis [${axis}] names a dimension twice.`);
  return axes;
}

function normalize(
  norm: Norm,
  x: Tensor | TensorLike,
  gamma: Optional,
  beta: Optional,
  axis: number | number[],
  epsilon: number,
  options: NormOptions,
): Tensor | [Tensor, Tensor] {
  checkOptions(norm, options, ["residual", "returnSum", "fallback"]);
  util.assert(
    typeof epsilon === "number" && epsilon >= 0 && epsilon < Infinity,
    () => `Error in ${norm}: epsilon is ${epsilon}, but a finite number of 0 or more is expected.`,
  );
  const { residual, returnSum = false, fallback = false } = options;
  return tidy(norm, () => {
    const input = floats(norm, "x", x);
    const axes = axesOf(norm, axis, input.rank);
    const shape = axes.map((dimension) => input.shape[dimension] as number);
    const empty = shape.includes(0);
    util.assert(!empty, () => `Error in ${norm}: x of shape [${input.shape}] has no elements along axis ${axis}.`);
    // gamma and beta have their dimensions as the axes are named; from here on both go by the order of x.
    const order = Array.from(axes.keys()).sort((a, b) => (axes[a] as number) - (axes[b] as number));
    const inOrder = (given: Tensor | null) => given && permute(given, order);
    axes.sort((a, b) => a - b);
    const operands = {
      gamma: inOrder(optional(norm, "gamma", gamma, shape)),
      beta: inOrder(optional(norm, "beta", beta, shape)),
      residual: optional(norm, "residual", residual, input.shape),
    };
    util.assert(!returnSum || operands.residual !== null, () => `Error in ${norm}: returnSum needs a residual.`);
    const [y, sum] = supported(norm, fallback)
      ? onLastAxes(input, axes, operands, { norm, epsilon, shape: axes.map((axis) => input.shape[axis] as number) })
      : byOps(norm, input, axes, epsilon, operands);
    return returnSum ? [y, sum] : y;
  });
}

type Given = Pick<Attributes, "norm" | "epsilon" | "shape">;

interface Operands {
  gamma: Tensor | null;
  beta: Tensor | null;
  residual: Tensor | null;
}

/** Whether the backend of the moment has the kernels. */
function supported(norm: Norm, fallback: boolean): boolean {
  backend(); // which makes the default one, if there is none yet
  if (getKernel(FORWARD, getBackend())) return true;
  util.assert(
    fallback,
    () =>
      `Error in ${norm}: the backend '${getBackend()}' is not supported, only 'wasm' and 'cpu' are. ` +
      "Pass {fallback: true} to compute with the ops of TensorFlow.js on other backends.",
  );
  return false;
}

/** Normalizes with the ops of tfjs. Returns y and x + residual, or x where there is none. */
function byOps(norm: Norm, x: Tensor, axes: number[], epsilon: number, operands: Operands): [Tensor, Tensor] {
  const { gamma, beta, residual } = operands;
  const sum = residual ? add(x, residual) : x;
  const broadcast = x.shape.map((size, dimension) => (axes.includes(dimension) ? size : 1));
  const centered = norm === "layerNorm" ? sub(sum, mean(sum, axes, true)) : sum;
  const variance = mean(square(centered), axes, true);
  let y: Tensor = mul(centered, rsqrt(add(variance, epsilon)));
  if (gamma) y = mul(y, reshape(gamma, broadcast));
  if (beta) y = add(y, reshape(beta, broadcast));
  return [y, sum];
}

/** Brings the axes to the end, normalizes, and brings them back. Returns what `byOps` does. */
function onLastAxes(x: Tensor, axes: number[], operands: Operands, attributes: Given): [Tensor, Tensor] {
  const others = Array.from(x.shape.keys()).filter((dimension) => !axes.includes(dimension));
  const order = [...others, ...axes];
  if (isOrdered(order)) return withGradient(x, operands, attributes);
  const residual = operands.residual && permute(operands.residual, order);
  const results = withGradient(permute(x, order), { ...operands, residual }, attributes);
  const back = order.map((_, dimension) => order.indexOf(dimension));
  return results.map((result) => permute(result, back)) as [Tensor, Tensor];
}

const isOrdered = (order: number[]) => order.every((dimension, i) => dimension === i);

/** `transpose`, which traps on the wasm backend for a tensor without elements. */
function permute(tensor: Tensor, order: number[]): Tensor {
  if (isOrdered(order)) return tensor;
  const shape = order.map((dimension) => tensor.shape[dimension] as number);
  return tensor.size > 0 ? transpose(tensor, order) : reshape(tensor, shape);
}

/** The kernels, with their gradient. Normalizes the last dimensions. Returns what `byOps` does. */
function withGradient(x: Tensor, { gamma, beta, residual }: Operands, given: Given): [Tensor, Tensor] {
  const attributes = { ...given, rows: x.size / util.sizeFromShape(given.shape), center: beta !== null };
  const forward = () => run(FORWARD, { x, residual, gamma, beta }, attributes);
  if (!engine().isTapeOn()) {
    const [y, sum] = forward() as [Tensor, Tensor];
    return [y, residual ? sum : x];
  }
  /** What was computed together with the sum. */
  let computed: Tensor[] = [];
  try {
    let sum = x;
    if (residual) {
      sum = customGrad(() => {
        const [y, value, ...stats] = forward() as [Tensor, Tensor, ...Tensor[]];
        computed = [y, ...stats].map((tensor) => keep(tensor));
        return { value, gradFunc: (dsum: Tensor) => [view(dsum), view(dsum)] };
      })(x, residual);
    }
    const y = customGrad((...inputs) => {
      const save = inputs.pop() as unknown as (tensors: Tensor[]) => void;
      const [value, ...stats] = residual ? computed.map(view) : forward();
      save(present([sum, gamma, ...stats] as Tensor[]));
      return {
        value: value as Tensor,
        gradFunc: (dy: Tensor, saved: Tensor[]) => backward(dy, saved, gamma !== null, attributes),
      };
    })(sum, ...present([gamma, beta]));
    return [y, sum];
  } finally {
    for (const tensor of computed) tensor.dispose();
  }
}

/** Another tensor of the same data. Unlike `clone`, it copies nothing on the wasm backend. */
const view = (tensor: Tensor): Tensor => reshape(tensor, tensor.shape);

/** The gradients of x (or of x + residual), gamma and beta. */
function backward(dy: Tensor, saved: Tensor[], scale: boolean, attributes: Attributes): Tensor[] {
  const [x, ...others] = saved as [Tensor, ...Tensor[]];
  const gamma = scale ? (others.shift() as Tensor) : null;
  if (engine().isTapeOn()) {
    // These gradients may have to be differentiated themselves, which the ops of tfjs can be.
    const { norm, epsilon, shape, center } = attributes;
    const axes = shape.map((_, i) => x.rank - shape.length + i);
    const beta = center ? zeros(shape) : null;
    const y = () => byOps(norm, x, axes, epsilon, { gamma, beta, residual: null })[0];
    return engine().gradients(y, present([x, gamma, beta]), dy).grads;
  }
  const rstd = others.pop() as Tensor;
  return run(BACKWARD, { dy, x, gamma, mean: others[0] ?? null, rstd }, attributes);
}

const present = (tensors: (Tensor | null)[]) => tensors.filter((tensor) => tensor !== null);

/** Runs a kernel with those of the inputs that are there. */
function run(kernel: string, inputs: Record<string, Tensor | null>, attributes: Attributes): Tensor[] {
  const given = Object.fromEntries(Object.entries(inputs).filter(([, input]) => input !== null));
  return engine().runKernel(kernel, given as NamedTensorMap, attributes as never) as unknown as Tensor[];
}
