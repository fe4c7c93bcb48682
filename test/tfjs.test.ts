// The entry layernorm-wasm/tfjs, on TensorFlow.js' wasm and cpu backends in Node. In browsers, with threads, and with older
// versions of TensorFlow.js it is tested by test/bundlers and test/tfjs.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  type LayerNormalizationArgs,
  layerNorm,
  layerNormalization,
  patchLayerNormalization,
  rmsNorm,
  rmsNormalization,
} from "../src/tfjs/index.js";
import { normal } from "./helpers.js";
import { errorsOf, LIMITS, UNIT } from "./reference.js";

type Optional = tf.Tensor | null | undefined;
type Axis = number | number[];
type Three = [tf.Tensor, tf.Tensor, tf.Tensor];
type Four = [...Three, tf.Tensor];

const BACKENDS = ["wasm", "cpu"];

const values = (tensor: tf.Tensor) => tensor.dataSync<"float32">();
const tensorOf = (shape: number[], seed: number) =>
  tf.tensor(
    normal(
      shape.reduce((size, dimension) => size * dimension, 1),
      seed,
    ),
    shape,
  );
const apply = (layer: tfl.layers.Layer, x: tf.Tensor) => layer.apply(x) as tf.Tensor;

/** All of what tfjs counts, and the data of its backend. */
function held() {
  const { numTensors, numDataBuffers, numBytes } = tf.memory();
  return { numTensors, numDataBuffers, numBytes, numDataIds: tf.backend().numDataIds() };
}

/** The scalar whose gradient with respect to y is dy. */
const weighed = (y: tf.Tensor, dy: tf.Tensor): tf.Scalar => tf.sum(tf.mul(y, dy));

async function loadPatched(artifacts: tf.io.ModelArtifacts): Promise<tfl.LayersModel> {
  const undo = patchLayerNormalization();
  return load(artifacts).finally(undo);
}

/** A backend that is as the cpu one, but without the kernels of this package. */
tf.registerBackend("other", () => tf.findBackendFactory("cpu")());
tf.copyRegisteredKernels("cpu", "other");
for (const kernel of ["LayernormWasmForward", "LayernormWasmBackward"]) tf.unregisterKernel(kernel, "other");

async function withBackend(name: string, use: () => unknown) {
  const before = tf.getBackend();
  await tf.setBackend(name);
  try {
    await use();
  } finally {
    await tf.setBackend(before);
  }
}

/** A model whose first layer is a norm, as in the fixture of Keras. */
function modelOf(norm: tfl.layers.Layer, units = 1): tfl.Sequential {
  const model = tfl.sequential({ layers: [norm, tfl.layers.dense({ units, kernelInitializer: "ones" })] });
  model.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.0625) });
  return model;
}

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

describe.each(BACKENDS)("on the %s backend", (backend) => {
  beforeAll(async () => {
    await tf.setBackend(backend);
  });

  test("without rows the gradient of beta is zeros of its shape, with and without gamma", () => {
    const [x, gamma, beta, dy] = [tf.zeros([2, 0, 5]), tensorOf([5], 1), tensorOf([5], 2), tf.zeros([2, 0, 5])];
    const ofBeta = (gamma: Optional) => tf.grad((beta) => layerNorm(x, gamma, beta))(beta, dy);
    for (const gradient of [ofBeta(gamma), ofBeta(null)]) {
      expect(gradient.shape).toEqual([5]);
      expect([...values(gradient)]).toEqual([0, 0, 0, 0, 0]);
    }
  });

  describe.each(["layerNorm", "rmsNorm"] as const)("%s", (norm) => {
    const op = (x: tf.Tensor, gamma: Optional, beta: Optional, axis: Axis, eps: number, options = {}): tf.Tensor =>
      norm === "layerNorm" ? layerNorm(x, gamma, beta, axis, eps, options) : rmsNorm(x, gamma, axis, eps, options);
    // RMS normalization has no beta.
    const parameters = [true, false].flatMap((scale) =>
      norm === "layerNorm" ? [true, false].map((center) => ({ scale, center })) : [{ scale, center: false }],
    );
    const [rows, cols, eps] = [150, 37, 1e-5]; // enough rows for sums in double

    test.each(parameters)("is within the units of the kernels, forward and backward, with %o", ({ scale, center }) => {
      // Of three rows one is ordinary, two have a variance that is small beside eps, one of these lies far from zero.
      const perRow = (value: (row: number) => number) =>
        tf.tensor3d(
          Array.from({ length: 25 }, (_, row) => value(row % 3)),
          [1, 25, 1],
        );
      const spread = perRow((kind) => (kind === 0 ? 1 : 1e-4));
      const offset = perRow((kind) => (kind === 1 ? 1 : 0));
      const x = tf.add(tf.mul(tensorOf([6, 25, cols], 1), spread), offset);
      const dy = tensorOf([6, 25, cols], 3);
      const gamma = scale ? tensorOf([cols], 4) : null;
      const beta = center ? tensorOf([cols], 5) : null;
      const given = [gamma, beta].filter((parameter) => parameter !== null);
      const f = (x: tf.Tensor) => op(x, gamma, beta, -1, eps);
      const y = f(x);
      expect(y.shape).toEqual(x.shape);
      const gradients = tf.grads((x: tf.Tensor) => weighed(f(x), dy))([x, ...given]);
      const names = ["dx", ...(scale ? ["dweight"] : []), ...(center ? ["dbias"] : [])];
      const got = Object.fromEntries(names.map((name, i) => [name, values(gradients[i]!)]));
      const [weight, bias] = [gamma && values(gamma), beta && values(beta)];
      const input = { norm, x: values(x), dy: values(dy), weight, bias, rows, cols, eps };
      const errors = errorsOf({ y: values(y), ...got }, input);
      expect(Object.keys(errors)).toEqual(["y", ...names]);
      for (const [name, units] of Object.entries(errors)) {
        expect(units, name).toBeLessThanOrEqual(LIMITS[norm][name as keyof typeof errors]);
      }
    });

    test("with a residual gives the bits of an addition before it, and of its gradients", () => {
      const [x, residual, dy, dsum] = [1, 2, 3, 6].map((seed) => tensorOf([6, 25, cols], seed)) as Four;
      const [gamma, beta] = [tensorOf([cols], 4), norm === "layerNorm" ? tensorOf([cols], 5) : null];
      const given = [x, residual, gamma, ...(beta ? [beta] : [])];
      const fused = (x: tf.Tensor, residual: tf.Tensor) =>
        op(x, gamma, beta, -1, eps, { residual, returnSum: true }) as unknown as [tf.Tensor, tf.Tensor];
      const apart = (x: tf.Tensor, residual: tf.Tensor) => {
        const sum = tf.add(x, residual);
        return [op(sum, gamma, beta, -1, eps), sum] as [tf.Tensor, tf.Tensor];
      };
      expect(fused(x, residual).map(values)).toEqual(apart(x, residual).map(values));
      expect(values(op(x, gamma, beta, -1, eps, { residual }))).toEqual(values(apart(x, residual)[0]));
      const [got, expected] = [fused, apart].map((f) =>
        tf.grads((x: tf.Tensor, residual: tf.Tensor) => {
          const other = weighed(tf.square(x), dy); // so that more is added to the gradient of x alone
          const [y, sum] = f(x, residual);
          return tf.addN([other, weighed(y, dy), weighed(sum, dsum)]);
        })(given),
      );
      expect(got!.map(values)).toEqual(expected!.map(values));
      // x may be the residual as well.
      const [twice] = tf.grads((x: tf.Tensor) => weighed(fused(x, x)[0], dy))([x]);
      const [doubled] = tf.grads((x: tf.Tensor) => weighed(op(tf.add(x, x), gamma, beta, -1, eps), dy))([x]);
      expect(values(twice!)).toEqual(values(doubled!));
    });

    test.each([
      [[0], [0], [1, 2, 3]],
      [[1], [1], [0, 2, 3]],
      [-2, [2], [0, 1, 3]],
      [
        [-1, 1],
        [1, 3],
        [0, 2],
      ],
      [
        [2, 0],
        [0, 2],
        [1, 3],
      ],
      [[1, 2, 3], [1, 2, 3], [0]],
      [
        [-2, -3],
        [1, 2],
        [0, 3],
      ],
      [[3, 2, 1, 0], [0, 1, 2, 3], []],
    ])("over axis %j gives the bits of a transposed tensor", (axis, sorted, others) => {
      const shape = [3, 5, 4, 7];
      const sizes = (dimensions: number[]) => dimensions.map((dimension) => shape[dimension]!);
      const given = [axis].flat().map((dimension) => (dimension + 4) % 4);
      const [x, residual, dy] = [tensorOf(shape, 1), tensorOf(shape, 2), tensorOf(shape, 3)];
      const gamma = tensorOf(sizes(given), 4);
      const beta = norm === "layerNorm" ? tensorOf(sizes(given), 5) : null;
      const order = [...others, ...sorted];
      const back = order.map((_, dimension) => order.indexOf(dimension));
      const last = sorted.map((_, i) => i - sorted.length);
      const straight = (x: tf.Tensor, gamma: tf.Tensor) => op(x, gamma, beta, axis, eps, { residual });
      // As WebNN does: the dimensions of gamma and beta are those of the axes as they are named.
      const named = sorted.map((dimension) => given.indexOf(dimension));
      const turned = (x: tf.Tensor, gamma: tf.Tensor) => {
        const [g, b] = [gamma, beta].map((parameter) => parameter && tf.transpose(parameter, named));
        const options = { residual: tf.transpose(residual, order) };
        return tf.transpose(op(tf.transpose(x, order), g!, b!, last, eps, options), back);
      };
      expect(values(straight(x, gamma))).toEqual(values(turned(x, gamma)));
      const gradients = [straight, turned].map((f) =>
        tf
          .grads((x: tf.Tensor, gamma: tf.Tensor) => weighed(f(x, gamma), dy))([x, gamma])
          .map(values),
      );
      expect(gradients[0]).toEqual(gradients[1]);
    });

    test.each([
      [
        [0, 2],
        [5, 4],
      ],
      [
        [2, 0],
        [4, 5],
      ],
      [
        [-1, -2],
        [4, 3],
      ],
    ])("over axis %j agrees with the ops of tfjs, which fallback gives on other backends", async (axis, shape) => {
      const [x, residual, dy] = [1, 2, 3].map((seed) => tensorOf([5, 3, 4], seed)) as Three;
      const [gamma, beta] = [tensorOf(shape, 4), norm === "layerNorm" ? tensorOf(shape, 5) : null];
      const f = (x: tf.Tensor, residual: tf.Tensor, ...rest: tf.Tensor[]) =>
        op(x, rest[0], rest[1], axis, 1e-3, { residual, fallback: true });
      const given = [x, residual, gamma, ...(beta ? [beta] : [])];
      const all = () =>
        [f(...(given as Three)), ...tf.grads((...t) => weighed(f(...(t as Three)), dy))(given)].map(values);
      const ours = all();
      await withBackend("other", () => {
        for (const [i, expected] of all().entries()) {
          // Sums of fifteen to twenty products, of at most some ten each, in float32.
          expect(Math.max(...expected.map((value, k) => Math.abs(value - ours[i]![k]!)))).toBeLessThan(20 * 10 * UNIT);
        }
      });
    });

    test("has the second derivatives of the ops of tfjs", async () => {
      const shape = [3, 5, 4];
      const given = [shape, shape, [5, 4], ...(norm === "layerNorm" ? [[5, 4]] : [])].map(tensorOf) as Three;
      const f = (x: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta?: tf.Tensor) => {
        const options = { residual, returnSum: true, fallback: true };
        const [y, sum] = op(x, gamma, beta, [1, 2], 1e-3, options) as unknown as [tf.Tensor, tf.Tensor];
        return tf.sum(tf.mul(tf.square(y), sum));
      };
      // A penalty on gradients, as it is used to train a critic.
      const penalty = (...given: tf.Tensor[]) =>
        tf.addN(
          tf
            .grads(f as never)(given)
            .map((gradient) => tf.sum(tf.square(gradient))),
        );
      const second = () =>
        tf.tidy(() =>
          tf
            .grads(penalty as never)(given)
            .map(values),
        );
      const before = held();
      const ours = second();
      expect(held()).toEqual(before);
      await withBackend("other", () => {
        for (const [i, expected] of second().entries()) {
          const scale = Math.max(...expected.map(Math.abs));
          // Sums of 3 * 20 products, twice, in float32.
          expect(Math.max(...expected.map((value, k) => Math.abs(value - ours[i]![k]!)))).toBeLessThan(
            120 * scale * UNIT,
          );
        }
      });
    });

    test("takes lists of numbers, other types of numbers, and tensors without elements", () => {
      const rows = [
        [1, 2, 4],
        [8, 4, 2],
      ];
      const expected = values(op(tf.tensor2d(rows), null, null, -1, 1e-3));
      expect(values(op(rows as never, [1, 1, 1] as never, null, -1, 1e-3))).toEqual(expected);
      expect(values(op(tf.tensor2d(rows, [2, 3], "int32"), null, null, -1, 1e-3))).toEqual(expected);
      const bits = [0, 1, 1, 1, 0, 1];
      const [asBool, asFloat] = (["bool", "float32"] as const).map((dtype) => {
        const x = tf.tensor2d(bits, [2, 3], dtype);
        const gamma = tf.tensor1d([1, 1, 0], dtype);
        return [
          op(x, gamma, null, -1, 1e-3, { residual: x }),
          ...tf.grads((x: tf.Tensor, gamma: tf.Tensor) => weighed(op(x, gamma, null, -1, 1e-3), x))([x, gamma]),
        ].map(values);
      });
      expect(asBool).toEqual(asFloat);
      for (const [shape, axis, cols] of [
        [[0, 3], -1, 3],
        [[2, 0, 3], -1, 3],
        [[2, 3, 0], 1, 3],
        [[0, 4, 5], 1, 4],
      ] as const) {
        const gamma = tf.ones([cols]);
        const [dx, dgamma] = tf.grads((x: tf.Tensor, gamma: tf.Tensor) =>
          tf.sum(op(x, gamma, null, axis, 1e-3, { residual: x })),
        )([tf.zeros([...shape]), gamma]);
        expect([dx!.shape, dgamma!.shape]).toEqual([shape, gamma.shape]);
        expect(values(dgamma!).every((value) => value === 0)).toBe(true);
      }
    });

    test("keeps NaN and infinity within their rows", () => {
      const [x, dy] = [tensorOf([4, 7], 1), tensorOf([4, 7], 2)];
      const spoiled = tf.tensor2d(
        values(x).map((value, i) => (i === 9 ? NaN : i === 16 ? -Infinity : value)),
        [4, 7],
      );
      const f = (x: tf.Tensor) => op(x, null, null, -1, 1e-3);
      const rowsOf = (x: tf.Tensor) =>
        [f(x), tf.grad(f)(x, dy)].map((t) => [0, 1, 2, 3].map((row) => [...values(t).slice(7 * row, 7 * row + 7)]));
      const expected = rowsOf(x);
      for (const [i, [first, second, third, fourth]] of rowsOf(spoiled).entries()) {
        expect([first, fourth]).toEqual([expected[i]![0], expected[i]![3]]);
        expect(second!.every(Number.isNaN)).toBe(true);
        expect(third!.some(Number.isNaN)).toBe(true);
      }
    });

    test("refuses what doesn't fit, and keeps nothing of it", () => {
      const x = tensorOf([2, 3, 4], 1);
      const before = held();
      const refusals: [unknown[], string | RegExp][] = [
        [[null], `Argument 'x' passed to '${norm}' must be a Tensor or TensorLike, but got 'null'.`],
        [[["a", "b"]], `Argument 'x' passed to '${norm}' must be a numeric tensor, but got a string tensor.`],
        [[3], `Error in ${norm}: x is a scalar, but a tensor of rank 1 or higher is expected.`],
        [[x, [1, 2, 3]], `Error in ${norm}: gamma has the shape [3], but [4] is expected.`],
        [[x, null, null, 3], /All values in axis param must be in range \[-3, 3\) but got axis 3/],
        [[x, null, null, 0.5], /All values in axis param must be integers but got axis 0.5/],
        [[x, null, null, null], `Error in ${norm}: axis is null, but a number or an array of numbers is expected.`],
        [[x, null, null, ["1"]], `Error in ${norm}: axis is ["1"], but a number or an array of numbers is expected.`],
        [[x, null, null, []], `Error in ${norm}: axis is [], but at least one dimension is expected.`],
        [[x, null, null, [2, -1]], `Error in ${norm}: axis [2,-1] names a dimension twice.`],
        [[[[], []]], `Error in ${norm}: x of shape [2,0] has no elements along axis -1.`],
        [[x, null, null, -1, -1], `Error in ${norm}: epsilon is -1, but a finite number of 0 or more is expected.`],
        [[x, null, null, -1, NaN], `Error in ${norm}: epsilon is NaN, but a finite number of 0 or more is expected.`],
        [
          [x, null, null, -1, 1e-3, { residual: [1] }],
          `Error in ${norm}: residual has the shape [1], but [2,3,4] is expected.`,
        ],
        [[x, null, null, -1, 1e-3, { returnSum: true }], `Error in ${norm}: returnSum needs a residual.`],
        [
          [x, null, null, -1, 1e-3, { eps: 1 }],
          `${norm}: "eps" is not an option, expected residual, returnSum, fallback`,
        ],
      ];
      for (const [args, message] of refusals) expect(() => op(...(args as Parameters<typeof op>))).toThrow(message);
      expect(held()).toEqual(before);
    });

    test("holds nothing after a hundred calls", () => {
      const [x, residual, gamma] = [tensorOf([9, 64], 1), tensorOf([9, 64], 2), tensorOf([64], 4)];
      const both = { residual, returnSum: true };
      const step = () => {
        const [y, sum] = op(x, gamma, null, -1, 1e-3, both) as unknown as [tf.Tensor, tf.Tensor];
        const gradients = tf.grads((x: tf.Tensor, gamma: tf.Tensor) => {
          const [y, sum] = op(x, gamma, null, -1, 1e-3, both) as unknown as [tf.Tensor, tf.Tensor];
          return tf.add(tf.sum(y), tf.sum(sum));
        })([x, gamma]);
        tf.dispose([y, sum, gradients]);
      };
      step();
      const before = held();
      for (let i = 0; i < 100; i++) step();
      expect(held()).toEqual(before);
    });
  });

  // The cases that TensorFlow.js publishes for its layer, with the values of Keras.
  describe.each(["ours", "tfjs' own, patched"])("the layer, %s: the published case", (which) => {
    const create = (args?: LayerNormalizationArgs) =>
      which === "ours" ? layerNormalization(args) : tfl.layers.layerNormalization(args);
    let undo = () => {};
    beforeAll(() => {
      if (which !== "ours") undo = patchLayerNormalization();
      return () => undo();
    });
    const cube = () => tf.tensor3d([1, 2, 3, 6, 5, 4, 3, 6, 24, -10, 0, 5], [2, 2, 3]);
    // As far as tfjs' own tests allow.
    const close = (got: ArrayLike<number>, expected: number[]) => {
      expect(got.length).toBe(expected.length);
      for (const [i, value] of expected.entries()) expect(Math.abs(got[i]! - value)).toBeLessThan(1e-3);
    };
    const [row, far] = [
      [-1.2238274, 0, 1.2238274],
      [-0.8626572, -0.5391607, 1.401818],
    ];

    test("two dimensions", () => {
      const xs = tf.tensor2d([1, 2, 3, 3, 6, 24], [2, 3]);
      close(values(apply(create(), xs)), [...row!, ...far!]);
    });

    test("three dimensions", () => {
      const last = [-1.3362889, 0.26725778, 1.0690311];
      close(values(apply(create(), cube())), [...row!, ...[...row!].reverse(), ...far!, ...last]);
    });

    test.each([[[1, 2]], [[-2, -1]]])("axis %j", (axis) => {
      const first = [-1.4635992, -0.8781595, -0.29271984];
      const second = [-0.1645762, 0.13166097, 1.909084, -1.4482707, -0.46081337, 0.03291526];
      close(values(apply(create({ axis }), cube())), [...first, ...first.map((value) => -value), ...second]);
    });

    test("an axis that comes twice", () => {
      expect(() => apply(create({ axis: [-2, -1, -1] }), cube())).toThrow(/duplicate axes/);
    });

    test("neither scale nor center, and changed arguments of a call", () => {
      const layer = create({ scale: false, center: false });
      const xs = tf.tensor2d([1, 2, 3, 3, 6, 24], [2, 3]);
      close(values(apply(layer, xs)), [...row!, ...far!]);
      const before = held();
      (layer.apply(xs, { scale: true, center: true }) as tf.Tensor).dispose();
      expect(held()).toEqual(before);
    });

    const [three, four] = [
      [1, 2, 3, 3, 6, 24, 10, 5, 0],
      [1, 2, 3, 3, 6, 24, 10, 5, 0, 2, 7, 8],
    ];
    const dense = () => tfl.layers.dense({ units: 1, kernelInitializer: "ones" });
    const spread = () => tfl.layers.dense({ units: 10, kernelInitializer: "ones", inputShape: [3] });
    test.each([
      [
        "training",
        [3, 3],
        three!,
        [0, -1, 2],
        () => [create({ inputShape: [3] }), dense()],
        [1.6666666269302368, 1.4296358823776245, 1.2372404336929321, 1.0793765783309937, 0.9486551880836487],
      ],
      [
        "training, between others",
        [4, 3],
        four!,
        [0, -1, 2, 3],
        () => [spread(), create(), dense()],
        [3.5, 3.1083502769470215, 2.8706729412078857, 2.7243311405181885, 2.6366190910339355],
      ],
      [
        "training in three dimensions",
        [2, 2, 3],
        four!,
        [0, -1],
        () => [create({ inputShape: [2, 3] }), tfl.layers.flatten(), dense()],
        [0.5, 0.33119967579841614, 0.23371894657611847, 0.171361044049263, 0.12831644713878632],
      ],
      [
        "training, axis [-2, -1]",
        [2, 2, 3],
        four!,
        [0, -1],
        () => [create({ inputShape: [2, 3], axis: [-2, -1] }), tfl.layers.flatten(), dense()],
        [0.5, 0.3337608873844147, 0.23789873719215393, 0.17923809587955475, 0.1408553570508957],
      ],
    ])("%s", async (_, shape, xs, ys, layers, losses) => {
      const model = tfl.sequential({ layers: layers() });
      model.compile({ loss: "meanSquaredError", optimizer: "sgd" });
      const data = [tf.tensor(xs, shape), tf.tensor2d(ys, [ys.length, 1])] as const;
      const history = await model.fit(...data, { epochs: 5, verbose: 0 });
      close(history.history.loss as number[], losses);
      const before = held();
      await model.fit(...data, { epochs: 1, verbose: 0 });
      expect(held()).toEqual(before);
    });

    test("a mask that goes through", () => {
      const embedding = tfl.layers.embedding({ inputDim: 4, outputDim: 3, inputLength: 2, maskZero: true });
      const model = tfl.sequential({ layers: [embedding, create()] });
      embedding.setWeights([tf.tensor2d([1, 2, 3, 3, 2, 1, 2, 3, 1, 3, 1, 2], [4, 3])]);
      const ys = model.predict(tf.tensor2d([0, 1, 2, 3], [2, 2])) as tf.Tensor;
      const [a, z] = [-1.2238274, 1.2238274];
      close(values(ys), [a, 0, z, z, 0, a, 0, z, a, z, a, 0]);
    });
  });

  test("the layer follows the losses of Keras' five epochs, and ends with its weights", async () => {
    const fixture = JSON.parse(readFileSync(new URL("fixtures/keras.json", import.meta.url), "utf8"));
    const { cols, batchSize, initial, trained, epsilon } = fixture;
    const model = modelOf(layerNormalization({ inputShape: [cols], epsilon }));
    model.setWeights([
      tf.tensor1d(initial.gamma),
      tf.tensor1d(initial.beta),
      tf.tensor2d(initial.kernel, [cols, 1]),
      tf.tensor1d(initial.bias),
    ]);
    const losses: number[] = [];
    await model.fit(
      tf.tensor2d(fixture.x, [fixture.targets.length, cols]),
      tf.tensor2d(fixture.targets, [fixture.targets.length, 1]),
      {
        batchSize,
        epochs: fixture.losses.length,
        shuffle: false,
        verbose: 0,
        callbacks: { onBatchEnd: async (_, logs) => void losses.push(logs?.loss as number) },
      },
    );
    // As keras.test.ts derives it, with the largest prediction that these weights allow.
    const reach = initial.kernel.reduce(
      (sum: number, weight: number, i: number) =>
        sum + Math.abs(weight) * (Math.abs(initial.gamma[i]) * Math.sqrt(cols) + Math.abs(initial.beta[i])),
      Math.abs(initial.bias[0]) + Math.max(...fixture.targets),
    );
    const expected = fixture.losses.flat() as number[];
    expect(losses.length).toBe(expected.length);
    const off = losses.map(
      (loss, step) => Math.abs(loss - expected[step]!) / (2 * Math.sqrt(expected[step]!) * UNIT * reach * (8 + step)),
    );
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
    const weights = model.getWeights().map(values);
    for (const [i, name] of ["gamma", "beta", "kernel", "bias"].entries()) {
      const scale = Math.max(...trained[name].map(Math.abs));
      const units = Array.from(weights[i]!, (value, k) => Math.abs(value - trained[name][k]) / (UNIT * scale));
      expect(Math.max(...units), name).toBeLessThanOrEqual(losses.length);
    }
  });

  test.each([layerNormalization, rmsNormalization])(
    "%o takes initializers, regularizers and constraints",
    async (create) => {
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
      const again = await loadPatched(await save(model));
      const config = again.layers[0]!.getConfig();
      expect(config.gammaConstraint).toMatchObject({ className: "NonNeg" });
      const [read] = again.layers[0]!.weights;
      read!.write(tf.tensor1d([-4, 5, -6]));
      expect([...values(read!.read())].map(Math.abs)).toEqual([0, 5, 0]);
    },
  );

  test("a model with a shared layer, dropout and two outputs does what it does with tfjs' own layer", async () => {
    const models = [layerNormalization, tfl.layers.layerNormalization].map((create) => {
      const dense = (units: number, seed: number) =>
        tfl.layers.dense({ units, kernelInitializer: tfl.initializers.glorotNormal({ seed }) });
      const shared = create();
      const pool = () => tfl.layers.globalAveragePooling1d({});
      const input = tfl.input({ shape: [null, 8] });
      const first = shared.apply(input);
      const second = shared.apply(dense(8, 1).apply(first)) as tfl.SymbolicTensor;
      const dropped = tfl.layers.dropout({ rate: 0.5, seed: 2 }).apply(second) as tfl.SymbolicTensor;
      const sum = create({ epsilon: 1e-5 }).apply(tfl.layers.add().apply([first as tfl.SymbolicTensor, dropped]));
      const outputs = [dense(3, 4).apply(pool().apply(sum)), pool().apply(second)] as tfl.SymbolicTensor[];
      const model = tfl.model({ inputs: input, outputs });
      model.compile({ optimizer: "adam", loss: "meanSquaredError" });
      return model;
    });
    const [x, ys] = [tensorOf([6, 5, 8], 1), [tensorOf([6, 3], 2), tensorOf([6, 8], 3)]];
    const [ours, own] = await Promise.all(
      models.map(async (model) => {
        const { history } = await model.fit(x, ys, {
          epochs: 3,
          batchSize: 4,
          shuffle: false,
          validationSplit: 0.34,
          verbose: 0,
        });
        const shapes = [
          [1, 1, 8],
          [7, 9, 8],
          [9, 2, 8],
        ];
        const y = shapes.flatMap((shape) => model.apply(tensorOf(shape, 4)) as tf.Tensor[]);
        return { losses: [history.loss, history.val_loss].flat() as number[], y };
      }),
    );
    const apart = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Math.max(0, ...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
    expect(apart(ours!.losses, own!.losses)).toBeLessThan(1e-5);
    for (const [i, y] of ours!.y.entries()) {
      expect(y.shape).toEqual(own!.y[i]!.shape);
      expect(apart(values(y), values(own!.y[i]!))).toBeLessThan(1e-4);
    }
  });

  test("numbers of names go on as in tfjs", () => {
    const names = [tfl.layers.batchNormalization(), layerNormalization(), layerNormalization()].map(({ name }) => name);
    const numbers = [...names, tfl.layers.batchNormalization().name, tfl.layers.layerNormalization().name].map((name) =>
      Number(/\d+$/.exec(name)?.[0]),
    );
    expect(numbers).toEqual([numbers[0], numbers[1], numbers[1]! + 1, numbers[0]! + 1, numbers[1]! + 2]);
  });

  test("layers may stand in a model in any place, over any axis, without weights, in five dimensions", () => {
    for (const create of [layerNormalization, rmsNormalization]) {
      for (const args of [{ scale: false }, { axis: [1] }, { axis: [1], center: false }, { axis: [4, 1] }]) {
        const { center, ...rest } = args as { center?: boolean };
        const layer = create(create === rmsNormalization ? rest : args);
        const x = tensorOf([2, 3, 4, 5, 6], 1);
        const y = apply(layer, x);
        expect(y.shape).toEqual(x.shape);
        const dx = tf.grad((x: tf.Tensor) => weighed(apply(layer, x), x))(x);
        expect(values(dx).every(Number.isFinite)).toBe(true);
      }
    }
    expect(() => apply(layerNormalization(), [tensorOf([2], 1), tensorOf([2], 2)] as never)).toThrow(
      "Expected exactly 1 Shape; got 2",
    );
    for (const create of [layerNormalization, rmsNormalization]) {
      expect(create(null as never).getConfig()).toMatchObject({ axis: -1, epsilon: 1e-3, scale: true });
      expect(() => create({ axis: 0.5 })).toThrow("Expected axis to be an integer, but received 0.5");
    }
    expect(() => rmsNormalization({ center: true } as never)).toThrow(
      "RMSNormalization has no beta, but center is true.",
    );
  });
});

describe("saved models", () => {
  beforeAll(async () => {
    await tf.setBackend("wasm");
  });

  const args = { inputShape: [4, 3], axis: [1, -1], epsilon: 0.5 };
  const x = () => tensorOf([5, 4, 3], 1);

  test("of either layer load as the other: the name, the config and the weights are the same", async () => {
    const [ours, own] = [modelOf(layerNormalization(args)), modelOf(tfl.layers.layerNormalization(args))];
    const [oursSaved, ownSaved] = [await save(ours), await save(own)];
    const specs = (artifacts: tf.io.ModelArtifacts) =>
      artifacts.weightSpecs?.map(({ name, shape }) => [name.replace(/\d+\//, "/"), shape]);
    expect(specs(oursSaved)).toEqual(specs(ownSaved));
    const { name, gammaConstraint, betaConstraint, ...config } = ours.layers[0]!.getConfig();
    expect(own.layers[0]!.getConfig()).toEqual({ ...config, name: own.layers[0]!.name });
    expect([gammaConstraint, betaConstraint]).toEqual([null, null]);

    const asOwn = await load(oursSaved);
    const asOurs = await loadPatched(ownSaved);
    expect(asOwn.layers[0]!.constructor).toBe(own.layers[0]!.constructor);
    expect(asOurs.layers[0]!.constructor).toBe(ours.layers[0]!.constructor);
    expect(values(asOurs.predict(x()) as tf.Tensor)).toEqual(values(ours.predict(x()) as tf.Tensor));
    expect(values(asOwn.predict(x()) as tf.Tensor)).toEqual(values(own.predict(x()) as tf.Tensor));
  });

  test("with an RMS normalization load with its weights, and keep fallback", async () => {
    const layer = rmsNormalization({ inputShape: [3], epsilon: 0.25, fallback: true });
    const model = modelOf(layer);
    layer.setWeights([tf.tensor1d([1, -2, 3])]);
    const again = await load(await save(model));
    const { name, ...config } = layer.getConfig();
    expect(again.layers[0]!.getConfig()).toEqual({ ...config, name });
    expect(config).toMatchObject({ epsilon: 0.25, scale: true, fallback: true });
    expect(Object.keys(config).filter((key) => /beta|center/.test(key))).toEqual([]);
    const rows = tensorOf([7, 3], 1);
    expect(values(again.predict(rows) as tf.Tensor)).toEqual(values(model.predict(rows) as tf.Tensor));
  });

  test("are trained on from where they were", async () => {
    const [model, ys] = [modelOf(layerNormalization({ inputShape: [3] })), tensorOf([8, 1], 2)];
    await model.fit(tensorOf([8, 3], 1), ys, { epochs: 2, verbose: 0, shuffle: false });
    const again = await loadPatched(await save(model));
    again.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.0625) });
    const [one, other] = await Promise.all(
      [model, again].map((model) => model.fit(tensorOf([8, 3], 1), ys, { verbose: 0, shuffle: false })),
    );
    expect(one!.history.loss).toEqual(other!.history.loss);
  });
});

describe("patchLayerNormalization", () => {
  beforeAll(async () => {
    await tf.setBackend("wasm");
  });

  const OURS = layerNormalization().constructor;
  const OWN = tfl.layers.layerNormalization().constructor;
  const built = (layer: tfl.layers.Layer = tfl.layers.layerNormalization()) => {
    layer.apply(tf.ones([2, 3]));
    return layer;
  };

  test("takes over what is built until it is undone, and that alone", () => {
    const before = built();
    const undo = patchLayerNormalization();
    const [during, ours, rms] = [built(), built(layerNormalization()), built(rmsNormalization())];
    undo();
    undo();
    const after = built();
    expect([before, during, ours, after].map((layer) => layer.constructor)).toEqual([OWN, OURS, OURS, OWN]);
    expect(rms.getClassName()).toBe("RMSNormalization");
    // What was taken over computes and can be saved as before.
    const { name, gammaConstraint, betaConstraint, ...config } = during.getConfig();
    expect(before.getConfig()).toEqual({ ...config, name: before.name });
    expect([gammaConstraint, betaConstraint]).toEqual([null, null]);
  });

  test("twice, is undone by the second undoing, in either order", () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const undo = [patchLayerNormalization(), patchLayerNormalization({ fallback: true })];
      expect(built().getConfig().fallback).toBe(true);
      undo[order[0]!]!();
      expect(built().constructor).toBe(OURS);
      undo[order[0]!]!();
      expect(built().constructor).toBe(OURS);
      undo[order[1]!]!();
      expect(built().constructor).toBe(OWN);
    }
  });

  test("hands its fallback to the layers of loaded models", async () => {
    const saved = await save(modelOf(tfl.layers.layerNormalization({ inputShape: [3] })));
    const undo = patchLayerNormalization({ fallback: true });
    const [layer] = (await load(saved)).layers;
    undo();
    expect(layer!.constructor).toBe(OURS);
    expect(layer!.getConfig().fallback).toBe(true);
  });

  test("leaves subclasses of tfjs' layer alone", () => {
    class Mine extends (OWN as new (args?: object) => tfl.layers.Layer) {
      override call() {
        return tf.zeros([1]);
      }
    }
    const undo = patchLayerNormalization();
    const mine = new Mine();
    expect([...values(apply(mine, tf.ones([2, 3])))]).toEqual([0]);
    undo();
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

  beforeAll(async () => {
    await tf.setBackend("wasm");
  });
  afterEach(() => {
    classNameMap.LayerNormalization = entry;
  });

  const x = () => tf.tensor2d([1, 2, 3, 5], [1, 4]);
  const close = (layer: tfl.layers.Layer) => {
    apply(layer, x());
    layer.setWeights([tf.fill([4], 2), tf.fill([4], 1)]);
    expect([...values(apply(layer, x()))].map((value) => value.toFixed(2))).toEqual(["-1.37", "-0.01", "1.34", "4.04"]);
  };

  test.each(["before", "after"])("registered %s the first layer is made, leaves ours as it is", async (order) => {
    vi.resetModules();
    for (const kernel of ["LayernormWasmForward", "LayernormWasmBackward"]) {
      for (const name of BACKENDS) tf.unregisterKernel(kernel, name);
    }
    const fresh = await import("../src/tfjs/index.js");
    if (order === "after") close(fresh.layerNormalization());
    tf.serialization.registerClass(LayerNormalization);
    close(fresh.layerNormalization());
    expect(fresh.rmsNormalization().getClassName()).toBe("RMSNormalization");
  });

  test("registered before the entry is imported, is told to do so later", async () => {
    vi.resetModules();
    for (const kernel of ["LayernormWasmForward", "LayernormWasmBackward"]) {
      for (const name of BACKENDS) tf.unregisterKernel(kernel, name);
    }
    tf.serialization.registerClass(LayerNormalization);
    const fresh = await import("../src/tfjs/index.js");
    expect(() => fresh.layerNormalization()).toThrow("import layernorm-wasm/tfjs before another is");
    expect([...values(fresh.layerNorm(tf.tensor1d([3, 5]), null, null, -1, 0))]).toEqual([-1, 1]);
  });

  test("keeps it under the patch, which takes over tfjs' own", async () => {
    tf.serialization.registerClass(LayerNormalization);
    const saved = await save(modelOf(new LayerNormalization({ inputShape: [4] })));
    const undo = patchLayerNormalization();
    try {
      const own = tfl.layers.layerNormalization();
      close(own);
      expect(own.constructor).toBe(layerNormalization().constructor);
      expect([...values(apply(new LayerNormalization({}), x()))]).toEqual([-1, -2, -3, -5]);
      expect((await load(saved)).layers[0]).toBeInstanceOf(LayerNormalization);
    } finally {
      undo();
    }
    expect(classNameMap.LayerNormalization?.[0]).toBe(LayerNormalization);
    expect((await load(saved)).layers[0]).toBeInstanceOf(LayerNormalization);
  });

  test("registered while the patch is in force stays when it is undone", () => {
    const undo = patchLayerNormalization();
    tf.serialization.registerClass(LayerNormalization);
    undo();
    expect(classNameMap.LayerNormalization?.[0]).toBe(LayerNormalization);
  });
});

describe("the entry, imported before TensorFlow.js' layers", () => {
  test("has layers and their patch all the same", () => {
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
    const printed = execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const y = 0.9995003938674927;
    expect(printed.trim().split("\n").at(-1)).toBe(
      `LayerNormalization is not registered: import @tensorflow/tfjs-layers first. true [[-${y},${y}],[-${y},${y}]]`,
    );
  });
});

describe("arguments of layers", () => {
  beforeAll(async () => {
    await tf.setBackend("wasm");
  });

  test.each([layerNormalization, rmsNormalization])("that %o doesn't know are refused", (create) => {
    for (const [args, message] of [
      [{ eps: 1e-5 }, `${create.name}: "eps" is not an option, expected axis, epsilon, center, scale`],
      [{ normalizedShape: 3 }, '"normalizedShape" is not an option'],
      [{ rms_scaling: true }, '"rms_scaling" is not an option'],
      [{ rmsScaling: true }, `${create.name}: rms_scaling is not supported`],
    ] as const) {
      expect(() => create(args as never)).toThrow(message);
    }
    expect(create({ rmsScaling: false } as never).getConfig()).not.toHaveProperty("rmsScaling");
    expect(() => rmsNormalization({ betaInitializer: "ones" } as never)).toThrow('"betaInitializer" is not an option');
  });

  test("that a saved model of Keras has are taken, but for what the layer doesn't do", async () => {
    const saved = await save(modelOf(tfl.layers.layerNormalization({ inputShape: [3] })));
    const load = (more: object) => {
      const topology = structuredClone(saved.modelTopology) as { config: { layers: { config: object }[] } };
      Object.assign(topology.config.layers[0]!.config, more);
      return loadPatched({ ...saved, modelTopology: topology });
    };
    await load({ gamma_constraint: null, beta_constraint: null, rms_scaling: false });
    await expect(load({ rms_scaling: true })).rejects.toThrow("layerNormalization: rms_scaling is not supported");
    await expect(load({ later_option: true })).rejects.toThrow('"laterOption" is not an option');
  });

  test("name the axes in any order, in which the weights have their shape, as in tfjs", () => {
    const x = tensorOf([2, 3, 4], 1);
    const weights = [tensorOf([4, 3], 2), tensorOf([4, 3], 3)];
    const [ours, own] = [layerNormalization, tfl.layers.layerNormalization].map((create) => {
      const layer = create({ axis: [2, 1] });
      apply(layer, x);
      layer.setWeights(weights);
      return values(apply(layer, x));
    });
    for (const [i, value] of own!.entries()) expect(ours![i]).toBeCloseTo(value, 5);
  });
});

describe("tensors and scopes of tfjs", () => {
  beforeAll(async () => {
    await tf.setBackend("wasm");
  });

  test("tidy frees the result, keep holds it, and what is disposed of is an error", () => {
    const x = tensorOf([3, 4], 1);
    const before = held();
    tf.tidy(() => {
      layerNorm(x);
      layerNorm(x, null, null, 0, 1e-3, { residual: x });
    });
    expect(held()).toEqual(before);
    const kept = tf.tidy(() => {
      tf.keep(layerNorm(x)).dataSync();
      return rmsNorm(x);
    });
    expect(tf.memory().numTensors).toBe(before.numTensors + 2);
    kept.dispose();
    expect(() => layerNorm(kept)).toThrow(/disposed/);
  });

  test("what was given and returned may be disposed of before the gradient is computed", () => {
    const x = tensorOf([3, 4], 1);
    const f = (early: boolean) => (x: tf.Tensor) => {
      const [residual, gamma] = [tf.mul(x, 2), tf.add(tf.sum(x, 0), 1)];
      const [y, sum] = layerNorm(x, gamma, null, -1, 1e-3, { residual, returnSum: true });
      const result = weighed(y, tf.square(sum));
      if (early) tf.dispose([residual, gamma, y, sum]);
      return result;
    };
    expect(values(tf.grad(f(true))(x))).toEqual(values(tf.grad(f(false))(x)));
    // Nor does the gradient of the sum alone take dy along.
    const dy = tensorOf([3, 4], 2);
    const ofSum = (x: tf.Tensor) => layerNorm(x, null, null, -1, 1e-3, { residual: x, returnSum: true })[1];
    tf.dispose(tf.grad(ofSum)(x, dy));
    expect(dy.isDisposed).toBe(false);
  });

  test("the heap of the wasm backend stays as it is", () => {
    const [x, gamma] = [tensorOf([16, 20000], 1), tensorOf([20000], 2)];
    const step = () => tf.tidy(() => void tf.grad((x: tf.Tensor) => tf.sum(tf.square(layerNorm(x, gamma))))(x));
    step();
    const bytes = () => (tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8.length;
    const before = bytes();
    for (let i = 0; i < 300; i++) step();
    expect(bytes()).toBe(before);
  });

  test("the heap of the wasm backend may grow", () => {
    const x = tensorOf([20, 33], 1);
    const f = () => [layerNorm(x), tf.grad((x: tf.Tensor) => tf.sum(tf.square(layerNorm(x))))(x)].map(values);
    const before = f();
    const { wasm } = tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } };
    const bytes = wasm.HEAPU8.length;
    const large = tf.zeros([bytes / 4]);
    expect(wasm.HEAPU8.length).toBeGreaterThan(bytes);
    expect(f()).toEqual(before);
    large.dispose();
  });

  test("a heap that is full is an error, and nothing is kept", () => {
    const x = tensorOf([3, 4], 1);
    const before = held();
    const { wasm } = tf.backend() as unknown as { wasm: { _malloc: (bytes: number) => number } };
    const malloc = wasm._malloc;
    for (const calls of [0, 1, 2]) {
      let left = calls;
      wasm._malloc = (bytes) => (left-- > 0 ? malloc(bytes) : 0);
      expect(() => layerNorm(x)).toThrow(/The wasm backend has no memory left for a tensor of \[3(,4)?\]/);
      wasm._malloc = malloc;
    }
    expect(held()).toEqual(before);
  });

  test("a gradient that finds no room in the heap writes nothing", () => {
    const [x, gamma, beta] = [tensorOf([3, 4096], 1), tensorOf([4096], 2), tensorOf([4096], 3)];
    const dy = tensorOf([3, 4096], 4);
    const { wasm } = tf.backend() as unknown as {
      wasm: { _malloc: (bytes: number) => number; HEAPU8: Uint8Array };
    };
    const malloc = wasm._malloc;
    for (const failing of [1, 2]) {
      let blocks = -1;
      const gradients = tf.grads((x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) => {
        const y = layerNorm(x, gamma, beta);
        // dx, and then the gradients of gamma and beta.
        wasm._malloc = (bytes) => (++blocks === failing ? 0 : malloc(bytes));
        return y;
      });
      // Its static data lie where address 0 leads. malloc's own words, among them, may change.
      const before = wasm.HEAPU8.slice(0, 4 * 4096);
      expect(() => gradients([x, gamma, beta], dy)).toThrow(/The wasm backend has no memory left/);
      wasm._malloc = malloc;
      expect(before.filter((byte, i) => byte !== wasm.HEAPU8[i]).length).toBeLessThan(100);
    }
  });

  test.each(["layerNorm", "rmsNorm"] as const)(
    "%s shows in profiles by its kernel, and copies nothing",
    async (norm) => {
      const op = (x: tf.Tensor, options = {}) =>
        norm === "layerNorm" ? layerNorm(x, null, null, -1, 1e-3, options) : rmsNorm(x, null, -1, 1e-3, options);
      const kernelsOf = async (run: () => tf.TensorContainer) =>
        (await tf.profile(run)).kernels.map(({ name }) => name);
      const [x, residual] = [tensorOf([3, 4], 1), tensorOf([3, 4], 2)];
      expect(await kernelsOf(() => op(x))).toContain("LayernormWasmForward");
      for (const options of [{}, { residual }, { residual, returnSum: true }]) {
        expect(await kernelsOf(() => op(x, options))).not.toContain("Identity");
        // Of what the gradient needs tfjs itself makes copies: of x or the sum, and of one or two numbers for each row.
        const gradient = () => tf.grad((x: tf.Tensor) => [op(x, options)].flat()[0]!)(x, residual);
        const copies = (await kernelsOf(gradient)).filter((name) => name === "Identity");
        expect(copies.length).toBe(norm === "layerNorm" ? 3 : 2);
      }
    },
  );
});

describe("backends", () => {
  const factory = tf.findBackendFactory("wasm");
  /** Another instance of the wasm backend. `exports` are taken for those of its module. */
  async function freshWasm(exports?: object) {
    tf.removeBackend("wasm");
    tf.registerBackend("wasm", factory, 2);
    await tf.setBackend("wasm");
    const { wasm } = tf.backend() as unknown as { wasm: { asm: object } };
    wasm.asm = { ...wasm.asm, ...exports };
  }

  test("may change between calls: tensors come along", async () => {
    await tf.setBackend("cpu");
    const [x, gamma] = [tensorOf([6, 35], 1), tensorOf([35], 2)];
    const f = (x: tf.Tensor) => tf.sum(tf.square(layerNorm(x, gamma)));
    const onCpu = [layerNorm(x, gamma), tf.grad(f)(x)].map(values);
    await withBackend("wasm", () => expect([layerNorm(x, gamma), tf.grad(f)(x)].map(values)).toEqual(onCpu));
    expect(values(layerNorm(x, gamma))).toEqual(onCpu[0]);
    await tf.setBackend("wasm");
    await freshWasm();
    expect(values(layerNorm(tensorOf([6, 35], 1), tensorOf([35], 2)))).toEqual(onCpu[0]);
  });

  test("may change in the course of a training", async () => {
    const train = async (backends: string[]) => {
      const model = modelOf(layerNormalization({ inputShape: [6] }));
      for (const backend of backends) {
        await tf.setBackend(backend);
        await model.fit(tensorOf([8, 6], 1), tensorOf([8, 1], 2), { verbose: 0 });
      }
      return model.getWeights().map(values);
    };
    const [changing, staying] = [await train(["wasm", "cpu", "wasm"]), await train(["wasm", "wasm", "wasm"])];
    for (const [i, weight] of changing.entries())
      for (const [k, value] of weight.entries()) expect(value).toBeCloseTo(staying[i]![k]!, 5);
  });

  test("that are not supported are named by the error, unless there is a fallback", async () => {
    await withBackend("other", () => {
      const x = tensorOf([3, 4], 1);
      const message = "the backend 'other' is not supported, only 'wasm' and 'cpu' are. Pass {fallback: true}";
      expect(() => layerNorm(x)).toThrow(`Error in layerNorm: ${message}`);
      expect(() => rmsNorm(x)).toThrow(`Error in rmsNorm: ${message}`);
      expect(() => apply(layerNormalization(), x)).toThrow(message);
      const undo = patchLayerNormalization({ fallback: true });
      const layers = [tfl.layers.layerNormalization(), layerNormalization({ fallback: true })];
      for (const layer of [...layers, rmsNormalization({ fallback: true })])
        expect(apply(layer, x).shape).toEqual([3, 4]);
      undo();
    });
  });

  describe("whose memory can't be reached", () => {
    afterEach(() => vi.restoreAllMocks());

    test.each([
      ["is missing", undefined],
      ["is another one", new WebAssembly.Memory({ initial: 1000 })],
    ])("as it %s, get copies, with one warning", async (_, memory) => {
      vi.resetModules();
      const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
      await tf.setBackend("wasm");
      const [x, dy] = [normal(6 * 35, 1), normal(6 * 35, 2)];
      const both = (norm: typeof layerNorm) => {
        const [t, d] = [tf.tensor(x, [6, 35]), tf.tensor(dy, [6, 35])];
        return [norm(t), tf.grad((t: tf.Tensor) => weighed(norm(t), d))(t)].map(values);
      };
      const expected = both(layerNorm);
      await freshWasm({ memory });
      for (const kernel of ["LayernormWasmForward", "LayernormWasmBackward"]) {
        for (const name of BACKENDS) tf.unregisterKernel(kernel, name);
      }
      const fresh = await import("../src/tfjs/index.js");
      expect(both(fresh.layerNorm)).toEqual(expected);
      expect(both(fresh.layerNorm)).toEqual(expected);
      await freshWasm({ memory });
      expect(both(fresh.layerNorm)).toEqual(expected);
      expect(warn.mock.calls).toEqual([
        [
          expect.stringMatching(
            /^layernorm-wasm\/tfjs can't reach the memory of the wasm backend of TensorFlow.js 4\.22\.0/,
          ),
        ],
      ]);
      await freshWasm();
    });
  });
});

describe("the wasm backend, where the engine doesn't compile the kernels at once", () => {
  const { Module } = WebAssembly;
  afterEach(() => {
    WebAssembly.Module = Module;
    vi.restoreAllMocks();
  });

  test("gets copies, computed by Runtime.default, once that is made without blocking", async () => {
    vi.resetModules();
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    await tf.setBackend("wasm");
    for (const kernel of ["LayernormWasmForward", "LayernormWasmBackward"]) {
      for (const name of BACKENDS) tf.unregisterKernel(kernel, name);
    }
    const { layerNorm } = await import("../src/tfjs/index.js");
    const { Runtime } = await import("../src/index.js");
    WebAssembly.Module = class {
      constructor() {
        throw new RangeError("WebAssembly.Compile is disallowed on the main thread");
      }
    } as never;
    expect(() => layerNorm(tf.tensor2d([[3, 5]]))).toThrow(
      /Runtime.default = await Runtime.create\(\{ async: true \}\)/,
    );
    Runtime.default = await Runtime.create({ async: true });
    expect([...values(layerNorm(tf.tensor2d([[3, 5]]), null, null, -1, 0))]).toEqual([-1, 1]);
    expect(warn.mock.calls).toEqual([[expect.stringMatching(/tensors are copied\. .*disallowed on the main thread/)]]);
  });
});
