/**
 * The module that all norms are: forward and backward passes, modes, learnable parameters, state dicts.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import {
  type BackwardOptions,
  Call,
  type Family,
  FORWARD_OPTIONS,
  type ForwardOptions,
  type LastCalls,
  type Operand,
  type Place,
  READ,
  runtimeOf,
} from "./call.js";
import {
  checkBoolean,
  checkEps,
  checkNormalizedShape,
  checkOptions,
  type Normalized,
  wrongSize,
  wrongType,
} from "./check.js";
import { checkRuntime, type Runtime } from "./runtime.js";
import { type Checkpoint, type LoadOptions, type LoadResult, loadParameters, type StateDict } from "./state-dict.js";
import {
  dispose,
  gradientOf,
  Parameter,
  parameterOver,
  release,
  type Storage,
  storageOf,
  type Tensor,
} from "./tensor.js";

export interface NormOptions {
  /** Added inside the root. */
  eps?: number | undefined;
  /** false: no learnable parameters. */
  elementwiseAffine?: boolean | undefined;
  /** A Tensor to use as the weight, where it lies: it is neither copied nor freed by the module. */
  weight?: Tensor | undefined;
  runtime?: Runtime | undefined;
}

/** null where an option says that there is none. */
export type ParameterUnless<Affine> = Affine extends false ? null : Parameter;

/** The type of a module's weight, which its options tell. */
export type WeightOf<O> = O extends { elementwiseAffine?: infer Affine } ? ParameterUnless<Affine> : Parameter;

/** What the last forward pass in training mode left for backward, and the calls that may be run again with it. */
interface Saved extends LastCalls {
  rows: number;
  /** What was normalized: the caller's Tensor, or the module's own, which it frees. */
  x: Tensor;
  own: boolean;
  mean: Tensor | null;
  rstd: Tensor;
}

/** The options of `forward` for arrays: only `out` decides the type of the result. @inline */
type ArrayForwardOptions<T extends Float32Array> = Omit<ForwardOptions<Float32Array>, "out"> & { out?: T | undefined };
/** The same of `backward`. @inline */
type ArrayBackwardOptions<T extends Float32Array> = Omit<BackwardOptions<Float32Array>, "out"> & {
  out?: T | undefined;
};

/** The bias of a module, if it has one. */
export let biasOf: (norm: Norm) => Parameter | null;

export abstract class Norm<O = unknown> {
  readonly #family: Family;
  readonly #runtime: Runtime;
  readonly #normalized: Normalized;
  /** Its shape, to be given away. */
  readonly #frozenShape: readonly number[];
  readonly #eps: number;
  readonly #weight: Parameter | null = null;
  readonly #bias: Parameter | null = null;
  readonly #weightPlace: Storage | null = null;
  readonly #biasPlace: Storage | null = null;
  /** The parameters made here, which are freed with the module. Of a given Tensor that is only the gradient. */
  readonly #owned: Storage[] = [];
  #training = true;
  #saved: Saved | null = null;
  #disposed = false;
  /** The last call in eval mode. */
  readonly #evaluated: LastCalls = { forward: null };

  /** Lets `biasOf` in. A field instead of a static block, which Chrome before 94 doesn't know. @internal */
  protected static readonly friend = (() => {
    biasOf = (norm) => norm.#bias;
  })();

  /** @param defaults the default of each option that the norm has beside those of all norms */
  protected constructor(
    family: Family,
    normalizedShape: number | readonly number[],
    options: (NormOptions & { bias?: boolean | Tensor | undefined }) | undefined = {},
    defaults: { eps: number; bias?: boolean },
  ) {
    const { name } = family;
    checkOptions(name, options, [...Object.keys(defaults), "elementwiseAffine", "weight", "runtime"]);
    const { eps = defaults.eps, elementwiseAffine = true, weight, bias = defaults.bias ?? false, runtime } = options;
    this.#family = family;
    this.#normalized = checkNormalizedShape(`${name}: normalizedShape`, normalizedShape);
    this.#frozenShape = Object.freeze([...this.#normalized.shape]);
    this.#eps = checkEps(`${name}: eps`, eps);
    checkBoolean(`${name}: elementwiseAffine`, elementwiseAffine);
    this.#runtime = checkRuntime(`${name}: runtime`, runtime) ?? runtimeOf(weight, bias);
    const givenBias = storageOf(bias) ? (bias as Tensor) : undefined;
    if (!givenBias) checkBoolean(`${name}: bias`, bias);
    for (const [key, tensor] of Object.entries({ weight, bias: givenBias })) {
      if (tensor === undefined) continue;
      if (!elementwiseAffine) wrongType(`${name}: ${key}`, tensor, "none without elementwiseAffine");
      if (!storageOf(tensor)) wrongType(`${name}: ${key}`, tensor, "a Tensor");
      new Call(name, this.#runtime, family, 0).takeAffine(key, tensor, READ, this.#normalized);
    }
    if (!elementwiseAffine) return;
    try {
      this.#weight = this.#parameter(weight, 1);
      this.#weightPlace = storageOf(this.#weight);
      if (!bias) return;
      this.#bias = this.#parameter(givenBias, 0);
      this.#biasPlace = storageOf(this.#bias);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  #parameter(given: Tensor | undefined, initial: number): Parameter {
    if (given instanceof Parameter) return given;
    const parameter = given
      ? parameterOver(given)
      : new Parameter(this.#frozenShape, undefined, { runtime: this.#runtime });
    this.#owned.push(gradientOf(parameter));
    if (given) return parameter;
    this.#owned.push(storageOf(parameter));
    parameter.data.fill(initial);
    return parameter;
  }

  /** The dimensions that are normalized, the last ones of x. */
  get normalizedShape(): readonly number[] {
    return this.#frozenShape;
  }

  /** What is added inside the root. */
  get eps(): number {
    return this.#eps;
  }

  /** What the normalized rows are multiplied by; null without `elementwiseAffine`. */
  get weight(): WeightOf<O> {
    return this.#weight as WeightOf<O>;
  }

  /**
   * Normalizes each row of x. In training mode it keeps what `backward` needs: a copy of an array, but a reference to a
   * Tensor, whose elements must stay as they are until then.
   * @param x a Float32Array of [rows, cols] flattened, or a Tensor whose trailing dimensions are `normalizedShape`
   * @param options `out`: what to write to and return, of the kind and shape of x. It may be x itself, but not
   *   if x is a Tensor in training mode
   * @returns the result, of the kind and shape of x
   * @throws TypeError, RangeError for an x or out that doesn't fit, or when the memory is full
   */
  forward(x: Tensor, options?: ForwardOptions<Tensor>): Tensor;
  forward<T extends Float32Array = Float32Array<ArrayBuffer>>(x: Float32Array, options?: ArrayForwardOptions<T>): T;
  forward<T extends Operand>(x: T, options?: ForwardOptions<T>): T;
  forward(x: Operand, options: ForwardOptions<Operand> = {}): Operand {
    return this.#run("forward", this.#forward("forward", x, options));
  }

  /**
   * `forward` without blocking. In a runtime of several threads the other threads compute it; in any other runtime it
   * is computed at once. What it is given, and the parameters, must stay as they are until the promise settles. Calls
   * made meanwhile are computed after it.
   */
  forwardAsync(x: Tensor, options?: ForwardOptions<Tensor>): Promise<Tensor>;
  forwardAsync<T extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options?: ArrayForwardOptions<T>,
  ): Promise<T>;
  forwardAsync<T extends Operand>(x: T, options?: ForwardOptions<T>): Promise<T>;
  async forwardAsync(x: Operand, options: ForwardOptions<Operand> = {}): Promise<Operand> {
    return this.#forward("forwardAsync", x, options).start();
  }

  /** A forward pass that is only to be run. */
  #forward(method: "forward" | "forwardAsync", x: Operand, options: ForwardOptions<Operand>): Call {
    const where = this.#family.methods[method];
    checkOptions(where, options, FORWARD_OPTIONS);
    const { out, residual, sum } = options;
    this.#checkUsable();
    const concurrent = method === "forwardAsync";
    const remembered = this.#training ? this.#saved : this.#evaluated;
    const last = this.#takeLast("forward", remembered, concurrent);
    if (last?.repeatsForward(x, out, residual, sum)) return last;
    const call = this.#call(where, last, remembered, concurrent);
    call.bias = this.#biasPlace;
    call.takeForward(x, this.#normalized, out, residual, sum);
    return this.#training ? this.#keep(call, sum ?? x) : call.placeForward(null);
  }

  /** The last call, which is then no longer remembered: it is in use, or will be another. */
  #takeLast(pass: "forward" | "backward", remembered: LastCalls | null, concurrent: boolean): Call | null {
    if (concurrent || remembered === null) return null;
    const last = remembered[pass] ?? null;
    remembered[pass] = null;
    return last;
  }

  /** A call without operands: the last one, or a new one. */
  #call(where: string, last: Call | null, remembered: LastCalls | null, concurrent: boolean): Call {
    const call = last?.clear() ?? new Call(where, this.#runtime, this.#family, this.#normalized.size, concurrent);
    call.last = remembered;
    call.weight = this.#weightPlace;
    call.eps = this.#eps;
    return call;
  }

  /** Runs a call and remembers it. */
  #run(pass: "forward" | "backward", call: Call): Operand {
    const result = call.run();
    (call.last as LastCalls)[pass] = call.rest();
    return result;
  }

  /**
   * Finds places for a call and for what backward will need, in place of what it would have needed until now.
   * @param given what is normalized: sum or x
   */
  #keep(call: Call, given: Operand): Call {
    const { where, rows, y, residual } = call;
    const x = call.x as Place;
    if (y !== null && y.array === null) {
      const name = y.pointer === x.pointer ? "x" : y.pointer === residual?.pointer ? "residual" : undefined;
      if (name)
        throw new RangeError(
          `${where}: out is ${name}, which backward will need; give another out, or call eval() first`,
        );
    }
    const last = this.#saved;
    const own = x.array !== null || (residual !== null && call.sum === null);
    // A call under way may still read the last one.
    const again = own && last?.own && last.x.size === x.size && !this.#runtime.busy;
    const kept = again ? last.x : own ? call.make([x.size]) : (given as Tensor);
    const stats =
      last?.rows === rows ? last : { rstd: call.make([rows]), mean: this.#family.hasMean ? call.make([rows]) : null };
    call.rstd = storageOf(stats.rstd);
    call.mean = stats.mean && storageOf(stats.mean);
    call.placeForward(own ? storageOf(kept) : null);
    const saved = { rows, x: kept, own, rstd: stats.rstd, mean: stats.mean, forward: null, backward: null };
    call.last = saved;
    this.#save(saved);
    return call;
  }

  #save(next: Saved | null): void {
    const last = this.#saved;
    this.#saved = next;
    if (last === null) return;
    if (last.own && last.x !== next?.x) last.x.dispose();
    if (last.rstd !== next?.rstd) {
      last.rstd.dispose();
      last.mean?.dispose();
    }
  }

  /**
   * The gradient with respect to the x of the last `forward` in training mode, given that with respect to its result.
   * Adds to `weight.grad` and `bias.grad` where they require it. Calling it again for the same forward pass adds
   * again.
   * @param dy of as many elements, and where both are Tensors of the same shape, as that x
   * @param options `out`: what to write to and return; `add`: what to add to the gradient. Both of the kind and shape
   * of dy; `out` may be dy or add
   * @returns dx, of the kind and shape of dy
   * @throws TypeError without such a forward pass; TypeError, RangeError for an operand that doesn't fit, or when the
   * memory is full
   */
  backward(dy: Tensor, options?: BackwardOptions<Tensor>): Tensor;
  backward<T extends Float32Array = Float32Array<ArrayBuffer>>(dy: Float32Array, options?: ArrayBackwardOptions<T>): T;
  backward<T extends Operand>(dy: T, options?: BackwardOptions<T>): T;
  backward(dy: Operand, options: BackwardOptions<Operand> = {}): Operand {
    return this.#run("backward", this.#backward("backward", dy, options));
  }

  /** `backward` without blocking, as `forwardAsync` is; the gradients are there when the promise settles. */
  backwardAsync(dy: Tensor, options?: BackwardOptions<Tensor>): Promise<Tensor>;
  backwardAsync<T extends Float32Array = Float32Array<ArrayBuffer>>(
    dy: Float32Array,
    options?: ArrayBackwardOptions<T>,
  ): Promise<T>;
  backwardAsync<T extends Operand>(dy: T, options?: BackwardOptions<T>): Promise<T>;
  async backwardAsync(dy: Operand, options: BackwardOptions<Operand> = {}): Promise<Operand> {
    return this.#backward("backwardAsync", dy, options).start();
  }

  /** A backward pass that is only to be run. */
  #backward(method: "backward" | "backwardAsync", dy: Operand, options: BackwardOptions<Operand>): Call {
    const where = this.#family.methods[method];
    checkOptions(where, options, ["out", "add"]);
    const { out, add } = options;
    const weightGrad = this.#weight && gradientOf(this.#weight);
    const biasGrad = this.#bias && gradientOf(this.#bias);
    const dweight = this.#weight?.requiresGrad ? weightGrad : null;
    const dbias = this.#bias?.requiresGrad ? biasGrad : null;
    this.#checkUsable();
    if (!this.#training) {
      throw new TypeError(`${where}: in eval mode, which keeps nothing for backward; call train() first`);
    }
    const saved = this.#saved;
    if (saved === null) throw new TypeError(`${where}: there was no forward in training mode before it`);
    if (weightGrad?.pointer === 0 || biasGrad?.pointer === 0) {
      throw new TypeError(`${where}: the gradient of a parameter was disposed with the module that made it`);
    }
    const { rows, rstd, mean, own } = saved;
    const x = storageOf(saved.x);
    if (x.pointer === 0) throw new TypeError(`${where}: the x of the last forward was disposed`);
    const concurrent = method === "backwardAsync";
    const last = this.#takeLast("backward", saved, concurrent);
    if (last?.dweight === dweight && last.dbias === dbias && last.repeatsBackward(dy, out, add)) return last;
    const call = this.#call(where, last, saved, concurrent);
    const source = call.take("dy", dy, READ);
    call.checkRows("dy", source, this.#normalized);
    if (!own && source.array === null) call.checkSame("dy", source, "the last x", x);
    else if (source.size !== x.size) wrongSize(`${where}: dy`, source.size, `${x.size}, as the last x had`);
    call.rows = rows;
    call.x = x;
    call.mean = mean && storageOf(mean);
    call.rstd = storageOf(rstd);
    call.dweight = dweight;
    call.dbias = dbias;
    call.takeBackward(source, out, add);
    if (call.dx !== null) {
      call.checkApart("out", call.dx, "bias", this.#biasPlace);
      call.checkApart("out", call.dx, "weight.grad", weightGrad);
      call.checkApart("out", call.dx, "bias.grad", biasGrad);
    }
    return call.placeBackward();
  }

  /** Whether forward keeps what backward needs. */
  get training(): boolean {
    return this.#training;
  }

  /** Sets training mode. With `false` it sets eval mode, which frees what the last forward kept. */
  train(mode = true): this {
    this.#checkUsable();
    this.#training = checkBoolean(`${this.#family.name}.train: mode`, mode);
    if (!mode) this.#save(null);
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
   * Copies parameters in from a checkpoint: under the names `weight` and `bias`, or `gamma` and `beta`, or `scale`
   * and `bias`.
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
    this.#evaluated.forward = null;
    this.#save(null);
    for (const storage of this.#owned) release(storage);
  }

  [dispose](): void {
    this.dispose();
  }

  #checkUsable(): void {
    if (this.#disposed) throw new TypeError(`${this.#family.name}: used after it was disposed`);
    if (this.#weightPlace?.pointer === 0 || this.#biasPlace?.pointer === 0) {
      throw new TypeError(`${this.#family.name}: used after a parameter of it was disposed`);
    }
  }
}
