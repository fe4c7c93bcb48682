/**
 * The norms as layers of tfjs, and the patch for the layer that it has itself.
 *
 * The classes extend tfjs' own layer, for its checks, weights and config, and compute with the ops of this entry.
 * @module
 */

import { serialization, type Tensor, util } from "@tensorflow/tfjs-core";
import type { layers } from "@tensorflow/tfjs-layers";
import { checkOptions } from "../check.js";
import { type FallbackOptions, layerNorm, rmsNorm } from "./ops.js";

type OwnArgs = NonNullable<Parameters<typeof layers.layerNormalization>[0]>;
type BatchNormalizationArgs = NonNullable<Parameters<typeof layers.batchNormalization>[0]>;
type Constraint = BatchNormalizationArgs["gammaConstraint"];

/** The arguments of `layerNormalization`. */
export interface LayerNormalizationArgs extends OwnArgs, FallbackOptions {
  /** Constraint for the gamma weight. */
  gammaConstraint?: Constraint;
  /** Constraint for the beta weight. */
  betaConstraint?: Constraint;
}

/** The arguments of `rmsNormalization`: those of `layerNormalization` but for beta's. */
export type RMSNormalizationArgs = Omit<
  LayerNormalizationArgs,
  "center" | "betaInitializer" | "betaRegularizer" | "betaConstraint"
>;

/** What is used of a layer of tfjs, some of it private. */
interface OwnLayer {
  axis: number | number[];
  epsilon: number;
  gamma: { read(): Tensor } | null;
  beta: { read(): Tensor } | null;
  gammaConstraint?: object | null;
  betaConstraint?: object | null;
  addWeight(name: string, ...args: unknown[]): unknown;
  build(inputShape: unknown): void;
  call(inputs: Tensor | Tensor[], kwargs: object): Tensor | Tensor[];
  getConfig(): serialization.ConfigDict;
}

interface LayerClass {
  new (args?: object): OwnLayer;
  readonly className: string;
}

/** A class of tfjs' layers. They are not imported, so that the ops work without them. */
function classNamed(className: string): LayerClass {
  const entry = serialization.SerializationMap.getMap().classNameMap[className];
  util.assert(entry !== undefined, () => `${className} is not registered: import @tensorflow/tfjs-layers first.`);
  return (entry as unknown as [LayerClass])[0];
}

/** The one tensor that a layer is called with. */
function onlyTensor(inputs: Tensor | Tensor[]): Tensor {
  const [input, ...more] = Array.isArray(inputs) ? inputs : [inputs];
  util.assert(input !== undefined && more.length === 0, () => `Expected exactly 1 Tensor; got ${more.length + 1}`);
  return input as Tensor;
}

const CONSTRAINTS = ["gammaConstraint", "betaConstraint"] as const;

/** The classes of this entry, and the one of tfjs that they extend. */
function makeClasses() {
  const Own = classNamed("LayerNormalization");
  // What makes a constraint of an identifier is not public. This layer does it.
  const BatchNormalization = classNamed("BatchNormalization");
  const constraintsOf = (layer: object) =>
    // Without a name, one of those that are numbered would be used up.
    new BatchNormalization({ ...pick(layer, CONSTRAINTS), name: "constraints" });

  class LayerNormalization extends Own {
    declare fallback?: boolean | undefined;

    constructor(args?: LayerNormalizationArgs) {
      super(args);
      this.fallback = args?.fallback;
      Object.assign(this, pick(constraintsOf(args ?? {}), CONSTRAINTS));
    }

    override addWeight(name: string, ...args: unknown[]): unknown {
      args[5] = this[`${name as "gamma" | "beta"}Constraint`];
      return super.addWeight(name, ...args);
    }

    override call(inputs: Tensor | Tensor[]): Tensor {
      const { gamma, beta, axis, epsilon, fallback } = this;
      return layerNorm(onlyTensor(inputs), gamma?.read(), beta?.read(), axis, epsilon, { fallback });
    }

    override getConfig(): serialization.ConfigDict {
      const constraints = pick(constraintsOf(this).getConfig(), CONSTRAINTS);
      return { ...super.getConfig(), ...constraints, ...(this.fallback && { fallback: true }) };
    }
  }

  class RMSNormalization extends LayerNormalization {
    static override className = "RMSNormalization";

    constructor(args?: RMSNormalizationArgs & { center?: boolean }) {
      util.assert(!args?.center, () => "RMSNormalization has no beta, but center is true.");
      super({ ...args, center: false });
    }

    override call(inputs: Tensor | Tensor[]): Tensor {
      const { gamma, axis, epsilon, fallback } = this;
      return rmsNorm(onlyTensor(inputs), gamma?.read(), axis, epsilon, { fallback });
    }

    override getConfig(): serialization.ConfigDict {
      const entries = Object.entries(super.getConfig());
      return Object.fromEntries(entries.filter(([name]) => name !== "center" && !name.startsWith("beta")));
    }
  }
  return { Own, LayerNormalization, RMSNormalization };
}

/** Some properties of an object. */
function pick<K extends string>(object: object, names: readonly K[]): Record<K, null> {
  return Object.fromEntries(names.map((name) => [name, (object as Record<K, unknown>)[name]])) as Record<K, null>;
}

let made: ReturnType<typeof makeClasses> | undefined;

/** The classes, made at their first use: tfjs' layers may be loaded after this file. */
function classes() {
  made ??= makeClasses();
  return made;
}

/** Has saved models that name a class load what `create` makes of its config. */
function register(className: string, create: (config: object) => layers.Layer): void {
  const loader = { className, fromConfig: (_: unknown, config: object) => create(config) };
  serialization.SerializationMap.register(loader as never);
}

register("RMSNormalization", (config) => rmsNormalization(config));

/**
 * Layer normalization as a layer: `tf.layers.layerNormalization` on the kernels of this package.
 *
 * It takes the same arguments, and constraints and `fallback` beside them. It has the same weights in the same order,
 * and is saved under the same name, `LayerNormalization`, with the same config. So a model that was saved with it loads
 * without this package, with tfjs' own layer in its place; after `patchLayerNormalization()` either loads as this one.
 */
export function layerNormalization(args?: LayerNormalizationArgs): layers.Layer {
  return new (classes().LayerNormalization)(args) as unknown as layers.Layer;
}

/**
 * RMS normalization as a layer. Its arguments are those of `layerNormalization`, without `center` and beta's. Its
 * weight is gamma. It is saved as `RMSNormalization`, which this package has to be imported to load.
 */
export function rmsNormalization(args?: RMSNormalizationArgs): layers.Layer {
  return new (classes().RMSNormalization)(args) as unknown as layers.Layer;
}

/** The patches in force, the last one last. */
const patches: FallbackOptions[] = [];
/** Takes back what the first of them has changed. */
let restore = () => {};

/**
 * Makes `tf.layers.layerNormalization`, and each model that is loaded from now on, use the kernels of this package. A
 * layer of `tf.layers.layerNormalization` is taken over when it is built, which in a model is as soon as the shape of
 * its input is known. Layers that were built before stay as they are.
 * @param options `fallback`, for the layers that are taken over
 * @returns a function that undoes it. Layers that were taken over stay so.
 */
export function patchLayerNormalization(options: FallbackOptions = {}): () => void {
  checkOptions("patchLayerNormalization", options, ["fallback"]);
  const patch = { fallback: options.fallback };
  if (patches.length === 0) restore = takeOver();
  patches.push(patch);
  return () => {
    const index = patches.indexOf(patch);
    if (index < 0) return;
    patches.splice(index, 1);
    if (patches.length === 0) restore();
  };
}

function takeOver(): () => void {
  const { Own, LayerNormalization } = classes();
  const { className, prototype } = Own;
  const { build } = prototype;
  const { classNameMap } = serialization.SerializationMap.getMap();
  const entry = classNameMap[className];
  register(className, (config) => layerNormalization({ ...patches[patches.length - 1], ...config }));
  const ourEntry = classNameMap[className];
  // Bundlers freeze `tf.layers`, so that the function can't be exchanged. What it makes can be.
  function ourBuild(this: OwnLayer, inputShape: unknown) {
    // Subclasses come here too, by their super.build.
    if (patches.length > 0 && Object.getPrototypeOf(this) === prototype) {
      Object.setPrototypeOf(this, LayerNormalization.prototype);
      Object.assign(this, patches[patches.length - 1]);
    }
    build.call(this, inputShape);
  }
  prototype.build = ourBuild;
  // What somebody else has put in our place meanwhile stays.
  return () => {
    if (prototype.build === ourBuild) prototype.build = build;
    if (classNameMap[className] === ourEntry) Object.assign(classNameMap, { [className]: entry });
  };
}
