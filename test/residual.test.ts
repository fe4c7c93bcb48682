// x + residual and dx + add in one pass of a module: the bits of two.

import { describe, expect, test } from "vitest";
import { Tensor } from "../src/index.js";
import { normal } from "./helpers.js";
import { FAMILIES, floatsOf, gradientsOf, KINDS } from "./norms.js";

const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);
const residual = normal(rows * cols, 2, 0.5, 3);
const dy = normal(rows * cols, 3);
const add = normal(rows * cols, 4);
const total = x.map((value, i) => value + residual[i]!);
const weight = normal(cols, 5);
const bias = normal(cols, 6);

const SUITES = FAMILIES.flatMap((family) =>
  (["arrays", "Tensors"] as const).map((kind) => ({ ...family, kind, onTensors: kind === "Tensors" })),
);

describe.each(SUITES)("$name on $kind", ({ make: makeNorm, kind, onTensors }) => {
  // The options' types tell arrays from Tensors, which are one here.
  const of = (floats: Float32Array) => KINDS[kind](floats, [rows, cols]) as Tensor;
  const other = (floats: Float32Array) => KINDS[onTensors ? "arrays" : "Tensors"](floats, [rows, cols]) as Tensor;
  const short = (onTensors ? new Tensor([rows - 1, cols]) : x.slice(cols)) as Tensor;
  const make = (training = true) => {
    const norm = makeNorm(cols).train(training);
    for (const [key, { data }] of norm.namedParameters()) data.set(key === "weight" ? weight : bias);
    return norm;
  };
  const apart = make();
  const expected = apart.forward(total);
  const dx = apart.backward(dy);
  const gradients = Object.fromEntries(Object.entries(gradientsOf(apart)).map(([key, grad]) => [key, grad.slice()]));

  describe.each([true, false])("forward with a residual, training: %s,", (training) => {
    test("gives the bits of an addition and then the norm, and keeps the sum for backward", () => {
      for (const [sum, out] of [[], [of(dy)], [undefined, of(dy)], [of(dy), of(dy)]]) {
        const norm = make(training);
        const [a, b] = [of(x), of(residual)];
        const y = norm.forward(a, { residual: b, sum, out });
        expect(floatsOf(y)).toEqual(expected);
        if (out) expect(y).toBe(out);
        if (sum) expect(floatsOf(sum)).toEqual(total);
        expect([a, b].map(floatsOf)).toEqual([x, residual]);
        if (!training) continue;
        expect(floatsOf(norm.backward(of(dy)))).toEqual(dx);
        expect(gradientsOf(norm)).toEqual(gradients);
      }
    });

    test.each(["x", "residual"] as const)("writes the sum over %s", (over) => {
      const given = { x: of(x), residual: of(residual) };
      const y = make(training).forward(given.x, { residual: given.residual, sum: given[over] });
      expect(floatsOf(y)).toEqual(expected);
      expect(floatsOf(given[over])).toEqual(total);
      expect(floatsOf(over === "x" ? given.residual : given.x)).toEqual(over === "x" ? residual : x);
    });

    test.each(["x", "residual"] as const)("writes out over %s, where backward needs it no more", (over) => {
      for (const sum of [undefined, of(dy), "other"] as const) {
        const given = { x: of(x), residual: of(residual) };
        const into = sum === "other" ? given[over === "x" ? "residual" : "x"] : sum;
        const norm = make(training);
        const y = norm.forward(given.x, { residual: given.residual, out: given[over], sum: into });
        expect(y).toBe(given[over]);
        expect(floatsOf(y)).toEqual(expected);
        if (into) expect(floatsOf(into)).toEqual(total);
        if (training) expect(floatsOf(norm.backward(of(dy)))).toEqual(dx);
      }
    });
  });

  test("forward of no rows gives none", () => {
    const none = () => (onTensors ? new Tensor([0, cols]) : new Float32Array(0)) as Tensor;
    expect(floatsOf(make().forward(none(), { residual: none(), sum: none() })).length).toBe(0);
  });

  const [a, b] = [of(x), of(residual)];
  const LIKE_X = onTensors ? "expected a Tensor, as x is" : "expected a Float32Array, as x is";
  test.each<[string, object]>([
    [
      onTensors ? "residual has the shape [4, 37], expected that of x" : "residual has 148 elements",
      { residual: short },
    ],
    [`residual is a ${onTensors ? "Float32Array" : "Tensor"}, ${LIKE_X}`, { residual: other(x) }],
    [`sum has ${onTensors ? "the shape [4, 37]" : "148 elements"}`, { residual: b, sum: short }],
    [`sum is a ${onTensors ? "Float32Array" : "Tensor"}, ${LIKE_X}`, { residual: b, sum: other(x) }],
    ["residual is null", { residual: null }],
    ["sum needs a residual", { sum: b }],
    ["out overlaps sum", { residual: b, sum: a, out: a }],
  ])("forward refuses what doesn't fit, before anything is written: %s", (message, options) => {
    const norm = make();
    expect(() => norm.forward(a, options)).toThrow(`.forward: ${message}`);
    expect([a, b].map(floatsOf)).toEqual([x, residual]);
    expect(() => norm.backward(of(dy))).toThrow(/no forward in training/);
  });

  describe("backward with add", () => {
    const added = dx.map((value, i) => value + add[i]!);

    test("gives the bits of backward and then an addition, and the same gradients", () => {
      const norm = make();
      norm.forward(total);
      const [d, more] = [of(dy), of(add)];
      expect(floatsOf(norm.backward(d, { add: more }))).toEqual(added);
      expect(gradientsOf(norm)).toEqual(gradients);
      expect([d, more].map(floatsOf)).toEqual([dy, add]);
    });

    test.each(["dy", "add", "out"] as const)("writes to out, which may be %s", (over) => {
      const given = { dy: of(dy), add: of(add), out: of(x) };
      expect(apart.backward(given.dy, { add: given.add, out: given[over] })).toBe(given[over]);
      expect(floatsOf(given[over])).toEqual(added);
    });

    test("refuses an add that doesn't fit", () => {
      expect(() => apart.backward(of(dy), { add: short })).toThrow(/add has .* expected .*dy/);
      expect(() => apart.backward(of(dy), { add: other(x) })).toThrow(/add is .*, expected a .*, as dy is/);
    });
  });
});
