// The layers of the entry layernorm-wasm/tfjs, and the patch of TensorFlow.js' own layer.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { FallbackOptions, LayerNormalizationArgs } from "../src/tfjs/index.js";
import { layerNormalization, patchLayerNormalization, rmsNormalization } from "../src/tfjs/index.js";
import {
  apart,
  apply,
  BACKENDS,
  freshEntry,
  gradients,
  held,
  sizeOf,
  tensorOf,
  values,
  withBackend,
} from "./tfjs-helpers.js";

type Layer = tfl.layers.Layer;
const BOTH = [layerNormalization, rmsNormalization];

beforeAll(() => tf.setBackend("wasm"));

/** What `use` gives while the patch is in force. */
async function underPatch<T>(use: () => T | Promise<T>, options?: FallbackOptions): Promise<T> {
  const undo = patchLayerNormalization(options);
  try {
    return await use();
  } finally {
    undo();
  }
}

/** A model whose first layer is a norm. */
function modelOf(norm: Layer): tfl.Sequential {
  const model = tfl.sequential({ layers: [norm, tfl.layers.dense({ units: 1, kernelInitializer: "ones" })] });
  model.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.0625) });
  return model;
}

const predict = (model: tfl.LayersModel, x: tf.Tensor) => values(model.predict(x) as tf.Tensor);

/** A model as it would be saved to a file, and one loaded from that. */
async function save(model: tfl.LayersModel): Promise<tf.io.ModelArtifacts> {
  let saved: tf.io.ModelArtifacts | undefined;
  const handler = tf.io.withSaveHandler(async (artifacts) => {
    saved = { ...artifacts, modelTopology: JSON.parse(JSON.stringify(artifacts.modelTopology)) };
    return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON" } };
  });
  await model.save(handler);
  return saved as tf.io.ModelArtifacts;
}
const load = (artifacts: tf.io.ModelArtifacts) => tfl.loadLayersModel(tf.io.fromMemory(artifacts));

/** That the config of a layer is that of tfjs' own, which has no constraints. */
function expectConfigOf(own: Layer, layer: Layer): void {
  const constraints = { gammaConstraint: null, betaConstraint: null };
  expect(layer.getConfig()).toEqual({ ...own.getConfig(), ...constraints, name: layer.name });
}

describe.each(BACKENDS)("on the %s backend", (backend) => {
  beforeAll(async () => {
    await tf.setBackend(backend);
    return () => tf.setBackend("wasm");
  });

  // The cases that TensorFlow.js publishes for its layer, with the values of Keras.
  describe.each(["ours", "tfjs' own, patched"])("the layer, %s: the published case", (which) => {
    const create = (args?: LayerNormalizationArgs) =>
      which === "ours" ? layerNormalization(args) : tfl.layers.layerNormalization(args);
    beforeAll(() => (which === "ours" ? () => {} : patchLayerNormalization()));
    const TOLERANCE = 1e-3; // of tfjs' own tests

    const [plane, cube] = [
      [1, 2, 3, 3, 6, 24],
      [1, 2, 3, 6, 5, 4, 3, 6, 24, -10, 0, 5],
    ];
    const [end, far, last] = [1.2238274, [-0.8626572, -0.5391607, 1.401818], [-1.3362889, 0.26725778, 1.0690311]];
    const inThree = [-end, 0, end, end, 0, -end, ...far, ...last];
    const first = [-1.4635992, -0.8781595, -0.29271984];
    const overTwo = [...first, ...first.map((value) => -value)];
    overTwo.push(-0.1645762, 0.13166097, 1.909084, -1.4482707, -0.46081337, 0.03291526);
    test.each([
      ["two dimensions", {}, [2, 3], plane, [-end, 0, end, ...far]],
      ["three dimensions", {}, [2, 2, 3], cube, inThree],
      ["axis [1, 2]", { axis: [1, 2] }, [2, 2, 3], cube, overTwo],
      ["axis [-2, -1]", { axis: [-2, -1] }, [2, 2, 3], cube, overTwo],
      ["neither scale nor center", { scale: false, center: false }, [2, 3], plane, [-end, 0, end, ...far]],
    ])("%s, and changed arguments of a call", (_, args, shape, xs, expected) => {
      const [layer, x] = [create(args), tf.tensor(xs, shape)];
      expect(apart(values(apply(layer, x)), expected)).toBeLessThan(TOLERANCE);
      const before = held();
      (layer.apply(x, { scale: true, center: true }) as tf.Tensor).dispose();
      expect(held()).toEqual(before);
    });

    test("an axis that comes twice", () => {
      expect(() => apply(create({ axis: [-2, -1, -1] }), tf.tensor(cube, [2, 2, 3]))).toThrow(/duplicate axes/);
    });

    const dense = () => tfl.layers.dense({ units: 1, kernelInitializer: "ones" });
    const spread = () => tfl.layers.dense({ units: 10, kernelInitializer: "ones", inputShape: [3] });
    const inputShape = [2, 3];
    const flat = (layer: Layer) => [layer, tfl.layers.flatten(), dense()];
    test.each([
      ["", [3, 3], () => [create({ inputShape: [3] }), dense()], [1.66667, 1.42964, 1.23724, 1.07938, 0.94866]],
      [", between others", [4, 3], () => [spread(), create(), dense()], [3.5, 3.10835, 2.87067, 2.72433, 2.63662]],
      [" in three dimensions", [2, 2, 3], () => flat(create({ inputShape })), [0.5, 0.3312, 0.23372, 0.17136, 0.12832]],
      [
        ", axis [-2, -1]",
        [2, 2, 3],
        () => flat(create({ inputShape, axis: [-2, -1] })),
        [0.5, 0.33376, 0.2379, 0.17924, 0.14086],
      ],
    ] as [string, number[], () => Layer[], number[]][])("training%s", async (_, shape, layers, losses) => {
      const model = tfl.sequential({ layers: layers() });
      model.compile({ loss: "meanSquaredError", optimizer: "sgd" });
      const xs = tf.tensor([1, 2, 3, 3, 6, 24, 10, 5, 0, 2, 7, 8].slice(0, sizeOf(shape)), shape);
      const ys = tf.tensor2d([0, -1, 2, 3].slice(0, shape[0]), [shape[0]!, 1]);
      const { history } = await model.fit(xs, ys, { epochs: 5, verbose: 0 });
      expect(apart(history.loss as number[], losses)).toBeLessThan(TOLERANCE);
      const before = held();
      await model.fit(xs, ys, { epochs: 1, verbose: 0 });
      expect(held()).toEqual(before);
    });

    test("a mask that goes through", () => {
      const embedding = tfl.layers.embedding({ inputDim: 4, outputDim: 3, inputLength: 2, maskZero: true });
      const model = tfl.sequential({ layers: [embedding, create()] });
      embedding.setWeights([tf.tensor2d([1, 2, 3, 3, 2, 1, 2, 3, 1, 3, 1, 2], [4, 3])]);
      const expected = [-end, 0, end, end, 0, -end, 0, end, -end, end, -end, 0];
      expect(apart(predict(model, tf.tensor2d([0, 1, 2, 3], [2, 2])), expected)).toBeLessThan(TOLERANCE);
    });
  });

  test.each(BOTH)("%o takes initializers, regularizers and constraints", async (create) => {
    const layer = create({
      inputShape: [3],
      gammaInitializer: tfl.initializers.constant({ value: 3 }),
      gammaRegularizer: tfl.regularizers.l2({ l2: 0.5 }),
      gammaConstraint: "nonNeg",
    });
    const model = modelOf(layer);
    const weights = layer.getWeights();
    expect([...values(weights[0]!)]).toEqual([3, 3, 3]);
    expect(tf.tidy(() => values(layer.calculateLosses()[0]!)[0])).toBe(0.5 * 3 * 9);
    layer.setWeights([tf.tensor1d([-1, 2, -3]), ...weights.slice(1)]);
    const saved = await save(model);
    const again = await underPatch(() => load(saved));
    expect(again.layers[0]!.getConfig().gammaConstraint).toMatchObject({ className: "NonNeg" });
    const [read] = again.layers[0]!.weights;
    read!.write(tf.tensor1d([-4, 5, -6]));
    expect([...values(read!.read())].map(Math.abs)).toEqual([0, 5, 0]);
  });

  test("a model with a shared layer, dropout and two outputs does what it does with tfjs' own layer", async () => {
    type Symbolic = tfl.SymbolicTensor;
    const dense = (units: number, seed: number) =>
      tfl.layers.dense({ units, kernelInitializer: tfl.initializers.glorotNormal({ seed }) });
    const pool = (x: unknown) => tfl.layers.globalAveragePooling1d({}).apply(x as Symbolic) as Symbolic;
    const train = async (create: (args?: object) => Layer) => {
      const shared = create();
      const input = tfl.input({ shape: [null, 8] });
      const first = shared.apply(input) as Symbolic;
      const second = shared.apply(dense(8, 1).apply(first)) as Symbolic;
      const dropped = tfl.layers.dropout({ rate: 0.5, seed: 2 }).apply(second) as Symbolic;
      const sum = create({ epsilon: 1e-5 }).apply(tfl.layers.add().apply([first, dropped]));
      const model = tfl.model({ inputs: input, outputs: [dense(3, 4).apply(pool(sum)) as Symbolic, pool(second)] });
      model.compile({ optimizer: "adam", loss: "meanSquaredError" });
      const [x, ys] = [tensorOf([6, 5, 8], 1), [tensorOf([6, 3], 2), tensorOf([6, 8], 3)]];
      const options = { epochs: 3, batchSize: 4, shuffle: false, validationSplit: 0.34, verbose: 0 };
      const { history } = await model.fit(x, ys, options);
      const lengths = [1, 9, 2];
      const y = lengths.flatMap((length, i) => model.apply(tensorOf([1 + 3 * i, length, 8], 4)) as tf.Tensor[]);
      return { losses: [history.loss, history.val_loss].flat() as number[], y };
    };
    const [ours, own] = [await train(layerNormalization), await train(tfl.layers.layerNormalization)];
    expect(apart(ours.losses, own.losses)).toBeLessThan(1e-5);
    expect(ours.y.map(({ shape }) => shape)).toEqual(own.y.map(({ shape }) => shape));
    for (const [i, y] of ours.y.entries()) expect(apart(values(y), values(own.y[i]!))).toBeLessThan(1e-4);
  });

  test.each(BOTH)("%o may stand in any place, over any axis, without weights, in five dimensions", (create) => {
    const x = tensorOf([2, 3, 4, 5, 6], 1);
    const center = create === layerNormalization ? { center: false } : {};
    for (const args of [{ scale: false }, { axis: [1] }, { axis: [1], ...center }, { axis: [4, 1] }]) {
      const layer = create(args);
      expect(apply(layer, x).shape).toEqual(x.shape);
      expect(gradients((x) => apply(layer, x!), [x], x)[0]!.every(Number.isFinite)).toBe(true);
    }
  });
});

test("numbers of names go on as in tfjs", async () => {
  const { layerNormalization } = await freshEntry();
  const { batchNormalization, layerNormalization: own } = tfl.layers;
  const made = [batchNormalization(), own(), layerNormalization(), layerNormalization(), batchNormalization()];
  const [b, l, ...later] = made.map(({ name }) => Number(/\d+$/.exec(name)?.[0]));
  expect(later).toEqual([l! + 1, l! + 2, b! + 1]);
});

describe("arguments of layers", () => {
  test.each(BOTH)("of %o have tfjs' defaults; those that don't fit are refused", (create) => {
    expect(create(null as never).getConfig()).toMatchObject({ axis: -1, epsilon: 1e-3, scale: true });
    expect(create({ rmsScaling: false } as never).getConfig()).not.toHaveProperty("rmsScaling");
    for (const [args, message] of [
      [{ axis: 0.5 }, "Expected axis to be an integer, but received 0.5"],
      [{ eps: 1e-5 }, `${create.name}: "eps" is not an option, expected axis, epsilon, center, scale`],
      [{ normalizedShape: 3 }, '"normalizedShape" is not an option'],
      [{ rms_scaling: true }, '"rms_scaling" is not an option'],
      [{ rmsScaling: true }, `${create.name}: rms_scaling is not supported`],
    ] as const) {
      expect(() => create(args as never)).toThrow(message);
    }
  });

  test("of beta are none of RMS normalization's, and inputs are one tensor", () => {
    const rms = (args: object) => () => rmsNormalization(args);
    expect(rms({ betaInitializer: "ones" })).toThrow('"betaInitializer" is not an option');
    expect(rms({ center: true })).toThrow("RMSNormalization has no beta, but center is true.");
    const two = [tensorOf([2], 1), tensorOf([2], 2)];
    expect(() => layerNormalization().apply(two)).toThrow("Expected exactly 1 Shape; got 2");
  });

  test("that a saved model of Keras has are taken, but for what the layer doesn't do", async () => {
    const saved = await save(modelOf(tfl.layers.layerNormalization({ inputShape: [3] })));
    const loadWith = (more: object) => {
      const topology = structuredClone(saved.modelTopology) as { config: { layers: { config: object }[] } };
      Object.assign(topology.config.layers[0]!.config, more);
      return underPatch(() => load({ ...saved, modelTopology: topology }));
    };
    await loadWith({ gamma_constraint: null, beta_constraint: null, rms_scaling: false });
    await expect(loadWith({ rms_scaling: true })).rejects.toThrow("layerNormalization: rms_scaling is not supported");
    await expect(loadWith({ later_option: true })).rejects.toThrow('"laterOption" is not an option');
  });

  test("name the axes in any order, in which the weights have their shape, as in tfjs", () => {
    const x = tensorOf([2, 3, 4], 1);
    const [ours, own] = [layerNormalization, tfl.layers.layerNormalization].map((create) => {
      const layer = create({ axis: [2, 1] });
      apply(layer, x);
      layer.setWeights([tensorOf([4, 3], 2), tensorOf([4, 3], 3)]);
      return values(apply(layer, x));
    });
    expect(apart(ours!, own!)).toBeLessThan(5e-6);
  });

  test("have a fallback for other backends", async () => {
    await withBackend("other", async () => {
      const x = tensorOf([3, 4], 1);
      expect(() => apply(layerNormalization(), x)).toThrow("the backend 'other' is not supported");
      const own = await underPatch(() => apply(tfl.layers.layerNormalization(), x), { fallback: true });
      for (const y of [own, ...BOTH.map((create) => apply(create({ fallback: true }), x))]) {
        expect(y.shape).toEqual([3, 4]);
      }
    });
  });
});

describe("saved models", () => {
  test("of either layer load as the other: the name, the config and the weights are the same", async () => {
    const args = { inputShape: [4, 3], axis: [1, -1], epsilon: 0.5 };
    const x = tensorOf([5, 4, 3], 1);
    const [ours, own] = [modelOf(layerNormalization(args)), modelOf(tfl.layers.layerNormalization(args))];
    const [oursSaved, ownSaved] = [await save(ours), await save(own)];
    const specs = (artifacts: tf.io.ModelArtifacts) =>
      artifacts.weightSpecs?.map(({ name, shape }) => [name.replace(/\d+\//, "/"), shape]);
    expect(specs(oursSaved)).toEqual(specs(ownSaved));
    expectConfigOf(own.layers[0]!, ours.layers[0]!);
    const [asOwn, asOurs] = [await load(oursSaved), await underPatch(() => load(ownSaved))];
    expect(asOwn.layers[0]!.constructor).toBe(own.layers[0]!.constructor);
    expect(asOurs.layers[0]!.constructor).toBe(ours.layers[0]!.constructor);
    expect(predict(asOurs, x)).toEqual(predict(ours, x));
    expect(predict(asOwn, x)).toEqual(predict(own, x));
  });

  test("with an RMS normalization load with its weights, and keep fallback", async () => {
    const layer = rmsNormalization({ inputShape: [3], epsilon: 0.25, fallback: true });
    const model = modelOf(layer);
    layer.setWeights([tf.tensor1d([1, -2, 3])]);
    const again = await load(await save(model));
    const config = layer.getConfig();
    expect(again.layers[0]!.getConfig()).toEqual(config);
    expect(config).toMatchObject({ epsilon: 0.25, scale: true, fallback: true });
    expect(Object.keys(config).filter((key) => /beta|center/.test(key))).toEqual([]);
    expect(predict(again, tensorOf([7, 3], 1))).toEqual(predict(model, tensorOf([7, 3], 1)));
  });

  test("are trained on from where they were", async () => {
    const [x, ys] = [tensorOf([8, 3], 1), tensorOf([8, 1], 2)];
    const model = modelOf(layerNormalization({ inputShape: [3] }));
    await model.fit(x, ys, { epochs: 2, verbose: 0, shuffle: false });
    const saved = await save(model);
    const again = await underPatch(() => load(saved));
    again.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.0625) });
    const histories = [model, again].map((model) => model.fit(x, ys, { verbose: 0, shuffle: false }));
    const [one, other] = await Promise.all(histories);
    expect(other!.history.loss).toEqual(one!.history.loss);
  });
});

const OURS = layerNormalization().constructor;
const OWN = tfl.layers.layerNormalization().constructor;

describe("patchLayerNormalization", () => {
  const built = (layer: Layer = tfl.layers.layerNormalization()) => {
    layer.apply(tf.ones([2, 3]));
    return layer;
  };

  test("takes over what is built until it is undone, and that alone", async () => {
    const before = built();
    const [during, ours, rms] = await underPatch(() => [built(), ...BOTH.map((create) => built(create()))] as const);
    const after = built();
    expect([before, during, ours!, after].map((layer) => layer.constructor)).toEqual([OWN, OURS, OURS, OWN]);
    expect(rms!.getClassName()).toBe("RMSNormalization");
    expectConfigOf(before, during); // what was taken over can be saved as before
  });

  test.each([
    [0, 1],
    [1, 0],
  ])("twice, is undone by the second undoing, first of %i, then of %i", (first, second) => {
    const undo = [patchLayerNormalization(), patchLayerNormalization({ fallback: true })];
    expect(built().getConfig().fallback).toBe(true);
    for (let times = 0; times < 2; times++) {
      undo[first]!();
      expect(built().constructor).toBe(OURS);
    }
    undo[second]!();
    expect(built().constructor).toBe(OWN);
  });

  test("hands its fallback to the layers of loaded models", async () => {
    const saved = await save(modelOf(tfl.layers.layerNormalization({ inputShape: [3] })));
    const { layers } = await underPatch(() => load(saved), { fallback: true });
    expect(layers[0]!.constructor).toBe(OURS);
    expect(layers[0]!.getConfig().fallback).toBe(true);
  });

  test("leaves subclasses of tfjs' layer alone", async () => {
    class Mine extends (OWN as new (args?: object) => Layer) {
      override call() {
        return tf.zeros([1]);
      }
    }
    const y = await underPatch(() => apply(new Mine(), tf.ones([2, 3])));
    expect([...values(y)]).toEqual([0]);
  });

  test("leaves what somebody else has put over it when it is undone, and does nothing there", () => {
    const prototype = OWN.prototype as { build(inputShape: unknown): void };
    const { build } = prototype;
    const undo = patchLayerNormalization();
    const ours = prototype.build;
    let calls = 0;
    const theirs = function (this: unknown, inputShape: unknown) {
      calls++;
      ours.call(this as never, inputShape);
    };
    prototype.build = theirs;
    undo();
    expect(prototype.build).toBe(theirs);
    expect(built().constructor).toBe(OWN);
    expect(calls).toBe(1);
    prototype.build = build;
  });

  test("refuses other options", () => {
    expect(() => patchLayerNormalization({ backend: "wasm" } as never)).toThrow(
      'patchLayerNormalization: "backend" is not an option, expected fallback',
    );
  });
});

describe("an app with a class of its own named LayerNormalization", () => {
  const { classNameMap } = tf.serialization.SerializationMap.getMap();
  const entry = classNameMap.LayerNormalization!;
  /** As public ports of GPT-2 have it: two weights, and another arithmetic. */
  class LayerNormalization extends tfl.layers.Layer {
    static className = "LayerNormalization";
    override call(inputs: tf.Tensor | tf.Tensor[]) {
      return tf.mul([inputs].flat()[0]!, -1);
    }
  }
  const registerTheirs = () => tf.serialization.registerClass(LayerNormalization);
  const registered = () => classNameMap.LayerNormalization?.[0];

  afterEach(() => {
    classNameMap.LayerNormalization = entry;
  });

  const x = () => tf.tensor2d([1, 2, 3, 5], [1, 4]);
  const expectNorm = (layer: Layer) => {
    apply(layer, x());
    layer.setWeights([tf.fill([4], 2), tf.fill([4], 1)]);
    expect(apart(values(apply(layer, x())), [-1.37, -0.01, 1.34, 4.04])).toBeLessThan(0.01);
  };

  test.each(["before", "after"])("registered %s the first layer is made, leaves ours as it is", async (order) => {
    const fresh = await freshEntry();
    if (order === "after") expectNorm(fresh.layerNormalization());
    registerTheirs();
    expectNorm(fresh.layerNormalization());
    expect(fresh.rmsNormalization().getClassName()).toBe("RMSNormalization");
  });

  test("registered before the entry is imported, is told to do so later", async () => {
    registerTheirs();
    const fresh = await freshEntry();
    expect(() => fresh.layerNormalization()).toThrow("import layernorm-wasm/tfjs before another is");
    expect([...values(fresh.layerNorm(tf.tensor1d([3, 5]), null, null, -1, 0))]).toEqual([-1, 1]);
  });

  test("keeps it under the patch, which takes over tfjs' own", async () => {
    registerTheirs();
    const saved = await save(modelOf(new LayerNormalization({ inputShape: [4] })));
    await underPatch(async () => {
      const own = tfl.layers.layerNormalization();
      expectNorm(own);
      expect(own.constructor).toBe(OURS);
      expect([...values(apply(new LayerNormalization({}), x()))]).toEqual([-1, -2, -3, -5]);
      expect((await load(saved)).layers[0]).toBeInstanceOf(LayerNormalization);
    });
    expect(registered()).toBe(LayerNormalization);
    expect((await load(saved)).layers[0]).toBeInstanceOf(LayerNormalization);
  });

  test("registered while the patch is in force stays when it is undone", async () => {
    await underPatch(registerTheirs);
    expect(registered()).toBe(LayerNormalization);
  });
});

test("imported before TensorFlow.js' layers, the entry has layers and their patch all the same", () => {
  const program = `
    import { layerNormalization, patchLayerNormalization, rmsNormalization } from "layernorm-wasm/tfjs";
    import "@tensorflow/tfjs-backend-cpu";
    import * as tf from "@tensorflow/tfjs-core";
    let refusal;
    try {
      layerNormalization();
    } catch ({ message }) {
      refusal = message;
    }
    const { layers } = await import("@tensorflow/tfjs-layers");
    await tf.setBackend("cpu");
    patchLayerNormalization();
    tf.serialization.registerClass(class extends layers.Layer { static className = "LayerNormalization" });
    const own = layers.layerNormalization();
    const results = [layerNormalization(), own].map((layer) => [...layer.apply(tf.tensor2d([[3, 5]])).dataSync()]);
    console.log(refusal, own.constructor === layerNormalization().constructor, JSON.stringify(results));
  `;
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const stdio = ["ignore", "pipe", "ignore"] as ["ignore", "pipe", "ignore"];
  const args = ["--input-type=module", "--eval", program];
  const printed = execFileSync(process.execPath, args, { cwd, encoding: "utf8", stdio });
  const y = 0.9995003938674927;
  expect(printed.trim().split("\n").at(-1)).toBe(
    `LayerNormalization is not registered: import @tensorflow/tfjs-layers first. true [[-${y},${y}],[-${y},${y}]]`,
  );
});
