// The ops of the entry layernorm-wasm/tfjs, on each backend.

import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, describe, expect, test } from "vitest";
import { UNIT } from "./reference.js";
import type { Axis, Norm, Optional } from "./tfjs-helpers.js";
import { apart, BACKENDS, both, gradients, held, OPS, tensorOf, values, withBackend } from "./tfjs-helpers.js";
import { expectWithin } from "./within.js";

const NORMS = Object.keys(OPS) as Norm[];

describe.each(BACKENDS)("on the %s backend", (backend) => {
  beforeAll(() => tf.setBackend(backend));

  describe.each(NORMS)("%s", (norm) => {
    const op = OPS[norm];
    const betaOf = (shape: number[]) => (norm === "layerNorm" ? tensorOf(shape, 5) : null);
    const [rows, cols, eps] = [150, 37, 1e-5]; // enough rows for sums in double

    const parameters = [
      { scale: true, center: true },
      { scale: true, center: false },
      { scale: false, center: true },
      { scale: false, center: false },
    ].filter(({ center }) => norm === "layerNorm" || !center);
    test.each(parameters)("is within the units of the kernels, forward and backward, with %o", ({ scale, center }) => {
      // Of three rows one is ordinary, two have a variance that is small beside eps, one of these lies far from zero.
      const perRow = (ofThree: number[]) =>
        tf.tensor(
          Array.from({ length: 25 }, (_, i) => ofThree[i % 3]!),
          [1, 25, 1],
        );
      const x = tf.add(tf.mul(tensorOf([6, 25, cols], 1), perRow([1, 1e-4, 1e-4])), perRow([0, 1, 0]));
      const dy = tensorOf([6, 25, cols], 3);
      const [gamma, beta] = [scale ? tensorOf([cols], 4) : null, center ? betaOf([cols]) : null];
      const f = (x: tf.Tensor) => op(x, gamma, beta, -1, eps);
      expect(f(x).shape).toEqual(x.shape);
      const found = gradients(f, [x, gamma, beta], dy);
      const names = ["dx", gamma && "dweight", beta && "dbias"].filter((name) => name !== null);
      expect(found.length).toBe(names.length);
      const results = { y: values(f(x)), ...Object.fromEntries(names.map((name, i) => [name, found[i]!])) };
      const [weight, bias] = [gamma && values(gamma), beta && values(beta)];
      expectWithin(results, { norm, x: values(x), dy: values(dy), weight, bias, rows, cols, eps });
    });

    test("with a residual gives the bits of an addition before it, and of its gradients", () => {
      const shape = [6, 25, cols];
      const [x, residual, dy] = [tensorOf(shape, 1), tensorOf(shape, 2), tensorOf(shape, 3)];
      const [gamma, beta, dsum] = [tensorOf([cols], 4), betaOf([cols]), tensorOf(shape, 6)];
      const fused = (x: tf.Tensor, residual: tf.Tensor) =>
        both(op(x, gamma, beta, -1, eps, { residual, returnSum: true }));
      const apart = (x: tf.Tensor, residual: tf.Tensor) => {
        const sum = tf.add(x, residual);
        return [op(sum, gamma, beta, -1, eps), sum] as const;
      };
      expect(fused(x, residual).map(values)).toEqual(apart(x, residual).map(values));
      expect(values(op(x, gamma, beta, -1, eps, { residual }))).toEqual(values(apart(x, residual)[0]));
      const [got, expected] = [fused, apart].map((f) => {
        const loss = (x: tf.Tensor, residual: tf.Tensor) => {
          const other = tf.mul(tf.square(x), dy); // so that more is added to the gradient of x alone
          const [y, sum] = f(x, residual);
          return tf.addN([other, tf.mul(y, dy), tf.mul(sum, dsum)]);
        };
        return gradients(loss as never, [x, residual, gamma, beta]);
      });
      expect(got).toEqual(expected);
      // x may be the residual as well.
      const [twice, doubled] = [fused, apart].map((f) => gradients((x) => f(x!, x!)[0], [x], dy));
      expect(twice).toEqual(doubled);
    });

    // Alone, in any order, next to one another or not, all.
    const AXES: Axis[] = [[0], [1], -2, [-1, 1], [2, 0], [1, 2, 3], [-2, -3], [3, 2, 1, 0]];
    test.each(AXES.map((axis) => [axis]))("over axis %j gives the bits of a transposed tensor", (axis) => {
      const shape = [3, 5, 4, 7];
      const given = [axis].flat().map((dimension) => (dimension + 4) % 4);
      const sorted = [...given].sort();
      const sizes = given.map((dimension) => shape[dimension]!);
      const [x, residual, dy] = [tensorOf(shape, 1), tensorOf(shape, 2), tensorOf(shape, 3)];
      const [gamma, beta] = [tensorOf(sizes, 4), betaOf(sizes)];
      const straight = (x: tf.Tensor, gamma: tf.Tensor) => op(x, gamma, beta, axis, eps, { residual });
      const order = [0, 1, 2, 3].filter((dimension) => !given.includes(dimension)).concat(sorted);
      const back = order.map((_, dimension) => order.indexOf(dimension));
      // As WebNN does: the dimensions of gamma and beta are those of the axes as they are named.
      const named = sorted.map((dimension) => given.indexOf(dimension));
      const turned = (x: tf.Tensor, gamma: tf.Tensor) => {
        const [g, b] = [gamma, beta].map((parameter) => parameter && tf.transpose(parameter, named));
        const last = sorted.map((_, i) => i - sorted.length);
        const options = { residual: tf.transpose(residual, order) };
        return tf.transpose(op(tf.transpose(x, order), g, b, last, eps, options), back);
      };
      expect(values(straight(x, gamma))).toEqual(values(turned(x, gamma)));
      const [got, expected] = [straight, turned].map((f) => gradients(f as never, [x, gamma], dy));
      expect(got).toEqual(expected);
    });

    test.each([[[0, 2]], [[2, 0]], [[-1, -2]]])(
      "over axis %j agrees with the ops of tfjs, which fallback gives on other backends",
      async (axis) => {
        const shape = [5, 3, 4];
        const sizes = axis.map((dimension) => shape.at(dimension)!);
        const [x, residual, dy] = [tensorOf(shape, 1), tensorOf(shape, 2), tensorOf(shape, 3)];
        const given = [x, residual, tensorOf(sizes, 4), betaOf(sizes)];
        const f = (x?: Optional, residual?: Optional, gamma?: Optional, beta?: Optional) =>
          op(x!, gamma, beta, axis, 1e-3, { residual: residual!, fallback: true });
        const all = () => [values(f(...given)), ...gradients(f, given, dy)];
        const ours = all();
        await withBackend("other", () => {
          // Sums of fifteen to twenty products, of at most some ten each, in float32.
          for (const [i, expected] of all().entries()) expect(apart(ours[i]!, expected)).toBeLessThan(20 * 10 * UNIT);
        });
      },
    );

    test("has the second derivatives of the ops of tfjs", async () => {
      const shape = [3, 5, 4];
      const given = [tensorOf(shape, 0), tensorOf(shape, 1), tensorOf([5, 4], 2), betaOf([5, 4])];
      const f = (x?: Optional, residual?: Optional, gamma?: Optional, beta?: Optional) => {
        const options = { residual: residual!, returnSum: true, fallback: true };
        const [y, sum] = both(op(x!, gamma, beta, [1, 2], 1e-3, options));
        return tf.sum(tf.mul(tf.square(y), sum));
      };
      // A penalty on gradients, as it is used to train a critic.
      const penalty = (...given: tf.Tensor[]) =>
        tf.addN(
          tf
            .grads(f)(given)
            .map((gradient) => tf.sum(tf.square(gradient))),
        );
      const second = () => tf.tidy(() => gradients(penalty, given));
      const before = held();
      const ours = second();
      expect(held()).toEqual(before);
      await withBackend("other", () => {
        for (const [i, expected] of second().entries()) {
          const scale = Math.max(...expected.map(Math.abs));
          // Sums of 3 * 20 products, twice, in float32.
          expect(apart(ours[i]!, expected)).toBeLessThan(120 * scale * UNIT);
        }
      });
    });

    test("takes lists of numbers and other types of numbers", () => {
      const rows = tf.tensor2d([1, 2, 4, 8, 4, 2], [2, 3]);
      const expected = values(op(rows));
      expect(values(op(rows.arraySync() as never, [1, 1, 1] as never))).toEqual(expected);
      expect(values(op(tf.cast(rows, "int32")))).toEqual(expected);
      const [asBool, asFloat] = (["bool", "float32"] as const).map((dtype) => {
        const x = tf.tensor2d([0, 1, 1, 1, 0, 1], [2, 3], dtype);
        const gamma = tf.tensor1d([1, 1, 0], dtype);
        const y = values(op(x, gamma, null, -1, 1e-3, { residual: x }));
        return [y, ...gradients((x, gamma) => op(x!, gamma), [x, gamma], tf.cast(x, "float32"))];
      });
      expect(asBool).toEqual(asFloat);
    });

    test.each([
      [[0, 3], -1],
      [[2, 0, 5], -1],
      [[2, 3, 0], 1],
      [[0, 4, 5], 1],
    ] as [number[], number][])("of shape %j over axis %j has zeros for gradients", (shape, axis) => {
      const x = tf.zeros(shape);
      const sizes = [shape.at(axis)!];
      const beta = betaOf(sizes);
      for (const gamma of [tensorOf(sizes, 4), null]) {
        const given = [x, gamma, beta].filter((tensor) => tensor !== null);
        const found = tf.grads(() => op(x, gamma, beta, axis, 1e-3, { residual: x }))(given);
        expect(found.map(({ shape }) => shape)).toEqual(given.map(({ shape }) => shape));
        for (const zeros of found) expect([...values(zeros)]).toEqual(new Array(zeros.size).fill(0));
      }
    });

    test("keeps NaN and infinity within their rows", () => {
      const [x, dy] = [tensorOf([4, 7], 1), tensorOf([4, 7], 2)];
      const bad = values(x).map((value, i) => (i === 9 ? NaN : i === 16 ? -Infinity : value));
      const rowsOf = (x: tf.Tensor) =>
        [values(op(x)), ...gradients((x) => op(x!), [x], dy)].map((all) =>
          [0, 1, 2, 3].map((row) => [...all.slice(7 * row, 7 * row + 7)]),
        );
      const expected = rowsOf(x);
      for (const [i, [first, second, third, fourth]] of rowsOf(tf.tensor2d(bad, [4, 7])).entries()) {
        expect([first, fourth]).toEqual([expected[i]![0], expected[i]![3]]);
        expect(second!.every(Number.isNaN)).toBe(true);
        expect(third!.some(Number.isNaN)).toBe(true);
      }
    });

    test("refuses what doesn't fit, and keeps nothing of it", () => {
      const x = tensorOf([2, 3, 4], 1);
      const before = held();
      const passed = `Argument 'x' passed to '${norm}' must be a`;
      const error = `Error in ${norm}:`;
      const refusals: [unknown[], string | RegExp][] = [
        [[null], `${passed} Tensor or TensorLike, but got 'null'.`],
        [[["a", "b"]], `${passed} numeric tensor, but got a string tensor.`],
        [[3], `${error} x is a scalar, but a tensor of rank 1 or higher is expected.`],
        [[x, [1, 2, 3]], `${error} gamma has the shape [3], but [4] is expected.`],
        [[x, null, null, 3], /All values in axis param must be in range \[-3, 3\) but got axis 3/],
        [[x, null, null, 0.5], /All values in axis param must be integers but got axis 0.5/],
        [[x, null, null, null], `${error} axis is null, but a number or an array of numbers is expected.`],
        [[x, null, null, ["1"]], `${error} axis is ["1"], but a number or an array of numbers is expected.`],
        [[x, null, null, []], `${error} axis is [], but at least one dimension is expected.`],
        [[x, null, null, [2, -1]], `${error} axis [2,-1] names a dimension twice.`],
        [[[[], []]], `${error} x of shape [2,0] has no elements along axis -1.`],
        [[x, null, null, -1, -1], `${error} epsilon is -1, but a finite number of 0 or more is expected.`],
        [[x, null, null, -1, NaN], `${error} epsilon is NaN, but a finite number of 0 or more is expected.`],
        [[x, null, null, -1, 0, { residual: [1] }], `${error} residual has the shape [1], but [2,3,4] is expected.`],
        [[x, null, null, -1, 0, { returnSum: true }], `${error} returnSum needs a residual.`],
        [[x, null, null, -1, 0, { eps: 1 }], `${norm}: "eps" is not an option, expected residual, returnSum, fallback`],
      ];
      for (const [args, message] of refusals) expect(() => op(...(args as Parameters<typeof op>))).toThrow(message);
      expect(held()).toEqual(before);
    });

    test("holds nothing after a hundred calls", () => {
      const [x, residual, gamma] = [tensorOf([9, 64], 1), tensorOf([9, 64], 2), tensorOf([64], 4)];
      const call = () => both(op(x, gamma, null, -1, 1e-3, { residual, returnSum: true }));
      const step = () => tf.dispose([...call(), ...tf.grads(() => tf.addN(call()))([x, gamma])]);
      step();
      const before = held();
      for (let i = 0; i < 100; i++) step();
      expect(held()).toEqual(before);
    });
  });
});

describe("the backend", () => {
  test("may change between calls: tensors come along", async () => {
    await tf.setBackend("cpu");
    const [x, gamma] = [tensorOf([6, 35], 1), tensorOf([35], 2)];
    const f = () => OPS.layerNorm(x, gamma);
    const all = () => [values(f()), ...gradients(() => tf.square(f()), [x, gamma])];
    const onCpu = all();
    await withBackend("wasm", () => expect(all()).toEqual(onCpu));
    expect(values(f())).toEqual(onCpu[0]);
  });

  test.each(NORMS)("of another name is named by the error of %s, unless there is a fallback", async (norm) => {
    await withBackend("other", () => {
      const x = tensorOf([3, 4], 1);
      expect(() => OPS[norm](x)).toThrow(
        `Error in ${norm}: the backend 'other' is not supported, only 'wasm' and 'cpu' are. Pass {fallback: true}`,
      );
      expect(OPS[norm](x, null, null, -1, 1e-3, { fallback: true }).shape).toEqual([3, 4]);
    });
  });
});
