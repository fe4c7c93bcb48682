/**
 * The module that all norms are: forward and backward passes, modes, learnable parameters, state dicts.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import {
  type BackwardOptions,
  Call,
  type ForwardOptions,
  type Operand,
  type Place,
  READ,
  type ResultOf,
  runtimeOf,
  type Target,
} from "./call.js";
import {
  checkBoolean,
  checkEps,
  checkNormalizedShape,
  checkOptions,
  type Normalized,
  Shown,
  wrongSize,
  wrongType,
} from "./check.js";
import { KERNELS, type Kernel, type KernelName } from "./kernels.js";
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

/** A norm: its kernels, and the names of its methods in errors. To put these together takes as long as a short row. */
export interface Family {
  name: string;
  forward: Kernel;
  backward: Kernel;
  methods: Record<"forward" | "forwardAsync" | "backward" | "backwardAsync", string>;
}

export function familyOf(name: string, forward: KernelName, backward: KernelName): Family {
  const kernel = (name: KernelName) => KERNELS.find((kernel) => kernel.name === name) as Kernel;
  const methods = {
    forward: `${name}.forward`,
    forwardAsync: `${name}.forwardAsync`,
    backward: `${name}.backward`,
    backwardAsync: `${name}.backwardAsync`,
  };
  return { name, forward: kernel(forward), backward: kernel(backward), methods };
}

/** What the last forward pass in training mode left for backward. */
interface Saved {
  rows: number;
  /** How many elements x had. */
  size: number;
  /** The caller's Tensor that was normalized, and its version; null where the block has a copy. */
  x: Tensor | null;
  version: number;
  weightVersion: number;
  /** The module's own: a copy of what was normalized, if x is null, then rstd and mean of each row. */
  block: Tensor;
}

/** The options of a forward pass. */
export const FORWARD_OPTIONS = ["out", "residual", "sum"];
const BACKWARD_OPTIONS = ["out", "add"];

/** The bias of a module, if it has one. */
export let biasOf: (norm: Norm) => Parameter | null;

export abstract class Norm<O = unknown> extends Shown {
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

  static {
    biasOf = (norm) => norm.#bias;
  }

  /** @param defaults the default of each option that the norm has beside those of all norms */
  protected constructor(
    family: Family,
    normalizedShape: number | readonly number[],
    options: (NormOptions & { bias?: boolean | Tensor | undefined }) | undefined = {},
    defaults: { eps: number; bias?: boolean },
  ) {
    super();
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
      new Call(name, this.#runtime, family.forward, this.#normalized).takeAffine(key, 0, tensor, READ);
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

  /** As in "LayerNorm(768, eps=1e-5)". */
  override toString(): string {
    const [first, ...more] = this.#frozenShape;
    const shape = more.length > 0 ? `[${this.#frozenShape.join(", ")}]` : first;
    return `${this.#family.name}(${shape}, eps=${this.#eps === 0 ? 0 : this.#eps.toExponential()})`;
  }

  /**
   * Normalizes each row of x. In training mode it keeps what `backward` needs: a copy of an array, but a reference to a
   * Tensor, whose elements must stay as they are until then.
   * @param x an array of [rows, cols] flattened, or a Tensor whose trailing dimensions are `normalizedShape`
   * @param options `out`: what to write to and return; `residual`: what to add to x first; `sum`: what to write
   * x + residual to. Tensors for a Tensor, arrays for an array. `out` and `sum` may be x or residual, but `out` not x if
   * that is a Tensor which is kept
   * @returns the result, of the kind and shape of x; a Float32Array for a list of numbers
   * @throws TypeError, RangeError for an operand that doesn't fit, or when the memory is full
   */
  forward<X extends Operand, Out extends Target<X> = ResultOf<X>>(x: X, options?: ForwardOptions<X, Out>): Out;
  forward(x: Operand, options: ForwardOptions<Operand> = {}): Operand {
    return this.#forward("forward", x, options).run();
  }

  /**
   * `forward` without blocking. In a runtime of several threads the other threads compute it; in any other runtime it
   * is computed at once. What it is given, and the parameters, must stay as they are until the promise settles. Calls
   * made meanwhile are computed after it.
   */
  forwardAsync<X extends Operand, Out extends Target<X> = ResultOf<X>>(
    x: X,
    options?: ForwardOptions<X, Out>,
  ): Promise<Out>;
  async forwardAsync(x: Operand, options: ForwardOptions<Operand> = {}): Promise<Operand> {
    return this.#forward("forwardAsync", x, options).start();
  }

  /** A forward pass that is only to be run. */
  #forward(method: "forward" | "forwardAsync", x: Operand, options: ForwardOptions<Operand>): Call {
    const where = this.#family.methods[method];
    checkOptions(where, options, FORWARD_OPTIONS);
    const { out, residual, sum } = options;
    this.#checkUsable();
    const call = this.#call(where, this.#family.forward, method === "forwardAsync");
    const bias = this.#biasPlace;
    if (bias !== null) {
      call.bias = bias;
      call.args[call.kernel.bias] = bias.pointer;
    }
    call.takeForward(x, residual, sum, out);
    return this.#training ? this.#keep(call, sum ?? x) : call.place();
  }

  /** A call without operands. */
  #call(where: string, kernel: Kernel, concurrent: boolean): Call {
    const call = new Call(where, this.#runtime, kernel, this.#normalized, concurrent);
    const weight = this.#weightPlace;
    if (weight !== null) {
      call.weight = weight;
      call.args[kernel.weight] = weight.pointer;
    }
    if (kernel.eps >= 0) call.args[kernel.eps] = this.#eps;
    return call;
  }

  /**
   * Places a call and what backward will need, which replaces what it would have needed until now.
   * @param given what is normalized: sum or x
   */
  #keep(call: Call, given: Operand): Call {
    const { rows, sum, out, addend, kernel, args } = call;
    const source = call.source as Place;
    const own = source.array !== null || (addend !== null && sum === null);
    if (!own && sum === null && out?.pointer === source.pointer) {
      throw new RangeError(`${call.where}: out is x, which backward will need; give another out, or call eval() first`);
    }
    const copied = own ? source.size : 0;
    const size = copied + rows * (kernel.mean < 0 ? 1 : 2);
    const last = this.#saved;
    // A call under way may still read a copy.
    const again = last !== null && storageOf(last.block).size === size && !(own && this.#runtime.busy);
    const block = again ? last.block : call.make([size]);
    const { pointer } = storageOf(block);
    args[kernel.rstd] = pointer + copied * 4;
    if (kernel.mean >= 0) args[kernel.mean] = pointer + (copied + rows) * 4;
    call.place(own ? pointer : 0);
    const x = own ? null : (given as Tensor);
    const version = x === null ? 0 : storageOf(x).version;
    const weightVersion = this.#weightPlace?.version ?? 0;
    this.#save({ rows, size: source.size, x, version, weightVersion, block });
    return call;
  }

  #save(next: Saved | null): void {
    const last = this.#saved;
    this.#saved = next;
    if (last !== null && last.block !== next?.block) last.block.dispose();
  }

  /**
   * The gradient with respect to the x of the last `forward` in training mode, given that with respect to its result.
   * Adds to `weight.grad` and `bias.grad` where they require it. Calling it again for the same forward pass adds
   * again.
   * @param dy of as many elements, and where both are Tensors of the same shape, as that x
   * @param options `out`: what to write to and return; `add`: what to add to the gradient. Tensors for a Tensor, arrays
   * for an array; `out` may be dy or add
   * @returns dx, of the kind and shape of dy; a Float32Array for a list of numbers
   * @throws TypeError without such a forward pass, or where a later call has overwritten a Tensor of it; TypeError,
   * RangeError for an operand that doesn't fit, or when the memory is full
   */
  backward<D extends Operand, Out extends Target<D> = ResultOf<D>>(dy: D, options?: BackwardOptions<D, Out>): Out;
  backward(dy: Operand, options: BackwardOptions<Operand> = {}): Operand {
    return this.#backward("backward", dy, options).run();
  }

  /** `backward` without blocking, as `forwardAsync` is; the gradients are there when the promise settles. */
  backwardAsync<D extends Operand, Out extends Target<D> = ResultOf<D>>(
    dy: D,
    options?: BackwardOptions<D, Out>,
  ): Promise<Out>;
  async backwardAsync(dy: Operand, options: BackwardOptions<Operand> = {}): Promise<Operand> {
    return this.#backward("backwardAsync", dy, options).start();
  }

  /** A backward pass that is only to be run. */
  #backward(method: "backward" | "backwardAsync", dy: Operand, options: BackwardOptions<Operand>): Call {
    const where = this.#family.methods[method];
    checkOptions(where, options, BACKWARD_OPTIONS);
    const { out, add } = options;
    this.#checkUsable();
    const saved = this.#checkSaved(where);
    const { rows, size } = saved;
    const x = saved.x && storageOf(saved.x);
    const call = this.#call(where, this.#family.backward, method === "backwardAsync");
    const { kernel, args } = call;
    const source = call.takeSource("dy", kernel.dy, dy);
    if (x !== null && source.array === null) call.checkSame("dy", source, "the last x", x);
    else if (source.size !== size) wrongSize(`${where}: dy`, source.size, `${size}, as the last x had`);
    const { pointer } = storageOf(saved.block);
    const stats = x === null ? pointer + size * 4 : pointer;
    call.x = x;
    args[kernel.x] = x === null ? pointer : x.pointer;
    args[kernel.rstd] = stats;
    if (kernel.mean >= 0) args[kernel.mean] = stats + rows * 4;
    call.takeBackward(add, out);
    const dweight = this.#weight && gradientOf(this.#weight);
    const dbias = this.#bias && gradientOf(this.#bias);
    if (call.out !== null) {
      call.checkApart("out", call.out, "bias", this.#biasPlace);
      call.checkApart("out", call.out, "weight.grad", dweight);
      call.checkApart("out", call.out, "bias.grad", dbias);
    }
    if (dweight !== null && this.#weight?.requiresGrad) {
      call.dweight = dweight;
      args[kernel.dweight] = dweight.pointer;
    }
    if (dbias !== null && this.#bias?.requiresGrad) {
      call.dbias = dbias;
      args[kernel.dbias] = dbias.pointer;
    }
    return call.place();
  }

  /** What the last forward left, if it is still what it was. */
  #checkSaved(where: string): Saved {
    if (!this.#training) {
      throw new TypeError(`${where}: in eval mode, which keeps nothing for backward; call train() first`);
    }
    const saved = this.#saved;
    if (saved === null) throw new TypeError(`${where}: there was no forward in training mode before it`);
    const weight = this.#weightPlace;
    if (
      (this.#weight && gradientOf(this.#weight).pointer === 0) ||
      (this.#bias && gradientOf(this.#bias).pointer === 0)
    ) {
      throw new TypeError(`${where}: the gradient of a parameter was disposed with the module that made it`);
    }
    if (saved.x !== null) this.#checkVersion(where, "the x of the last forward", storageOf(saved.x), saved.version);
    if (weight !== null) this.#checkVersion(where, "weight", weight, saved.weightVersion);
    return saved;
  }

  #checkVersion(where: string, name: string, { pointer, version, writer, written }: Storage, expected: number): void {
    if (pointer === 0) throw new TypeError(`${where}: ${name} was disposed`);
    if (version === expected) return;
    const its = `${written === "out" ? "an" : "a"} ${written} of its own`;
    throw new TypeError(`${where}: ${name} was overwritten since, by ${written} of ${writer}; give that call ${its}`);
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
