// Rows that are made to be hard: one of each kind, named after the property that makes it so. What `npm run search` finds
// and no case here has is added.

import { describe, expect, test } from "vitest";
import { BUILDS, moduleOf } from "./builds.js";
import { uniform } from "./helpers.js";
import { inputOf, machineOf, type Recipe, resultsOf } from "./recipe.js";
import { beyond } from "./reference.js";

type Given = Omit<Recipe, "norm" | "rows" | "eps"> & Partial<Recipe>;

const ONE = { kind: "runs", values: [1] } as const;
const bell = { kind: "bell" } as const;
const ULP = 2 ** -23;
/** The ends of a row are set apart from its inside. */
const ends = (values: readonly number[], cols: number, last: readonly number[]) => [
  ...values.map((value, i) => [i, 1, value] as const),
  ...last.map((value, i) => [cols - last.length + i, 1, value] as const),
];

const CASES: Record<string, Given> = {
  "halves of two values, but for steady ends": {
    cols: 4096,
    x: {
      kind: "runs",
      values: [0.9, 0.81],
      lengths: [2048],
      spikes: ends([30, 1, 2, 3], 4096, [1.25, 1.5, 1.75, 2]),
    },
    dy: {
      kind: "runs",
      values: [0.9, -1],
      lengths: [2048],
      spikes: ends([0.01, 0.05, 0.02, 0.03], 4096, [0.04, 0.06, 0.07, 0.08]),
    },
  },
  "the same of 2^20 columns": {
    cols: 2 ** 20,
    x: {
      kind: "runs",
      values: [0.9, 0.81],
      lengths: [2 ** 19],
      spikes: ends([30, 1, 2, 3], 2 ** 20, [1.25, 1.5, 1.75, 2]),
    },
    dy: {
      kind: "runs",
      values: [0.9, -1],
      lengths: [2 ** 19],
      spikes: ends([0.01, 0.05, 0.02, 0.03], 2 ** 20, [0.04, 0.06, 0.07, 0.08]),
    },
  },
  "zeros at both ends of x and dy": {
    cols: 4096,
    x: { kind: "runs", values: [0.9, 0.81], lengths: [2048], spikes: ends([0, 0, 0, 0], 4096, [0, 0, 0, 0]) },
    dy: { kind: "runs", values: [0.9, -1], lengths: [2048], spikes: ends([0, 0, 0, 0], 4096, [0, 0, 0, 0]) },
  },
  "9 columns, an outlier and dy nearly xhat": {
    rows: 64,
    cols: 9,
    eps: 4e-6,
    x: {
      kind: "runs",
      values: [1.01098215, 1.00023108],
      lengths: [64, 1, 8],
      noise: 0.0863158,
      spikes: [[0, 1, 1.61245155]],
    },
    dy: { kind: "xhat", noise: 0.0662437854 },
  },
  "plus or minus 1 with last bits, a weight and a bias": {
    cols: 499,
    eps: 0.001,
    x: {
      kind: "runs",
      values: [1 + 2 * ULP, 1 + ULP, 1 + ULP, 1 + 1546 * ULP, 1.33107769, 1 + 231 * ULP, 1.02638721, 1 + 2 * ULP],
      rest: { from: 480, values: [-1 - 863 * ULP, -1.37963521, -1 - 3 * ULP, -1 - 122 * ULP, -1 - 15 * ULP] },
    },
    weight: {
      kind: "runs",
      values: [1 + 156 * ULP],
      rest: { from: 32, values: [-1.18836153, -1.36923599, -1 - 3 * ULP, -1 - 6 * ULP, -1.050547] },
    },
    bias: { kind: "runs", values: [1 + 3 * ULP, -1 - 11 * ULP], lengths: [3] },
  },
  "runs of numbers that round the same way, an outlier of 10 deviations, dy along xhat": {
    cols: 512,
    eps: 0,
    x: {
      kind: "runs",
      values: [1.0002442598342896, 1.0002447366714478, 1.0006459951400757, -1.0004233121871948, -1.0005460977554321],
      lengths: [144, 144, 144, 40, 40],
      spikes: [[37, 1, 9.4]],
    },
    dy: { kind: "xhat", spikes: [[37, 1, 0]] },
  },
  "a dy of 1, then seven that are lost beside it": {
    rows: 8,
    cols: 5,
    x: bell,
    dy: { ...ONE, factors: [1, ...new Array<number>(7).fill(2 ** -24)] },
  },
  "a mean of 4 deviations, dy of xhat": {
    rows: 65,
    cols: 18,
    eps: 1e-12,
    x: { kind: "runs", values: [1.0000137], noise: 0.0397889933, seed: 579833, spikes: [[8, 1, -0.0380863209]] },
    dy: { kind: "xhat", noise: 0.00000103726953 },
    weight: { kind: "bell", seed: 159835 },
  },
  "two values, mean and deviation nearly equal": {
    cols: 127,
    x: { kind: "runs", values: [1.0373228788375854, -0.010819167830049992], lengths: [64, 63] },
  },
  "a quarter of the square of the deviation is that of the mean": {
    cols: 384,
    x: { kind: "runs", values: [3, -1], lengths: [96] },
  },
  "four values in quarters, beyond 1e18": {
    cols: 127,
    x: { kind: "runs", values: [3.3254449, 4.67795, 1.337674, -1.05247891], lengths: [32], scale: 3.64e18 },
    dy: { kind: "runs", values: [1.7, -0.3, 2.9, 0.6], lengths: [32] },
    weight: { kind: "runs", values: [1.1, 0.7, 1.9], lengths: [85] },
  },
  "neighbouring floats by turns": { cols: 8, eps: 0, x: { kind: "runs", values: [0.006, 0.006 + 4.66e-10] } },
  "neighbouring floats by turns, beside which eps rules": {
    cols: 20,
    eps: 1,
    x: { kind: "runs", values: [1, 1 + ULP] },
  },
  "equal floats but one neighbour": {
    cols: 55_892,
    eps: 0,
    x: { kind: "runs", values: [1.5, 1.5 + ULP], lengths: [55_891, 1] },
  },
  "equal floats but one neighbour, 1e7": {
    cols: 2561,
    eps: 1.7e-23,
    x: { kind: "runs", values: [10000000, 10000001], lengths: [1395, 1] },
  },
  "a noise below eps": { rows: 3, cols: 100, x: { ...ONE, values: [0.006], noise: 1e-7 } },
  "a constant": { cols: 784, eps: 1e-3, x: { ...ONE, values: [1.60623755] } },
  "a constant of 1.6e37": { cols: 784, eps: 1, x: { ...ONE, values: [1.60623755e37] } },
  "a constant beside a tiny eps": { cols: 187, eps: 1.1e-30, x: { ...ONE, values: [7.92332675] } },
  "a constant, and an eps whose rstd no float holds": { cols: 20, eps: 1e-80, x: { ...ONE, values: [3.7] } },
  "an outlier, which has nearly all of the variance": {
    rows: 4,
    cols: 640,
    x: { kind: "bell", offset: 0.435162054, spikes: [[0, 1, 74636.2285]] },
    dy: { kind: "xhat" },
  },
  "an outlier, dy of the signs of xhat and small there": {
    rows: 24,
    cols: 768,
    x: { kind: "binades", values: [0.128], scale: 0.06, spikes: [[0, 1, -66.0755307]] },
    dy: { kind: "sign", scale: 0.42, offset: 0.006, noise: 0.002, spikes: [[0, 1, -0.184]] },
  },
  "an outlier, weights of changing sign": {
    rows: 64,
    cols: 127,
    x: { kind: "runs", values: [0.0617660159], noise: 0.0000489707076, spikes: [[0, 1, -11.9923351]] },
    dy: { kind: "runs", values: [2.28305615, -2.28305615], lengths: [2], scale: 0.930932999 },
    weight: { kind: "runs", values: [5.95276191, -5.95276191, 0.807568084, 0.975897737], offset: 0.0306725576 },
  },
  "17 columns far from the others, dy large there": {
    cols: 255,
    x: { kind: "runs", values: [-1], spikes: [[0, 17, -71833.3702]] },
    dy: { kind: "runs", values: [-0.265882208], spikes: [[0, 16, 25258.9561]] },
    weight: { kind: "runs", values: [0.994276016, -1.048233], lengths: [2], noise: 0.0000027277 },
  },
  "first numbers that mislead, far from zero": {
    cols: 4095,
    x: { ...ONE, values: [10002476.5], noise: 6400.0842, spikes: [[0, 16, 27931.1597]] },
  },
  "an outlier that outweighs a mean far from zero": {
    cols: 1021,
    x: { kind: "bell", scale: 0.00104006646, offset: 5, spikes: [[40, 3, 2070667]] },
    dy: { kind: "runs", values: [-5.12518436, 4.97502004] },
  },
  "numbers of forty binades, dy of their signs": {
    rows: 64,
    cols: 193,
    eps: 0,
    x: { kind: "binades", values: [20] },
    dy: { kind: "sign", noise: 0.0128818393, equal: true },
  },
  "ordinary numbers among tiny ones": {
    cols: 383,
    eps: 0,
    x: { kind: "binades", values: [20], scale: 3e-39, spikes: [[14, 3, 2.19089023]] },
    dy: { kind: "runs", values: [-0.817108954, 0.671346012] },
    weight: { kind: "runs", values: [87.9861864, 3.7], lengths: [64, 319] },
  },
  "two values and dy nearly xhat": {
    rows: 64,
    cols: 131,
    x: { kind: "runs", values: [1.0000309, 3.20945852], lengths: [2], noise: 0.00005 },
    dy: { kind: "xhat", noise: 0.0001, equal: true },
    weight: { kind: "ramp", offset: 0.801158915 },
  },
  "a ramp, as bytes are": { cols: 784, x: { kind: "ramp" }, dy: { kind: "xhat" } },
  "rows of sizes that differ": {
    rows: 64,
    cols: 80,
    x: { kind: "bell", offset: 1.99556456, factors: [1, 1e-9, 1, 2.3e18] },
    dy: { kind: "sign", factors: [1, 0.0005, 1, 2.3e18] },
    weight: { kind: "runs", values: [-8.74623164, -8.70594083] },
  },
  "equal rows, and every second dy small": {
    rows: 64,
    cols: 131,
    x: { kind: "bell", equal: true },
    dy: { kind: "runs", values: [-0.012, 113.770355], lengths: [64], factors: [1, 0.000497411536], turn: 63 },
  },
};

describe.each(BUILDS)("rows made to be hard, %s build", (build) => {
  const machine = machineOf(moduleOf(build));
  const off = (recipe: Recipe) => {
    const input = inputOf(recipe);
    return beyond(resultsOf(machine, input, recipe.wanted), input);
  };

  describe.each(["layerNorm", "rmsNorm"] as const)("%s", (norm) => {
    test.each(Object.entries(CASES))("%s", (_, given) => {
      expect(off({ norm, rows: 1, eps: 1e-5, dy: ONE, ...given })).toEqual({});
    });

    test.each([127, 300, 768])("random pairs of values in runs, cols=%i", (cols) => {
      const next = uniform(5);
      for (let i = 0; i < 500; i++) {
        const values = [4 * next() - 2, 4 * next() - 2];
        const lengths = [Math.ceil(next() * cols), Math.ceil(next() * cols)];
        const recipe: Recipe = { norm, rows: 1, cols, eps: 1e-12, x: { kind: "runs", values, lengths }, dy: ONE };
        expect([recipe, off(recipe)]).toEqual([recipe, {}]);
      }
    });
  });
});
