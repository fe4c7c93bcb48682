// No result is further off than its limit, on rows that are made to be hard: one of each kind, named after the property that
// makes it so. What `npm run search` finds and no case here has is added.

import { describe, expect, test } from "vitest";
import { BUILDS, moduleOf } from "./builds.js";
import { uniform } from "./helpers.js";
import { inputOf, machineOf, type Pattern, type Recipe, resultsOf } from "./recipe.js";
import { beyond, referenceBackward } from "./reference.js";

type Given = Partial<Omit<Recipe, "norm">>;
const given = (rows: number, cols: number, more: Given = {}): Given => ({ rows, cols, ...more });
type More = Omit<Pattern, "kind" | "values" | "lengths">;

const ULP = 2 ** -23;
const bell = (more: More = {}): Pattern => ({ kind: "bell", ...more });
const runs = (values: readonly number[], lengths: readonly number[] = [1], more: More = {}): Pattern => ({
  kind: "runs",
  values,
  lengths,
  ...more,
});
const ONE = runs([1]);
/** The deviation is a, to the bit. */
const turns = (a: number) => runs([a, -a]);
/** One number apart from the others of each row. */
const spike = (column: number, value: number, count = 1): More => ({ spikes: [[column, count, value]] });
/** Just below a border, at it, and just above. */
const around = (border: number) => [border * (1 - 2 ** -22), border, border * (1 + 2 ** -22)];
/** Halves of two values, but for numbers at the ends of the row, half of them at either. */
function halves(cols: number, xEnds: readonly number[], dyEnds: readonly number[]): Given {
  const ends = (values: readonly number[]): More => ({
    spikes: values.map((value, i) => [i < values.length / 2 ? i : cols - values.length + i, 1, value]),
  });
  return given(1, cols, {
    x: runs([0.9, 0.81], [cols / 2], ends(xEnds)),
    dy: runs([0.9, -1], [cols / 2], ends(dyEnds)),
  });
}
const STEADY = [
  [30, 1, 2, 3, 1.25, 1.5, 1.75, 2],
  [0.01, 0.05, 0.02, 0.03, 0.04, 0.06, 0.07, 0.08],
] as const;
const ZEROS = new Array<number>(8).fill(0);

/** One row each, unless they say otherwise, with a dy of ones. */
const ROWS: Record<string, Given> = {
  "halves of two values, but for steady ends": halves(4096, ...STEADY),
  "the same of 2^18 columns": halves(2 ** 18, ...STEADY),
  "zeros at both ends of x and dy": halves(4096, ZEROS, ZEROS),
  "9 columns, an outlier and dy nearly xhat": given(64, 9, {
    eps: 4e-6,
    dy: { kind: "xhat", noise: 0.0662437854 },
    x: runs([1.01098215, 1.00023108], [64, 1, 8], { noise: 0.0863158, ...spike(0, 1.61245155) }),
  }),
  "plus or minus 1 with last bits, a weight and a bias": given(1, 499, {
    eps: 0.001,
    bias: runs([1 + 3 * ULP, -1 - 11 * ULP], [3]),
    x: runs([1 + 2 * ULP, 1 + ULP, 1 + ULP, 1 + 1546 * ULP, 1.33107769, 1 + 231 * ULP, 1.02638721, 1 + 2 * ULP], [1], {
      rest: { from: 480, values: [-1 - 863 * ULP, -1.37963521, -1 - 3 * ULP, -1 - 122 * ULP, -1 - 15 * ULP] },
    }),
    weight: runs([1 + 156 * ULP], [1], {
      rest: { from: 32, values: [-1.18836153, -1.36923599, -1 - 3 * ULP, -1 - 6 * ULP, -1.050547] },
    }),
  }),
  "runs of numbers that round the same way, an outlier of 10 deviations, dy along xhat": given(1, 512, {
    eps: 0,
    dy: { kind: "xhat", ...spike(37, 0) },
    x: runs(
      [1.0002442598342896, 1.0002447366714478, 1.0006459951400757, -1.0004233121871948, -1.0005460977554321],
      [144, 144, 144, 40, 40],
      spike(37, 9.4),
    ),
  }),
  "a dy of 1, then seven that are lost beside it": given(8, 5, {
    x: bell(),
    dy: { ...ONE, factors: [1, ...new Array<number>(7).fill(2 ** -24)] },
  }),
  "a mean of 4 deviations, dy of xhat": given(65, 18, {
    eps: 1e-12,
    weight: bell({ seed: 159835 }),
    dy: { kind: "xhat", noise: 0.00000103726953 },
    x: runs([1.0000137], [1], { noise: 0.0397889933, seed: 579833, ...spike(8, -0.0380863209) }),
  }),
  "two values, mean and deviation nearly equal": given(1, 127, {
    x: runs([1.0373228788375854, -0.010819167830049992], [64, 63]),
  }),
  "a quarter of the square of the deviation is that of the mean": given(1, 384, { x: runs([3, -1], [96]) }),
  "four values in quarters, beyond 1e18": given(1, 127, {
    dy: runs([1.7, -0.3, 2.9, 0.6], [32]),
    weight: runs([1.1, 0.7, 1.9], [85]),
    x: runs([3.3254449, 4.67795, 1.337674, -1.05247891], [32], { scale: 3.64e18 }),
  }),
  "neighbouring floats by turns": given(1, 8, { eps: 0, x: runs([0.006, 0.006 + 4.66e-10]) }),
  "neighbouring floats by turns, beside which eps rules": given(1, 20, { eps: 1, x: runs([1, 1 + ULP]) }),
  "equal floats but one neighbour": given(1, 55_892, { eps: 0, x: runs([1.5, 1.5 + ULP], [55_891, 1]) }),
  "equal floats but one neighbour, 1e7": given(1, 2561, { eps: 1.7e-23, x: runs([10000000, 10000001], [1395, 1]) }),
  "a noise below eps": given(3, 100, { x: runs([0.006], [1], { noise: 1e-7 }) }),
  "a constant": given(1, 784, { eps: 1e-3, x: runs([1.60623755]) }),
  "a constant of 1.6e37": given(1, 784, { eps: 1, x: runs([1.60623755e37]) }),
  "a constant beside a tiny eps": given(1, 187, { eps: 1.1e-30, x: runs([7.92332675]) }),
  "a constant, and an eps whose rstd no float holds": given(1, 20, { eps: 1e-80, x: runs([3.7]) }),
  "an outlier, which has nearly all of the variance": given(4, 640, {
    dy: { kind: "xhat" },
    x: bell({ offset: 0.435162054, ...spike(0, 74636.2285) }),
  }),
  "an outlier, dy of the signs of xhat and small there": given(24, 768, {
    x: { kind: "binades", values: [0.128], scale: 0.06, ...spike(0, -66.0755307) },
    dy: { kind: "sign", scale: 0.42, offset: 0.006, noise: 0.002, ...spike(0, -0.184) },
  }),
  "an outlier, weights of changing sign": given(64, 127, {
    x: runs([0.0617660159], [1], { noise: 0.0000489707076, ...spike(0, -11.9923351) }),
    dy: runs([2.28305615, -2.28305615], [2], { scale: 0.930932999 }),
    weight: runs([5.95276191, -5.95276191, 0.807568084, 0.975897737], [1], { offset: 0.0306725576 }),
  }),
  "17 columns far from the others, dy large there": given(1, 255, {
    x: runs([-1], [1], spike(0, -71833.3702, 17)),
    dy: runs([-0.265882208], [1], spike(0, 25258.9561, 16)),
    weight: runs([0.994276016, -1.048233], [2], { noise: 0.0000027277 }),
  }),
  "first numbers that mislead, far from zero": given(1, 4095, {
    x: runs([10002476.5], [1], { noise: 6400.0842, ...spike(0, 27931.1597, 16) }),
  }),
  "an outlier that outweighs a mean far from zero": given(1, 1021, {
    dy: runs([-5.12518436, 4.97502004]),
    x: bell({ scale: 0.00104006646, offset: 5, ...spike(40, 2070667, 3) }),
  }),
  "numbers of forty binades, dy of their signs": given(64, 193, {
    eps: 0,
    x: { kind: "binades", values: [20] },
    dy: { kind: "sign", noise: 0.0128818393, equal: true },
  }),
  "ordinary numbers among tiny ones": given(1, 383, {
    eps: 0,
    x: { kind: "binades", values: [20], scale: 3e-39, ...spike(14, 2.19089023, 3) },
    dy: runs([-0.817108954, 0.671346012]),
    weight: runs([87.9861864, 3.7], [64, 319]),
  }),
  "two values and dy nearly xhat": given(64, 131, {
    x: runs([1.0000309, 3.20945852], [2], { noise: 0.00005 }),
    dy: { kind: "xhat", noise: 0.0001, equal: true },
    weight: { kind: "ramp", offset: 0.801158915 },
  }),
  "a ramp, as bytes are": given(1, 784, { x: { kind: "ramp" }, dy: { kind: "xhat" } }),
  "rows of sizes that differ": given(64, 80, {
    x: bell({ offset: 1.99556456, factors: [1, 1e-9, 1, 2.3e18] }),
    dy: { kind: "sign", factors: [1, 0.0005, 1, 2.3e18] },
    weight: runs([-8.74623164, -8.70594083]),
  }),
  "equal rows, and every second dy small": given(64, 131, {
    x: bell({ equal: true }),
    dy: runs([-0.012, 113.770355], [64], { factors: [1, 0.000497411536], turn: 63 }),
  }),
};

const tiny = [1e-37, 1e-30, 2 ** -67, 2 ** -64.3];
/**
 * The ends of what float32 holds, and to either side of each border at which the kernels change their way, which
 * docs/guides/numerics.md derives. Three rows of 40 with a dy of N(0, 1) unless they say otherwise, without a weight
 * and with one.
 */
const BORDERS: Record<string, Given[]> = {
  // Beside eps, xhat has few digits of its own.
  "a deviation far below the root of eps": [
    { cols: 8, x: runs([0.006, 0.006 + 4.66e-10]), dy: ONE },
    ...[1e-5, 1e-7].map((scale) => ({ x: bell({ scale, offset: 0.006 }) })),
    { x: bell({ scale: 1e-6, offset: 0.06 }), eps: 1e-3 },
  ],
  "an outlier, and dy of one or two values": [
    given(1, 2560, { x: runs([0.729, 1.339, 0.717], [5], spike(1000, 23.46)) }),
    given(1, 2560, { x: bell(spike(9, 1e6)), dy: runs([1.3]) }),
    given(1, 4096, { x: runs([52.85, 18.757], [1500], spike(3000, 1406.27)), dy: runs([3.1326, 3.1222], [7]) }),
  ],
  "a mean of 4 deviations": around(4).map((m) => ({ x: runs([m + 1, m - 1]), eps: 0 })),
  "a mean of 2^14 deviations": around(2 ** 14).map((m) => ({ x: runs([m + 1, m - 1]), eps: 0 })),
  "a mean of any number of deviations, which one float does not hold": [1.7, 3, 5, 100, 1e4, 1e5, 1e7].flatMap((m) =>
    [0.3, 1].flatMap((scale) =>
      [39, 40, 96].map((cols) => ({ cols, x: bell({ scale, offset: m * scale }), dy: bell({ seed: 2, offset: 1 }) })),
    ),
  ),
  "rstd of 2^-24": around(2 ** 24).map((a) => ({ x: turns(a), eps: 0 })),
  "rstd of 2^24": around(2 ** -24).map((a) => ({ x: turns(a), eps: 0 })),
  "rstd of any size": [-126, -100, -60, -40, -30, -20, 20, 30, 40, 60, 64, 100, 120].flatMap((k) =>
    [-60, -20, 0, 20, 60].map((l) => ({ x: bell({ scale: 2 ** k }), dy: bell({ seed: 2, scale: 2 ** l }), eps: 0 })),
  ),
  // With the variance that large, too, the standard deviation alone doesn't tell rstd.
  "an eps so large that rstd is as small as that of a huge row": [1e70, 1e71, 4e71, 4e72, 1e73, 1e75].flatMap((eps) =>
    [1, 2e36].map((scale) => given(3, 21, { x: bell({ scale }), eps })),
  ),
  "x near 3e-39, whose rstd no float holds": [
    { x: bell({ scale: 3e-39 }), dy: bell({ seed: 2, scale: 1e-9 }), eps: 0 },
  ],
  // The sums are compared with 2^-67 and 2^64: those of a constant dy are that dy.
  "sums of 2^-67 and 2^64": [2 ** -67, 2 ** 64]
    .flatMap(around)
    .flatMap((g) => [2 ** -24, 1, 2 ** 24].map((scale) => ({ x: bell({ scale }), dy: runs([g]), eps: 0 }))),
  // Orthogonal to 1 and to xhat: the sums say nothing of the size of dy.
  "sums that cancel": [...tiny, 1e-10, 1, 1e10, 1e19, 1e30].flatMap((g) =>
    [2 ** -20, 1, 2 ** 20].map((a) => ({ x: turns(a), dy: runs([g, g, -g, -g]), eps: 0 })),
  ),
  "products with x - mean that underflow": [{ x: turns(2 ** -100), eps: 0 }],
  "a large row, whose factor of x is too small for a float": [{ x: turns(2 ** 100) }],
  "a small row and a large dy, whose factor of x is too large": [
    { x: turns(2 ** -40), dy: bell({ seed: 2, scale: 2 ** 60 }), eps: 0 },
  ],
  "x - mean beyond float32": [given(1, 64, { x: runs([-1e38], [1], spike(0, 3.4e38)) })],
  "the largest floats": [
    { x: runs([3.3e38, -3.3e38, 3.3e38]) },
    { x: runs([3.3e38, -3.3e38], [36]) },
    { x: bell({ scale: 3e37 }), dy: bell({ seed: 2, scale: 1e35 }) },
  ],
  "a weight of 1e30 and a dy of 1e-30": [
    { dy: bell({ seed: 2, scale: 1e-30 }), weight: bell({ seed: 3, scale: 1e30 }) },
  ],
  "dy * weight beyond float32, dx within": [
    { x: bell({ scale: 1e10 }), dy: bell({ seed: 2, scale: 1e30 }), weight: bell({ seed: 3, scale: 1e10 }) },
  ],
  "dy * weight too small for a float": [1, 1e-5, 1e-7].map((scale) => ({
    x: bell({ scale }),
    dy: bell({ seed: 2, scale: 1e-30 }),
    weight: bell({ seed: 3, scale: 1e-20 }),
    eps: 0,
  })),
  "a huge dy that cancels over the rows": [given(4, 29, { dy: runs([3e37], [1], { factors: [1, 1, -1, -1] }) })],
  "a constant dy of 6e36": [{ dy: runs([6e36]) }],
  "dy near 1e-40": [1, 1e-7].map((scale) => ({ x: bell({ scale }), dy: bell({ seed: 2, scale: 1e-40 }), eps: 0 })),
  "dy of 1e-36, whose products with x are no normal floats": [
    { x: bell({ scale: 1e-5 }), dy: bell({ seed: 2, scale: 1e-36 }) },
  ],
  "one dy of 1e-20 in a row of zeros": [{ dy: runs([0], [1], { factors: [0, 1, 0], ...spike(10, 1e-20) }) }],
  "dy of 2^-125 behind zeros": [
    { x: turns(2 ** -12), dy: bell({ seed: 2, scale: 2 ** -125, ...spike(0, 0, 20) }), eps: 0 },
  ],
  "dy of 0, whatever the row": [{ scale: 1e-30 }, { scale: 1e30 }, ...[0, 50, 1e7].map((offset) => ({ offset }))].map(
    (more) => ({ x: bell(more), dy: runs([0]) }),
  ),
  "a weight of 0": [{ weight: runs([0]) }],
  "equal rows, whose sums round the same way": [
    given(64, 6, {
      x: runs([1.37, -0.61, 0.22, 2.9, -1.83, 0.77]),
      dy: runs([1.9402961, -1.13, 0.71, 1.61, -0.87, 1.21]),
    }),
    given(64, 5, { dy: runs([1.9402961]) }),
  ],
  "a large dy, then small ones that round the same way": [
    {
      rows: 33,
      cols: 20,
      dy: runs([1], [1], { factors: [1066.241943359375, ...Array(32).fill(-1.2910025119781494)] }),
    },
  ],
};

/** Rows whose sums and squares float32 does not hold. */
const MOMENTS: ((cols: number) => Given)[] = [
  ...[1, 1e3, -1e4, 1e6, 1e7].map((offset) => () => ({ x: bell({ offset }) })),
  ...[1e-6, 1e18, 1e20, 3e37].map((scale) => () => ({ x: bell({ scale }) })),
  ...[1e-19, 1e-21, 1e-22, 1e-25, 1e-38, 1e-39].map((scale) => () => ({ x: bell({ scale }), eps: 0 })),
  ...[1e-40, 1e-42].map((scale) => () => ({ x: bell({ scale }) })),
  () => ({ x: bell({ scale: 1e-23 }), eps: 1e-30 }),
  // an outlier in the middle, in the last place, and in the first
  (cols) => ({ x: bell(spike(cols >> 1, 1e4)) }),
  (cols) => ({ x: bell(spike(cols - 1, 1e5)) }),
  () => ({ x: bell(spike(0, 1e6)) }),
  // a third of the row at 5e3; and far from zero, while the first numbers mislead
  (cols) => ({ x: runs([5e3], [1], { noise: 1, rest: { from: Math.ceil(cols / 3), values: [0] } }) }),
  (cols) => ({ x: runs([1e3], [1], { noise: 1, rest: { from: Math.min(16, cols >> 1), values: [1e4] } }) }),
];

/** Runs of equal addends round the same way every time: the worst for a sum in float32. */
const RUNS: ((cols: number) => Pattern)[] = [
  () => runs([0, 1]),
  (cols) => runs([1, 0], [cols / 2]),
  () => runs([1, 0], [7, 3]),
  () => turns(-1),
];

describe.each(BUILDS)("on rows made to be hard, %s build,", (build) => {
  const machine = machineOf(moduleOf(build));
  const expectWithin = (recipe: Recipe) => {
    const input = inputOf(recipe);
    const results = resultsOf(machine, input, recipe.wanted);
    expect([recipe, beyond(results, input)]).toEqual([recipe, {}]);
    return { input, results };
  };

  describe.each(["layerNorm", "rmsNorm"] as const)("%s is within its limits:", (norm) => {
    test.each(Object.entries(ROWS))("%s", (_, given) => {
      expectWithin({ norm, rows: 1, cols: 40, eps: 1e-5, x: bell(), dy: ONE, ...given });
    });

    test.each(Object.entries(BORDERS))("%s", (_, inputs) => {
      for (const given of inputs) {
        for (const weight of given.weight ? [{}] : [{}, { weight: bell({ seed: 3 }) }]) {
          const recipe = { norm, rows: 3, cols: 40, eps: 1e-5, x: bell(), dy: bell({ seed: 2 }), ...given, ...weight };
          const { input, results } = expectWithin(recipe);
          const { dx } = referenceBackward({ ...input, dy: input.dy! });
          const got = Array.from(results.dx!);
          expect(got.every((v, i) => Number.isFinite(v) || Math.abs(dx[i]!) > 2 ** 124)).toBe(true);
        }
      }
    });

    test.each([2, 3, 17, 33, 65, 768])("sums that float32 does not hold, cols=%i", (cols) => {
      for (const make of MOMENTS) {
        expectWithin({ norm, rows: 5, cols, eps: 1e-5, x: bell(), dy: bell({ seed: 2 }), ...make(cols) });
      }
    });

    // The square of the mean beside the variance decides whether a row takes a shift, and whether it takes another.
    test.each([16, 256, 257, 768])("means to either side of each border, cols=%i", (cols) => {
      const next = uniform(4);
      for (const ratio of [0.25, 0.54, 1, 2]) {
        for (const change of [-0.01, -(2 ** -20), 0, 2 ** -20, 0.01]) {
          const [m, scale] = [Math.sqrt(ratio * (1 + change)), 1 + next()];
          const [low, high] = [m - 1, m + 1];
          // The first numbers of the second suggest a shift that is as far from the mean.
          const misled = runs([39, 41], [1], { rest: { from: 16, values: [low + 40, high + 40] } });
          for (const x of [runs([low, high]), misled]) {
            expectWithin({ norm, rows: 1, cols, eps: 0, x: { ...x, scale }, dy: ONE });
          }
        }
      }
    });

    test.each([100, 768, 4096, 8192])("runs of equal numbers, cols=%i", (cols) => {
      const next = uniform(11);
      const factors = Array.from({ length: 30 }, () => 1 + next());
      for (const make of RUNS) {
        expectWithin({ norm, rows: 30, cols, eps: 1e-5, x: { ...make(cols), factors } });
      }
    });

    test.each([127, 300, 768])("random pairs of values in runs, cols=%i", (cols) => {
      const next = uniform(5);
      for (let i = 0; i < 500; i++) {
        const values = [4 * next() - 2, 4 * next() - 2];
        const lengths = [Math.ceil(next() * cols), Math.ceil(next() * cols)];
        expectWithin({ norm, rows: 1, cols, eps: 1e-12, x: runs(values, lengths), dy: ONE });
      }
    });
  });

  test.each([1.94029617, 1.60623755e37, -2068817130000000000])("a constant x of %f gives a dweight of 0", (value) => {
    for (const cols of [191, 644, 784, 2559]) {
      const x = runs([value]);
      const { results } = expectWithin({ norm: "layerNorm", rows: 2, cols, eps: 1e-5, x, dy: bell({ seed: 2 }) });
      expect([...Array.from(results.dweight!)]).toEqual(new Array(cols).fill(0));
    }
  });
});
