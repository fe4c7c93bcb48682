// Both norms as one suite sees them: the module and the functions of each, called alike.

import {
  LayerNorm,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  type Operand,
  type Parameter,
  type ResultOf,
  RMSNorm,
  rmsNorm,
  rmsNormBackward,
  rmsNormWithStats,
  Tensor,
} from "../src/index.js";

export type Norm = LayerNorm | RMSNorm;
type Affine = Operand | null | undefined;
/** What forward gives for backward; RMSNorm has no mean. */
type Stats<T extends Operand> = { mean?: T; rstd: T };
type Shape = number | readonly number[];
type Forward<T> = [x: T, shape: Shape, weight?: Affine, bias?: Affine, eps?: number, options?: object];

export interface Family {
  readonly name: "LayerNorm" | "RMSNorm";
  /** The name of its function, and of the first part of its others. */
  readonly norm: "layerNorm" | "rmsNorm";
  /** The default. */
  readonly eps: number;
  /** The parameters of a module, in their order. */
  readonly parameters: readonly ("weight" | "bias")[];
  make(shape: Shape, options?: object): Norm;
  apply<T extends Operand>(...args: Forward<T>): ResultOf<T>;
  withStats<T extends Operand>(...args: Forward<T>): Stats<ResultOf<T>> & { y: ResultOf<T> };
  backward<T extends Operand>(
    dy: T,
    x: Operand,
    stats: Stats<Operand>,
    weight?: Affine,
    options?: object,
  ): { dx: ResultOf<T>; dweight: ResultOf<T>; dbias?: ResultOf<T> };
}

export const FAMILIES: readonly Family[] = [
  {
    name: "LayerNorm",
    norm: "layerNorm",
    eps: 1e-5,
    parameters: ["weight", "bias"],
    make: (shape, options) => new LayerNorm(shape, options),
    apply: layerNorm,
    withStats: layerNormWithStats,
    backward: (dy, x, { mean = [], rstd }, weight, options) => layerNormBackward(dy, x, mean, rstd, weight, options),
  },
  {
    name: "RMSNorm",
    norm: "rmsNorm",
    eps: 2 ** -23,
    parameters: ["weight"],
    make: (shape, options) => new RMSNorm(shape, options),
    apply: (x, shape, weight, _, eps, options) => rmsNorm(x, shape, weight, eps, options),
    withStats: (x, shape, weight, _, eps, options) => rmsNormWithStats(x, shape, weight, eps, options),
    backward: (dy, x, { rstd }, weight, options) => rmsNormBackward(dy, x, rstd, weight, options),
  },
];

/** The kinds of operands, each from floats. */
export const KINDS: Record<"arrays" | "Tensors", (floats: Float32Array, shape: readonly number[]) => Operand> = {
  arrays: (floats) => floats.slice(),
  Tensors: (floats, shape) => new Tensor(shape, floats),
};

/** The numbers of an operand, apart from it. */
export const floatsOf = (operand: Operand) => Float32Array.from(operand instanceof Tensor ? operand.data : operand);

/** The gradients of a module's parameters, as results are named. */
export const gradientsOf = (norm: Norm) =>
  Object.fromEntries(norm.namedParameters().map(([name, { grad }]) => [`d${name}`, grad])) as {
    dweight: Float32Array;
    dbias?: Float32Array;
  };

export const parameterOf = (norm: Norm, name: "weight" | "bias") =>
  (norm as unknown as Record<string, Parameter>)[name] as Parameter;

/** What an error says of an operand that holds no numbers. */
export const NOT_NUMBERS =
  "expected a Tensor, an array of floats or a list of numbers; Float32Array.from converts integers, Float16Array reads half floats";
