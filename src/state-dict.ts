/**
 * Parameters by name, as checkpoints hold them.
 * @module
 */

import { checkBoolean, checkNumbers, describe } from "./check.js";
import { type Parameter, Tensor } from "./tensor.js";

/** Copies of the parameters a module has. */
export interface StateDict {
  weight?: Float32Array<ArrayBuffer>;
  bias?: Float32Array<ArrayBuffer>;
}

/** Parameters under any of the names they go by: Float32Arrays, other lists of numbers, or Tensors. */
export interface Checkpoint {
  readonly weight?: ArrayLike<number> | Tensor | undefined;
  readonly gamma?: ArrayLike<number> | Tensor | undefined;
  readonly scale?: ArrayLike<number> | Tensor | undefined;
  readonly bias?: ArrayLike<number> | Tensor | undefined;
  readonly beta?: ArrayLike<number> | Tensor | undefined;
}

/** What loading found otherwise than expected; both lists are empty when it is strict. */
export interface LoadResult {
  missingKeys: string[];
  unexpectedKeys: string[];
}

/** The names a parameter goes by: PyTorch's, then Keras' and TensorFlow's, then Flax'. */
const ALIASES = { weight: ["weight", "gamma", "scale"], bias: ["bias", "beta"] } as const;

/** Copies the entries of `dict` to the parameters of those names; all is checked before anything is written. */
export function loadParameters(
  where: string,
  parameters: readonly ["weight" | "bias", Parameter][],
  dict: Checkpoint,
  strict: boolean,
): LoadResult {
  if (typeof dict !== "object" || dict === null) {
    throw new TypeError(`${where}: dict is ${describe(dict)}, expected an object of arrays`);
  }
  checkBoolean(`${where}: strict`, strict);
  const entries = new Map(Object.entries(dict).filter(([, value]) => value !== undefined));
  const missingKeys: string[] = [];
  const problems: string[] = [];
  const loads: { parameter: Parameter; values: Float32Array }[] = [];
  for (const [name, parameter] of parameters) {
    const key = ALIASES[name].find((alias) => entries.has(alias));
    if (key === undefined) {
      missingKeys.push(name);
      problems.push(`${ALIASES[name].join(" or ")} is missing`);
      continue;
    }
    const value = entries.get(key);
    entries.delete(key);
    if (value instanceof Tensor && value.disposed) throw new TypeError(`${where}: ${key} was disposed`);
    const numbers = value instanceof Tensor ? value.data : checkNumbers(`${where}: ${key}`, value);
    if (numbers.length !== parameter.size) {
      throw new RangeError(`${where}: ${key} has ${numbers.length} elements, expected ${parameter.size}`);
    }
    // A copy, because it may be the live data of another parameter.
    loads.push({ parameter, values: Float32Array.from(numbers) });
  }
  const unexpectedKeys = [...entries.keys()];
  problems.push(...unexpectedKeys.map((name) => `${describe(name)} is unknown`));
  if (strict && problems.length > 0) throw new RangeError(`${where}: ${problems.join(", ")}`);
  for (const { parameter, values } of loads) parameter.data.set(values);
  return { missingKeys, unexpectedKeys };
}
