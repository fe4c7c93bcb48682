/**
 * What layer normalization is computed on: Tensors as they are, Float32Arrays by way of a copy. The checks take where and what
 * an argument is apart, because words are only put together for an error.
 * @module
 */

import { checkAttached, checkOptions, describe, endsWith, isFloat32Array, sameShape, sizeOf } from "./check.js";
import { type Kernels, Runtime } from "./runtime.js";
import { live, Scope, Tensor } from "./tensor.js";

export type Operand = Float32Array | Tensor;

/** What to write a result to, of the kind and shape of the argument. */
export interface OutOption<T extends Operand> {
  out?: T | undefined;
}

/** The address of an operand, 0 for one that is absent: what the kernels take. */
export function pointerOf(tensor: Tensor | null | undefined): number {
  return tensor ? tensor.pointer : 0;
}

/** Room for the sums over the rows in a backward pass; null where it takes none. */
export function workspaceFor(rows: number, cols: number, kernels: Kernels, scope: Scope): Tensor | null {
  const bytes = kernels.layerNormBackwardWorkspace(rows, cols) >>> 0;
  return bytes > 0 ? scope.make([bytes / 4]) : null;
}

export function countOf(operand: Operand): number {
  return operand instanceof Tensor ? operand.size : operand.length;
}

export function shapeOf(operand: Operand): readonly number[] {
  return operand instanceof Tensor ? operand.shape : [operand.length];
}

/** A Float32Array, or a Tensor that is not disposed, in `runtime` if that is given. */
export function checkOperand(where: string, name: string, value: unknown, runtime?: Runtime): asserts value is Operand {
  if (value instanceof Tensor) {
    if (value.disposed) throw new TypeError(`${where}: ${name} was disposed`);
    if (runtime && value.runtime !== runtime) throw new TypeError(`${where}: ${name} belongs to another runtime`);
  } else if (!isFloat32Array(value)) {
    throw new TypeError(`${where}: ${name} is ${describe(value)}, expected a Float32Array or a Tensor`);
  } else if (value.length === 0) {
    checkAttached(`${where}: ${name}`, value);
  }
}

/** The number of rows of x: the trailing dimensions of a Tensor, or the length of an array, must fit. */
export function checkRows(
  where: string,
  name: string,
  x: Operand,
  normalizedShape: readonly number[],
  cols: number,
): number {
  if (x instanceof Tensor) {
    if (!endsWith(x.shape, normalizedShape)) {
      throw new RangeError(
        `${where}: ${name} has the shape ${describe(x.shape)}, expected [..., ${normalizedShape.join(", ")}]`,
      );
    }
  } else if (x.length % cols !== 0) {
    throw new RangeError(`${where}: ${name} has ${x.length} elements, expected a multiple of ${cols}`);
  }
  return countOf(x) / cols;
}

/** A weight or bias of the normalized shape. */
export function checkAffine(where: string, name: string, operand: Operand, normalizedShape: readonly number[]): void {
  if (operand instanceof Tensor && !sameShape(operand.shape, normalizedShape)) {
    throw new RangeError(
      `${where}: ${name} has the shape ${describe(operand.shape)}, expected ${describe(normalizedShape)}`,
    );
  }
  if (countOf(operand) !== sizeOf(normalizedShape)) {
    throw new RangeError(`${where}: ${name} has ${countOf(operand)} elements, expected ${sizeOf(normalizedShape)}`);
  }
}

/** As many elements as another operand and, where both are Tensors, its shape. */
export function checkSame(where: string, name: string, operand: Operand, otherName: string, other: Operand): void {
  if (operand instanceof Tensor && other instanceof Tensor && !sameShape(operand.shape, other.shape)) {
    throw new RangeError(
      `${where}: ${name} has the shape ${describe(operand.shape)}, expected that of ${otherName}, ${describe(other.shape)}`,
    );
  }
  if (countOf(operand) !== countOf(other)) {
    throw new RangeError(
      `${where}: ${name} has ${countOf(operand)} elements, expected ${countOf(other)}, as ${otherName} has`,
    );
  }
}

/** No byte of `out` may be one of another tensor's. */
export function checkApart(where: string, out: Tensor, name: string, other: Tensor | null | undefined): void {
  if (!other) return;
  if (out.pointer < other.pointer + other.size * 4 && other.pointer < out.pointer + out.size * 4) {
    throw new RangeError(`${where}: out overlaps ${name}`);
  }
}

/** The `out` of the options, which must be like an operand. */
export function checkOut(
  where: string,
  options: OutOption<Operand>,
  name: string,
  like: Operand,
  runtime: Runtime,
): Operand | undefined {
  checkOptions(where, options, ["out"]);
  const { out } = options;
  if (out === undefined) return undefined;
  checkOperand(where, "out", out, runtime);
  if (out instanceof Tensor !== like instanceof Tensor) {
    throw new TypeError(`${where}: out is ${describe(out)}, expected ${describe(like)}, as ${name} is`);
  }
  checkSame(where, "out", out, name, like);
  return out;
}

/** The runtime of the Tensors among the operands, which must be one; the default where there are none. */
export function commonRuntime(where: string, operands: Record<string, Operand | null | undefined>): Runtime {
  let runtime: Runtime | undefined;
  for (const [name, operand] of Object.entries(operands)) {
    if (operand == null && (name === "weight" || name === "bias")) continue;
    checkOperand(where, name, operand, runtime);
    if (operand instanceof Tensor) runtime = operand.runtime;
  }
  return runtime ?? Runtime.default;
}

/** Tensors in place of operands; null in place of one that is absent. */
type AsTensors<T> = { [I in keyof T]: T[I] extends Operand ? Tensor : Tensor | null };

/**
 * Computes on tensors: an operand that is one as it is, an array as a copy for the length of the call. The results are given
 * as Tensors or as arrays. An array may be a view of the memory, which may grow here: `compute` must not look at it.
 */
export function onTensors<const T extends readonly (Operand | null | undefined)[], R extends object>(
  runtime: Runtime,
  operands: T,
  asTensors: boolean,
  compute: (operands: AsTensors<T>, scope: Scope) => R,
): { [name in keyof R]: Operand } {
  const scope = new Scope(runtime);
  try {
    const sources = operands.map((operand) => (isFloat32Array(operand) ? live(operand, runtime) : operand));
    const tensors = sources.map((source) => {
      if (typeof source !== "function") return source ?? null;
      const copy = scope.make([source().length]);
      copy.data.set(source());
      return copy;
    });
    const results = Object.entries(compute(tensors as AsTensors<T>, scope)) as [string, Tensor][];
    if (asTensors) scope.keep(...results.map(([, tensor]) => tensor));
    const given = results.map(([name, tensor]) => [name, asTensors ? tensor : tensor.data.slice()]);
    return Object.fromEntries(given) as { [name in keyof R]: Operand };
  } finally {
    scope.end();
  }
}

/** How to reach an `out` that is an array, also after the memory has grown. */
export function targetOf(out: Operand | undefined, runtime: Runtime): (() => Float32Array) | undefined {
  return out && live(out as Float32Array, runtime);
}

/** The result in `y` as an array: a new one, or written to the one `target` leads to. */
export function deliver(y: Tensor, target: (() => Float32Array) | undefined): Float32Array {
  const out = target?.();
  if (!out) return y.data.slice();
  out.set(y.data);
  return out;
}
