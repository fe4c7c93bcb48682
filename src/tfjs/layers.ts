/**
 * The norms as layers of tfjs, and the patch for the layer that it has itself.
 *
 * The classes extend tfjs' own layer, for its checks, weights and config, and compute with the ops of this entry.
 * @module
 */

import { reshape, serialization, type Tensor, util } from "@tensorflow/tfjs-core";
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

const { classNameMap } = serialization.SerializationMap.getMap();

/**
 * A class of tfjs' layers, which are not imported, so that the ops work without them: the first that is registered by
 * its name. An app may register another by the same name later, as it needs those of tfjs to make it.
 */
function firstNamed(className: string): () => LayerClass {
  const classOf = (entry: unknown) => (entry as [LayerClass] | undefined)?.[0];
  let first = classOf(classNameMap[className]);
  if (!first) {
    const property = { configurable: true, enumerable: true };
    Object.defineProperty(classNameMap, className, {
      ...property,
      get: () => undefined,
      set(value) {
        first = classOf(value);
        Object.defineProperty(classNameMap, className, { ...property, value, writable: true });
      },
    });
  }
  return () => {
    util.assert(first !== undefined, () => `${className} is not registered: import @tensorflow/tfjs-layers first.`);
    return first as LayerClass;
  };
}

const ownLayerNormalization = firstNamed("LayerNormalization");
const ownBatchNormalization = firstNamed("BatchNormalization");

/** The one tensor that a layer is called with. */
function onlyTensor(inputs: Tensor | Tensor[]): Tensor {
  const [input, ...more] = Array.isArray(inputs) ? inputs : [inputs];
  util.assert(input !== undefined && more.length === 0, () => `Expected exactly 1 Tensor; got ${more.length + 1}`);
  return input as Tensor;
}

const CONSTRAINTS = ["gammaConstraint", "betaConstraint"] as const;
/** What tfjs' own layer takes and saves, and what any layer takes. Saved models have no others. */
const WEIGHT_ARGUMENTS = ["betaInitializer", "gammaInitializer", "betaRegularizer", "gammaRegularizer"];
const OWN_ARGUMENTS = ["axis", "epsilon", "center", "scale", ...WEIGHT_ARGUMENTS];
const LAYER_ARGUMENTS = "name dtype trainable weights inputShape batchInputShape batchSize inputDType".split(" ");
const ARGUMENTS = [...OWN_ARGUMENTS, ...CONSTRAINTS, "fallback", ...LAYER_ARGUMENTS];

/** Of these, `center` is there to be false. */
const RMS_ARGUMENTS = ARGUMENTS.filter((name) => !name.startsWith("beta"));

/** The arguments of a layer, where each of them means something here. */
function checked<Args extends object>(layer: string, args: Args | null | undefined, names = ARGUMENTS): Args {
  // Keras saves it as false, too. With true x is divided by its deviation, without a mean: neither norm does that.
  const { rmsScaling = false, ...known } = (args ?? {}) as { rmsScaling?: boolean };
  util.assert(!rmsScaling, () => `${layer}: rms_scaling is not supported.`);
  checkOptions(layer, known, names);
  return known as Args;
}

/** The classes of this entry, and the one of tfjs that they extend. */
function makeClasses() {
  const Own = ownLayerNormalization();
  const config = new Own({ name: "own" }).getConfig(); // without a name, one of those that are numbered would be used up
  util.assert(
    OWN_ARGUMENTS.every((name) => name in config),
    () =>
      "The LayerNormalization that is registered is not that of TensorFlow.js: import layernorm-wasm/tfjs before another is.",
  );
  // What makes a constraint of an identifier is not public. This layer does it.
  const BatchNormalization = ownBatchNormalization();
  const constraintsOf = (layer: object) => new BatchNormalization({ ...pick(layer, CONSTRAINTS), name: "constraints" });

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
      const x = onlyTensor(inputs);
      const { axis, gamma, beta } = inOrder(this, x);
      return layerNorm(x, gamma, beta, axis, this.epsilon, { fallback: this.fallback });
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
      const x = onlyTensor(inputs);
      const { axis, gamma } = inOrder(this, x);
      return rmsNorm(x, gamma, axis, this.epsilon, { fallback: this.fallback });
    }

    override getConfig(): serialization.ConfigDict {
      const entries = Object.entries(super.getConfig());
      return Object.fromEntries(entries.filter(([name]) => name !== "center" && !name.startsWith("beta")));
    }
  }
  return { Own, LayerNormalization, RMSNormalization };
}

/**
 * The axes of a layer in the order of x, and its weights. As in tfjs, the order in which the axes are named is that of
 * the shape of the weights alone, their values are in the order of x.
 */
function inOrder(
  layer: OwnLayer,
  x: Tensor,
): { axis: number[]; gamma?: Tensor | undefined; beta?: Tensor | undefined } {
  const named = [layer.axis].flat();
  const axis = [...named].sort((a, b) => a - b);
  const shape = axis.map((dimension) => x.shape[dimension] as number);
  const read = (weight: OwnLayer["gamma"]) =>
    weight ? (util.arraysEqual(axis, named) ? weight.read() : reshape(weight.read(), shape)) : undefined;
  return { axis, gamma: read(layer.gamma), beta: read(layer.beta) };
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
  // customObjects is of the loading, not of the layer.
  const fromConfig = (_: unknown, { customObjects, ...config }: { customObjects?: unknown }) => create(config);
  const loader = { className, fromConfig };
  serialization.SerializationMap.register(loader as never);
}

// One of the app's own stays.
if (!classNameMap.RMSNormalization) register("RMSNormalization", (config) => rmsNormalization(config));

/**
 * Layer normalization as a layer: `tf.layers.layerNormalization` on the kernels of this package.
 *
 * It takes the same arguments, and constraints and `fallback` beside them. It has the same weights in the same order,
 * and is saved under the same name, `LayerNormalization`, with the same config. So a model that was saved with it loads
 * without this package, with tfjs' own layer in its place; after `patchLayerNormalization()` either loads as this one.
 */
export function layerNormalization(args?: LayerNormalizationArgs): layers.Layer {
  const { LayerNormalization } = classes();
  return new LayerNormalization(checked("layerNormalization", args)) as unknown as layers.Layer;
}

/**
 * RMS normalization as a layer. Its arguments are those of `layerNormalization`, without `center` and beta's. Its
 * weight is gamma. It is saved as `RMSNormalization`, which this package has to be imported to load.
 */
export function rmsNormalization(args?: RMSNormalizationArgs): layers.Layer {
  const { RMSNormalization } = classes();
  return new RMSNormalization(checked("rmsNormalization", args, RMS_ARGUMENTS)) as unknown as layers.Layer;
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
  const entry = classNameMap[className];
  // What an app has registered by this name stays that of its models.
  if (entry?.[0] === (Own as unknown)) {
    register(className, (config) => layerNormalization({ ...patches[patches.length - 1], ...config }));
  }
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
