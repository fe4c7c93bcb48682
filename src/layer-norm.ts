/**
 * The module: layer normalization with a learnable weight and bias.
 * @module
 */

/// <reference lib="esnext.disposable" preserve="true" />

import { checkBoolean, checkEps, checkNormalizedShape, checkOptions, describe, sameShape, sizeOf } from "./check.js";
import {
  checkApart,
  checkOperand,
  checkOut,
  checkRows,
  countOf,
  deliver,
  type Operand,
  type OutOption,
  pointerOf,
  targetOf,
  workspaceFor,
} from "./operand.js";
import { type Kernels, Runtime } from "./runtime.js";
import { type Checkpoint, type LoadResult, loadParameters, type StateDict } from "./state-dict.js";
import { dispose, live, Parameter, Scope, Tensor } from "./tensor.js";

export interface LayerNormOptions {
  /** Added to the variance, inside the root. */
  eps?: number | undefined;
  /** false: no weight and no bias. */
  elementwiseAffine?: boolean | undefined;
  /** false: a weight without a bias. */
  bias?: boolean | undefined;
  runtime?: Runtime | undefined;
}

/** One number a row. */
interface Stats {
  mean: Tensor;
  rstd: Tensor;
}

/** What the last forward pass in training mode left for backward. */
interface Saved extends Stats {
  x: Tensor;
  /** Whether x is the module's own copy of an array, rather than the caller's Tensor. */
  copied: boolean;
}

/**
 * Layer normalization over the trailing dimensions `normalizedShape`:
 *
 *     y = (x - mean) / sqrt(var + eps) * weight + bias
 *
 * with mean and population variance per row. It starts in training mode with weight 1 and bias 0, as PyTorch's does.
 */
export class LayerNorm {
  readonly normalizedShape: readonly number[];
  readonly eps: number;
  readonly #weight: Parameter | null = null;
  readonly #bias: Parameter | null = null;
  readonly #runtime: Runtime;
  readonly #cols: number;
  #training = true;
  #saved: Saved | null = null;
  #disposed = false;

  /**
   * @param normalizedShape a positive integer or a non-empty list of them
   * @throws TypeError, RangeError for an argument that doesn't fit, or when the memory is full
   */
  constructor(normalizedShape: number | readonly number[], options: LayerNormOptions = {}) {
    checkOptions("LayerNorm", options, ["eps", "elementwiseAffine", "bias", "runtime"]);
    const { eps = 1e-5, elementwiseAffine = true, bias = true, runtime = Runtime.default } = options;
    this.normalizedShape = checkNormalizedShape("LayerNorm: normalizedShape", normalizedShape);
    this.eps = checkEps("LayerNorm: eps", eps);
    checkBoolean("LayerNorm: elementwiseAffine", elementwiseAffine);
    checkBoolean("LayerNorm: bias", bias);
    if (!(runtime instanceof Runtime)) {
      throw new TypeError(`LayerNorm: runtime is ${describe(runtime)}, expected a Runtime`);
    }
    this.#runtime = runtime;
    this.#cols = sizeOf(this.normalizedShape);
    if (!elementwiseAffine) return;
    this.#weight = new Parameter(this.normalizedShape, undefined, { runtime });
    try {
      if (bias) this.#bias = new Parameter(this.normalizedShape, undefined, { runtime });
    } catch (error) {
      this.#weight.dispose();
      throw error;
    }
    this.resetParameters();
  }

  /** null without `elementwiseAffine`. */
  get weight(): Parameter | null {
    return this.#weight;
  }

  /** null without `elementwiseAffine` or `bias`. */
  get bias(): Parameter | null {
    return this.#bias;
  }

  /**
   * Normalizes each row of x. In training mode what backward needs is kept: an array is copied, a Tensor is held by
   * reference and must stay as it is until then.
   * @param x a Float32Array of [rows, cols] flattened, or a Tensor whose trailing dimensions are `normalizedShape`
   * @param options `out`: what to write to and return, of the kind and shape of x; it may be x itself in eval mode
   * @returns the result, of the kind and shape of x
   * @throws TypeError, RangeError for an x or out that doesn't fit, or when the memory is full
   */
  forward(x: Tensor, options?: OutOption<Tensor>): Tensor;
  forward<T extends Float32Array = Float32Array<ArrayBuffer>>(x: Float32Array, options?: OutOption<T>): T;
  forward(x: Operand, options?: OutOption<Operand>): Operand;
  forward(x: Operand, options: OutOption<Operand> = {}): Operand {
    const rows = this.#checkForward("LayerNorm.forward", x, options);
    const scope = new Scope(this.#runtime);
    try {
      const { kernels } = this.#runtime;
      if (x instanceof Tensor) return this.#forwardTensor(x, rows, options.out as Tensor | undefined, scope, kernels);
      const target = targetOf(options.out, this.#runtime);
      return deliver(this.#forwardArray(x, rows, scope, kernels), target);
    } finally {
      scope.end();
    }
  }

  /**
   * `forward` without blocking: with a runtime of several threads it is left to the others; any other computes it at once. What it is
   * given, and the parameters, must stay as they are until the promise settles. Calls made meanwhile are done after it.
   */
  forwardAsync(x: Tensor, options?: OutOption<Tensor>): Promise<Tensor>;
  forwardAsync<T extends Float32Array = Float32Array<ArrayBuffer>>(x: Float32Array, options?: OutOption<T>): Promise<T>;
  forwardAsync(x: Operand, options?: OutOption<Operand>): Promise<Operand>;
  async forwardAsync(x: Operand, options: OutOption<Operand> = {}): Promise<Operand> {
    const rows = this.#checkForward("LayerNorm.forwardAsync", x, options);
    const scope = new Scope(this.#runtime);
    try {
      const out = options.out as Tensor | undefined;
      if (x instanceof Tensor) {
        return await this.#runtime.later((kernels) => this.#forwardTensor(x, rows, out, scope, kernels));
      }
      const target = targetOf(options.out, this.#runtime);
      return deliver(await this.#runtime.later((kernels) => this.#forwardArray(x, rows, scope, kernels)), target);
    } finally {
      scope.end();
    }
  }

  /** The number of rows of x, if all fits. */
  #checkForward(where: string, x: Operand, options: OutOption<Operand>): number {
    this.#checkUsable();
    checkOperand(where, "x", x, this.#runtime);
    const rows = checkRows(where, "x", x, this.normalizedShape, this.#cols);
    const out = checkOut(where, options, "x", x, this.#runtime);
    if (out instanceof Tensor) {
      checkApart(where, out, "weight", this.#weight);
      checkApart(where, out, "bias", this.#bias);
      if (out.pointer !== (x as Tensor).pointer) checkApart(where, out, "x", x as Tensor);
      else if (this.#training) {
        throw new RangeError(`${where}: out is x, which backward will need; give another out, or call eval() first`);
      }
    }
    return rows;
  }

  #forwardTensor(x: Tensor, rows: number, out: Tensor | undefined, scope: Scope, kernels: Kernels): Tensor {
    const stats = this.#training ? this.#statsFor(rows, scope) : null;
    const y = out ?? scope.make(x.shape);
    this.#normalize(y, stats, x, rows, kernels);
    if (stats) this.#save({ x, copied: false, ...stats }, scope);
    scope.keep(y);
    return y;
  }

  /** The result is the scope's, to be delivered. */
  #forwardArray(x: Float32Array, rows: number, scope: Scope, kernels: Kernels): Tensor {
    const shape = [x.length];
    const source = live(x, this.#runtime);
    const y = scope.make(shape);
    const stats = this.#training ? this.#statsFor(rows, scope) : null;
    const saved = this.#saved;
    // The copy of the last x may still be read by a call that is under way.
    const again = saved?.copied && saved.x.size === y.size && !this.#runtime.busy;
    const copy = !stats ? y : again ? saved.x : scope.make(shape);
    copy.data.set(source());
    this.#normalize(y, stats, copy, rows, kernels);
    if (stats) this.#save({ x: copy, copied: true, ...stats }, scope);
    return y;
  }

  /** Room for the statistics of a forward pass: what the last one used, where that fits. */
  #statsFor(rows: number, scope: Scope): Stats {
    const saved = this.#saved;
    if (saved?.mean.size === rows) return { mean: saved.mean, rstd: saved.rstd };
    return { mean: scope.make([rows]), rstd: scope.make([rows]) };
  }

  #normalize(y: Tensor, stats: Stats | null, x: Tensor, rows: number, kernels: Kernels): void {
    kernels.layerNormForward(
      y.pointer,
      pointerOf(stats?.mean),
      pointerOf(stats?.rstd),
      x.pointer,
      pointerOf(this.#weight),
      pointerOf(this.#bias),
      rows,
      this.#cols,
      this.eps,
    );
  }

  /** Keeps what backward will need in place of what it would have needed until now. */
  #save(next: Saved | null, scope?: Scope): void {
    const last = this.#saved;
    this.#saved = next;
    if (last) {
      if (last.copied && last.x !== next?.x) last.x.dispose();
      if (last.mean !== next?.mean) {
        last.mean.dispose();
        last.rstd.dispose();
      }
    }
    if (next) scope?.keep(next.x, next.mean, next.rstd);
  }

  /**
   * The gradient with respect to the x of the last `forward` in training mode, given that with respect to its result. Adds
   * to `weight.grad` and `bias.grad` where they require it. Calling it again for the same forward pass adds again.
   * @param dy of as many elements, and where both are Tensors of the same shape, as that x
   * @param options `out`: what to write to and return, of the kind and shape of dy; it may be dy itself
   * @returns dx, of the kind and shape of dy
   * @throws TypeError without such a forward pass; TypeError, RangeError for a dy or out that doesn't fit, or when the
   * memory is full
   */
  backward(dy: Tensor, options?: OutOption<Tensor>): Tensor;
  backward<T extends Float32Array = Float32Array<ArrayBuffer>>(dy: Float32Array, options?: OutOption<T>): T;
  backward(dy: Operand, options?: OutOption<Operand>): Operand;
  backward(dy: Operand, options: OutOption<Operand> = {}): Operand {
    const saved = this.#checkBackward("LayerNorm.backward", dy, options);
    const scope = new Scope(this.#runtime);
    try {
      const { kernels } = this.#runtime;
      if (dy instanceof Tensor)
        return this.#backwardTensor(dy, saved, options.out as Tensor | undefined, scope, kernels);
      const target = targetOf(options.out, this.#runtime);
      return deliver(this.#backwardArray(dy, saved, scope, kernels), target);
    } finally {
      scope.end();
    }
  }

  /** `backward` without blocking, as `forwardAsync` is; the gradients are there when the promise settles. */
  backwardAsync(dy: Tensor, options?: OutOption<Tensor>): Promise<Tensor>;
  backwardAsync<T extends Float32Array = Float32Array<ArrayBuffer>>(
    dy: Float32Array,
    options?: OutOption<T>,
  ): Promise<T>;
  backwardAsync(dy: Operand, options?: OutOption<Operand>): Promise<Operand>;
  async backwardAsync(dy: Operand, options: OutOption<Operand> = {}): Promise<Operand> {
    const saved = this.#checkBackward("LayerNorm.backwardAsync", dy, options);
    const scope = new Scope(this.#runtime);
    try {
      const out = options.out as Tensor | undefined;
      if (dy instanceof Tensor) {
        return await this.#runtime.later((kernels) => this.#backwardTensor(dy, saved, out, scope, kernels));
      }
      const target = targetOf(options.out, this.#runtime);
      return deliver(await this.#runtime.later((kernels) => this.#backwardArray(dy, saved, scope, kernels)), target);
    } finally {
      scope.end();
    }
  }

  /** What the last forward left, if all fits. */
  #checkBackward(where: string, dy: Operand, options: OutOption<Operand>): Saved {
    this.#checkUsable();
    if (!this.#training) {
      throw new TypeError(`${where}: in eval mode, which keeps nothing for backward; call train() first`);
    }
    const saved = this.#saved;
    if (!saved) throw new TypeError(`${where}: there was no forward in training mode before it`);
    if (saved.x.disposed) throw new TypeError(`${where}: the x of the last forward was disposed`);
    checkOperand(where, "dy", dy, this.#runtime);
    checkRows(where, "dy", dy, this.normalizedShape, this.#cols);
    if (dy instanceof Tensor && !saved.copied && !sameShape(dy.shape, saved.x.shape)) {
      throw new RangeError(
        `${where}: dy has the shape ${describe(dy.shape)}, expected that of the last x, ${describe(saved.x.shape)}`,
      );
    }
    if (countOf(dy) !== saved.x.size) {
      throw new RangeError(`${where}: dy has ${countOf(dy)} elements, expected ${saved.x.size}, as the last x had`);
    }
    const out = checkOut(where, options, "dy", dy, this.#runtime);
    if (out instanceof Tensor) {
      checkApart(where, out, "weight", this.#weight);
      checkApart(where, out, "weight.grad", this.#weight?.gradient);
      checkApart(where, out, "bias", this.#bias);
      checkApart(where, out, "bias.grad", this.#bias?.gradient);
      checkApart(where, out, "the x of the last forward", saved.x);
      if (out.pointer !== (dy as Tensor).pointer) checkApart(where, out, "dy", dy as Tensor);
    }
    return saved;
  }

  #backwardTensor(dy: Tensor, saved: Saved, out: Tensor | undefined, scope: Scope, kernels: Kernels): Tensor {
    const dx = out ?? scope.make(dy.shape);
    this.#differentiate(dx, dy, saved, scope, kernels);
    scope.keep(dx);
    return dx;
  }

  /** The result is the scope's, to be delivered. */
  #backwardArray(dy: Float32Array, saved: Saved, scope: Scope, kernels: Kernels): Tensor {
    const source = live(dy, this.#runtime);
    const copy = scope.make([dy.length]);
    this.#differentiate(copy, copy, saved, scope, kernels, source);
    return copy;
  }

  /** Calls the kernel, once there is room for all it needs and, where dy comes from an array, that has been copied. */
  #differentiate(
    dx: Tensor,
    dy: Tensor,
    saved: Saved,
    scope: Scope,
    kernels: Kernels,
    source?: () => Float32Array,
  ): void {
    const dweight = this.#weight?.requiresGrad ? this.#weight.gradient.pointer : 0;
    const dbias = this.#bias?.requiresGrad ? this.#bias.gradient.pointer : 0;
    const rows = saved.mean.size;
    const workspace = dweight || dbias ? workspaceFor(rows, this.#cols, kernels, scope) : null;
    if (source) dy.data.set(source());
    kernels.layerNormBackward(
      dx.pointer,
      dweight,
      dbias,
      dy.pointer,
      saved.x.pointer,
      saved.mean.pointer,
      saved.rstd.pointer,
      pointerOf(this.#weight),
      rows,
      this.#cols,
      pointerOf(workspace),
    );
  }

  /** Whether forward keeps what backward needs. */
  get training(): boolean {
    return this.#training;
  }

  /** Sets training mode, or with `false` eval mode, which gives back what the last forward kept. */
  train(mode = true): this {
    this.#checkUsable();
    this.#training = checkBoolean("LayerNorm.train: mode", mode);
    if (!mode) this.#save(null);
    return this;
  }

  /** Sets eval mode: `train(false)`. */
  eval(): this {
    return this.train(false);
  }

  /** The parameters there are: weight, then bias. As all that reads or writes them at once, it waits for calls under way. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter);
  }

  namedParameters(): ["weight" | "bias", Parameter][] {
    this.#checkUsable();
    this.#runtime.settle();
    const named: ["weight" | "bias", Parameter][] = [];
    if (this.#weight) named.push(["weight", this.#weight]);
    if (this.#bias) named.push(["bias", this.#bias]);
    return named;
  }

  /** Sets all gradients to zero. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad.fill(0);
  }

  /** Sets weight to ones and bias to zeros. */
  resetParameters(): void {
    this.#checkUsable();
    this.#runtime.settle();
    this.#weight?.data.fill(1);
    this.#bias?.data.fill(0);
  }

  /** Copies of the parameters, by name. */
  stateDict(): StateDict {
    return Object.fromEntries(this.namedParameters().map(([name, parameter]) => [name, parameter.data.slice()]));
  }

  /**
   * Copies parameters in from a checkpoint: under the names `weight` and `bias`, or `gamma` and `beta`, or `scale` and `bias`.
   * @param dict Float32Arrays, other lists of numbers, or Tensors, each of the size of its parameter
   * @param options `strict`: a missing or unknown entry is an error (the default); otherwise they are only reported
   * @throws TypeError, RangeError for an entry that doesn't fit; nothing is changed then
   */
  loadStateDict(dict: Checkpoint, options: { strict?: boolean | undefined } = {}): LoadResult {
    checkOptions("LayerNorm.loadStateDict", options, ["strict"]);
    const { strict = true } = options;
    return loadParameters("LayerNorm.loadStateDict", this.namedParameters(), dict, strict);
  }

  /** Gives all memory back. A second time is harmless; any other use afterwards is an error. */
  dispose(): void {
    this.#disposed = true;
    this.#save(null);
    this.#weight?.dispose();
    this.#bias?.dispose();
  }

  [dispose](): void {
    this.dispose();
  }

  #checkUsable(): void {
    if (this.#disposed) throw new TypeError("LayerNorm: used after it was disposed");
    if (this.#weight?.disposed || this.#bias?.disposed) {
      throw new TypeError("LayerNorm: used after a parameter of it was disposed");
    }
  }
}
