/**
 * The module that all norms are: forward and backward passes, modes, learnable parameters, state dicts.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import { Call } from "./call.js";
import * as check from "./check.js";
import { type Kernel, workspaceOf } from "./kernels.js";
import { READ, runtimeOf } from "./operand.js";
import { checkRuntime, type Runtime } from "./runtime.js";
import { type Checkpoint, type LoadOptions, type LoadResult, loadParameters, type StateDict } from "./state-dict.js";
import type { Storage, Tensor } from "./tensor.js";
import { dispose, gradientOf, Parameter, parameterOver, storageIn, storageOf } from "./tensor.js";
import type { BackwardOptions, ForwardOptions, Operand, ResultOf, Target } from "./types.js";

export interface NormOptions {
  /** Added inside the root. */
  eps?: number | undefined;
  /** false: no learnable parameters. */
  elementwiseAffine?: boolean | undefined;
  /** A Tensor to use as the weight, where it lies: it is neither copied nor freed by the module. */
  weight?: Tensor | undefined;
  runtime?: Runtime | undefined;
}

/** The options of a module that certainly has a weight. */
export type WithWeight = Omit<NormOptions, "elementwiseAffine"> & { elementwiseAffine?: true | undefined };

/** null where an option says that there is none. */
export type ParameterUnless<Affine> = Affine extends false ? null : Parameter;

/** The type of a module's weight, which its options tell. */
export type WeightOf<O> = O extends { elementwiseAffine?: infer Affine } ? ParameterUnless<Affine> : Parameter;

/** A norm: its kernels, and the names of its methods in errors. To join these takes as long as a short row. */
export type Family = ReturnType<typeof familyOf>;

/** @param eps the default of that option */
export function familyOf(name: string, forward: Kernel, backward: Kernel, eps: number) {
  const pass = (method: string, kernel: Kernel) => {
    return { kernel, where: `${name}.${method}`, whereAsync: `${name}.${method}Async` };
  };
  return { name, eps, forward: pass("forward", forward), backward: pass("backward", backward) };
}

/** What the last forward pass in training mode left for backward. */
interface Saved {
  /** The elements of x, and its shape if it was a Tensor. */
  size: number;
  shape: readonly number[] | null;
  /** What was normalized, and its version: of the caller's Tensor, or of the block. */
  normalized: Storage;
  version: number;
  weightVersion: number;
  /** The bytes of workspace that backward needs for the sums over rows. */
  workspace: number;
  /** The address of rstd of each row, and then mean. */
  stats: number;
  /** The caller's Tensor, which must not be collected; null where the block has a copy. */
  x: Tensor | null;
  /** The module's own: such a copy, rstd and mean. */
  block: Tensor;
}

/** The options of a forward pass. */
export const FORWARD_OPTIONS = ["out", "residual", "sum"];
const BACKWARD_OPTIONS = ["out", "add"];

/** The bias of a module, if it has one. */
export let biasOf: (norm: Norm) => Parameter | null;

/**
 * Any norm: what `LayerNorm` and `RMSNorm` have in common. The `weight` of a `Norm` may be null.
 *
 * @example
 * ```ts standalone
 * import { LayerNorm, type Norm, RMSNorm } from "layernorm-wasm";
 *
 * function zeroGrad(norms: Norm[]): void {
 *   for (const norm of norms) norm.zeroGrad();
 * }
 * zeroGrad([new LayerNorm(4, { bias: false }), new RMSNorm(4, { elementwiseAffine: false })]);
 * ```
 */
export abstract class Norm<O = NormOptions> extends check.Shown {
  readonly #family: Family;
  readonly #runtime: Runtime;
  readonly #normalized: check.Normalized;
  readonly #eps: number;
  readonly #weight: Parameter | null = null;
  readonly #bias: Parameter | null = null;
  /** The parameters that were made here, which are freed with the module. */
  readonly #made: Parameter[] = [];
  #training = true;
  #saved: Saved | null = null;
  #disposed = false;

  /** Lets `biasOf` in. A field instead of a static block, which Chrome before 94 doesn't know. @internal */
  protected static readonly friend = (() => {
    biasOf = (norm) => norm.#bias;
  })();

  protected constructor(
    family: Family,
    normalizedShape: number | readonly number[],
    options: (NormOptions & { bias?: boolean | Tensor | undefined }) | undefined = {},
  ) {
    super();
    const { name, forward } = family;
    const takesBias = forward.kernel.bias >= 0;
    const affine = takesBias ? ["weight", "bias"] : ["weight"];
    check.checkOptions(name, options, ["eps", "elementwiseAffine", ...affine, "runtime"]);
    const { eps = family.eps, elementwiseAffine = true, weight, bias = takesBias, runtime } = options;
    this.#family = family;
    this.#normalized = check.checkNormalizedShape(`${name}: normalizedShape`, normalizedShape);
    this.#eps = check.checkEps(`${name}: eps`, eps);
    check.checkBoolean(`${name}: elementwiseAffine`, elementwiseAffine);
    this.#runtime = checkRuntime(`${name}: runtime`, runtime) ?? runtimeOf(weight, bias);
    const given = storageIn(bias) ? (bias as Tensor) : undefined;
    const biased = given !== undefined || check.checkBoolean(`${name}: bias`, bias);
    try {
      this.#weight = this.#parameter("weight", elementwiseAffine, weight);
      this.#bias = this.#parameter("bias", elementwiseAffine && biased, given);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** A parameter that is given, or over a Tensor that is, or a new one. null where there is to be none. */
  #parameter(key: "weight" | "bias", wanted: boolean, given: Tensor | undefined): Parameter | null {
    const { name, forward } = this.#family;
    if (given !== undefined) {
      if (!storageIn(given)) check.wrongType(`${name}: ${key}`, given, "a Tensor");
      if (!wanted) check.wrongType(`${name}: ${key}`, given, "none without elementwiseAffine");
      new Call(name, this.#runtime, forward.kernel, this.#normalized).takeAffine(forward.kernel[key], given, READ);
      if (given instanceof Parameter) return given;
    }
    if (!wanted) return null;
    const { shape } = this.#normalized;
    const made = given ? parameterOver(given) : new Parameter(shape, undefined, { runtime: this.#runtime });
    if (!given && key === "weight") made.data.fill(1);
    this.#made.push(made);
    return made;
  }

  /** The dimensions that are normalized, the last ones of x. */
  get normalizedShape(): readonly number[] {
    return Object.freeze([...this.#normalized.shape]);
  }

  /** What is added inside the root. */
  get eps(): number {
    return this.#eps;
  }

  /** What the normalized rows are multiplied by; null without `elementwiseAffine`. */
  get weight(): WeightOf<O> {
    return this.#weight as WeightOf<O>;
  }

  /** As in "LayerNorm(768, eps=1e-5, bias=false)". */
  override toString(): string {
    const { name, forward } = this.#family;
    const { shape } = this.#normalized;
    const eps = this.#eps === 0 ? 0 : this.#eps.toExponential();
    let words = `${check.describe(shape.length > 1 ? shape : shape[0])}, eps=${eps}`;
    if (this.#weight === null) words += ", elementwiseAffine=false";
    else if (this.#bias === null && forward.kernel.bias >= 0) words += ", bias=false";
    return `${name}(${words})`;
  }

  /**
   * Normalizes each row of x, or of x + `residual`. In training mode it also keeps what `backward` needs: a copy of an
   * array, or a reference to a Tensor. Leave that Tensor's elements as they are until `backward`.
   *
   * With the option `residual`, it first adds: the result is the norm of x + residual. In a transformer, x is the
   * output of a layer, and residual the stream that the layer read. The option `sum` receives x + residual, the stream
   * for the next layer.
   * @param x an array of [rows, cols] flattened, or a Tensor whose trailing dimensions are `normalizedShape`
   * @param options `out` receives the result, and is what is returned. `residual` is added to x. `sum` receives
   * x + residual. All have the shape of x: Tensors for a Tensor, arrays for an array. `out` and `sum` may be x or
   * residual. But in training mode without a residual, `out` may not be a Tensor x
   * @returns the result, of the kind and shape of x; a Float32Array for a list of numbers
   * @throws TypeError, RangeError for an operand that doesn't fit, or when the memory is full
   */
  forward<X extends Operand, R extends Target<X> = ResultOf<X>>(x: X, options: ForwardOptions<X, R> = {}): NoInfer<R> {
    return this.#forward(this.#family.forward.where, x, options).run() as R;
  }

  /**
   * `forward` without blocking. In a runtime of several threads the other threads compute it; in any other runtime it
   * is computed at once. What it is given, and the parameters, must stay as they are until the promise settles. Calls
   * made meanwhile are computed after it.
   */
  async forwardAsync<X extends Operand, R extends Target<X> = ResultOf<X>>(
    x: X,
    options: ForwardOptions<X, R> = {},
  ): Promise<NoInfer<R>> {
    return (await this.#forward(this.#family.forward.whereAsync, x, options).start()) as R;
  }

  /** A forward pass that is only to be run. */
  #forward(where: string, x: Operand, options: ForwardOptions<Operand, unknown>): Call {
    check.checkOptions(where, options, FORWARD_OPTIONS);
    const { out, residual, sum } = options;
    const call = this.#call(where, this.#family.forward);
    if (this.#bias !== null) call.give(call.kernel.bias, storageOf(this.#bias));
    call.args[call.kernel.eps] = this.#eps;
    call.takeSource(x);
    call.takeOptions(residual, sum, out);
    return this.#training ? this.#keep(call, sum ?? x) : call.place();
  }

  /** A call with the weight. */
  #call(where: string, { kernel, whereAsync }: Family["forward"]): Call {
    this.#checkUsable();
    const concurrent = where === whereAsync && this.#runtime.concurrent;
    const call = new Call(where, this.#runtime, kernel, this.#normalized, concurrent);
    if (this.#weight !== null) call.give(kernel.weight, storageOf(this.#weight));
    return call;
  }

  /**
   * Places a call and what backward will need, which replaces what it would have needed until now.
   * @param given what is normalized: sum or x
   */
  #keep(call: Call, given: Operand): Call {
    const { rows, source, sum, addend } = call;
    const own = source.array !== null || (addend !== null && sum === null);
    if (!own && sum === null && call.out?.pointer === source.pointer) {
      throw new RangeError(`${call.where}: out is x, which backward needs; give another out, or call eval() first`);
    }
    const copied = own ? source.size : 0;
    const length = copied + rows * (call.kernel.mean < 0 ? 1 : 2);
    const last = this.#saved;
    // A call under way may still read a copy.
    const again = last !== null && storageOf(last.block).size === length && !(own && this.#runtime.busy);
    const block = again ? last.block : (call.make([length], null) as Tensor);
    const storage = storageOf(block);
    const stats = storage.pointer + copied * 4;
    this.#giveStats(call, stats);
    call.place(own ? storage : null);
    if (storage.pointer === 0) call.abandon(new TypeError(`${call.where}: the allocator disposed of the module`));
    const x = own ? null : (given as Tensor);
    const normalized = own ? storage : ((sum ?? source) as Storage);
    const weightVersion = this.#weight === null ? 0 : storageOf(this.#weight).version;
    const { shape, size } = source;
    const { kernel } = this.#family.backward;
    const workspace =
      last?.size === size ? last.workspace : workspaceOf(call.runtime.kernels, kernel, rows, this.#normalized.size);
    this.#saved = { size, shape, normalized, version: normalized.version, weightVersion, workspace, stats, x, block };
    if (!again && last !== null) call.replaced = last.block;
    return call;
  }

  /** Has rstd and mean of each row, one list after the other, as arguments of a call. */
  #giveStats({ args, kernel, rows }: Call, pointer: number): void {
    args[kernel.rstd] = pointer;
    if (kernel.mean >= 0) args[kernel.mean] = pointer + rows * 4;
  }

  #forget(): void {
    const last = this.#saved;
    this.#saved = null;
    last?.block.dispose();
  }

  /**
   * Goes back through the last `forward` in training mode: from dy, the gradient of its result, to dx, the gradient of
   * its x. With a residual, dx is the gradient of both. The gradients of weight and bias are added to `weight.grad` and
   * `bias.grad`, unless `requiresGrad` is false. A second call for the same forward pass adds them again.
   * @param dy of as many elements as that x, and of its shape if both are Tensors
   * @param options `out` receives dx, and is what is returned. `add` is added to dx. Both have the shape of dy: Tensors
   * for a Tensor, arrays for an array. `out` may be dy or add
   * @returns dx, of the kind and shape of dy; a Float32Array for a list of numbers
   * @throws TypeError without such a forward pass, or if a later call has overwritten a Tensor that it kept. TypeError
   * or RangeError for an operand that doesn't fit, or when the memory is full
   */
  backward<D extends Operand, R extends Target<D> = ResultOf<D>>(
    dy: D,
    options: BackwardOptions<D, R> = {},
  ): NoInfer<R> {
    return this.#backward(this.#family.backward.where, dy, options).run() as R;
  }

  /** `backward` without blocking, as `forwardAsync` is; the gradients are there when the promise settles. */
  async backwardAsync<D extends Operand, R extends Target<D> = ResultOf<D>>(
    dy: D,
    options: BackwardOptions<D, R> = {},
  ): Promise<NoInfer<R>> {
    return (await this.#backward(this.#family.backward.whereAsync, dy, options).start()) as R;
  }

  /** A backward pass that is only to be run. */
  #backward(where: string, dy: Operand, options: BackwardOptions<Operand, unknown>): Call {
    check.checkOptions(where, options, BACKWARD_OPTIONS);
    const { out, add } = options;
    const call = this.#call(where, this.#family.backward);
    const { kernel } = call;
    const saved = this.#saved;
    if (saved === null) throw new TypeError(`${where}: no forward in training mode; call train(), then forward`);
    saved.normalized.checkVersion(where, "the x or sum of the last forward", saved.version);
    if (this.#weight !== null) storageOf(this.#weight).checkVersion(where, "weight", saved.weightVersion);
    call.checkSize(kernel.source, call.takeSource(dy), saved, "the last x");
    call.give(kernel.x, saved.normalized);
    this.#giveStats(call, saved.stats);
    call.dweight = this.#giveGradient(call, kernel.dweight, this.#weight, saved.workspace);
    call.dbias = this.#giveGradient(call, kernel.dbias, this.#bias, saved.workspace);
    if (call.dweight !== null && call.dweight === call.dbias) throw new RangeError(`${where}: dweight overlaps dbias`);
    call.takeOptions(add, undefined, out);
    call.place();
    if (saved !== this.#saved) call.abandon(new TypeError(`${where}: the allocator called the module`));
    return call;
  }

  /** Has the gradient of a parameter as an argument of a call; null where it isn't wanted. */
  #giveGradient(call: Call, index: number, parameter: Parameter | null, workspace: number): Storage | null {
    if (!parameter?.requiresGrad) return null;
    const gradient = gradientOf(parameter);
    if (gradient.pointer === 0) throw new TypeError(`${call.where}: a parameter was disposed`);
    call.workspace = workspace;
    return call.give(index, gradient);
  }

  /** Whether forward keeps what backward needs. */
  get training(): boolean {
    return this.#training;
  }

  /** Sets training mode. With `false` it sets eval mode, which frees what the last forward kept. */
  train(mode = true): this {
    this.#checkUsable();
    this.#training = check.checkBoolean(`${this.#family.name}.train: mode`, mode);
    if (!mode) this.#forget();
    return this;
  }

  /** Sets eval mode: `train(false)`. */
  eval(): this {
    return this.train(false);
  }

  /** The parameters there are: weight, then bias. It waits for calls under way, as they may use them. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter);
  }

  /** The same with their names. */
  namedParameters(): ["weight" | "bias", Parameter][] {
    this.#checkUsable();
    this.#runtime.settle();
    const all = Object.entries({ weight: this.#weight, bias: this.#bias });
    return all.filter(([, parameter]) => parameter !== null) as ["weight" | "bias", Parameter][];
  }

  /** Sets all gradients to zero. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad.fill(0);
  }

  /** Sets weight to ones and bias to zeros. */
  resetParameters(): void {
    for (const [name, parameter] of this.namedParameters()) parameter.data.fill(name === "weight" ? 1 : 0);
  }

  /** Copies of the parameters, by name. */
  stateDict(): StateDict {
    return Object.fromEntries(this.namedParameters().map(([name, parameter]) => [name, parameter.data.slice()]));
  }

  /**
   * Copies parameters in from a checkpoint. A weight may be named `weight`, `gamma`, `gamma:0`, `scale`, `g` or `a_2`,
   * and a bias `bias`, `beta`, `beta:0`, `offset`, `b` or `b_2`.
   * @param dict Float32Arrays, other lists of numbers, or Tensors, each of the size of its parameter; 16-bit floats as
   * `{ dtype, data }`
   * @param options `strict`: a missing or unknown entry is an error (the default); otherwise they are only reported.
   * `prefix`: what the names begin with, as in `"h.0.ln_1."`; all other entries are ignored
   * @throws TypeError, RangeError for an entry that doesn't fit; nothing is changed then
   */
  loadStateDict(dict: Checkpoint, options: LoadOptions = {}): LoadResult {
    return loadParameters(`${this.#family.name}.loadStateDict`, this.namedParameters(), dict, options);
  }

  /** Gives the memory back, except that of given parameters. A second call is harmless; any other use is an error. */
  dispose(): void {
    this.#disposed = true;
    this.#forget();
    for (const parameter of this.#made) parameter.dispose();
  }

  [dispose](): void {
    this.dispose();
  }

  #checkUsable(): void {
    if (!this.#disposed && !this.#weight?.disposed && !this.#bias?.disposed) return;
    throw new TypeError(`${this.#family.name}${this.#disposed ? "" : ": a parameter"} was disposed`);
  }
}
