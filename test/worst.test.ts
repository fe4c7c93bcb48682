// The worst inputs known: each once took a result beyond its limit. What `npm run search` finds is added here.

import { describe, expect, test } from "vitest";
import { BUILDS, moduleOf } from "./builds.js";
import { uniform } from "./helpers.js";
import { LIMITS, machineOf, measure, type Recipe } from "./recipe.js";
import type { Results } from "./reference.js";

type Given = Omit<Recipe, "norm" | "rows" | "eps"> & Partial<Recipe>;

const ONE = { kind: "runs", values: [1] } as const;

const CASES: Record<string, Given> = {
  "two values, the first for 64 columns, mean and deviation nearly equal": {
    cols: 127,
    x: { kind: "runs", values: [1.0373228788375854, -0.010819167830049992], lengths: [64, 63] },
  },
  "quarters of four values": {
    cols: 127,
    eps: 1e-12,
    x: {
      kind: "runs",
      values: [3.3254449367523193, 4.677950859069824, 1.3376740217208862, -1.0524789094924927],
      lengths: [32, 32, 32, 31],
    },
  },
  "two values in runs of 16, beyond 1e18": {
    cols: 126,
    eps: 1e-12,
    x: { kind: "runs", values: [0.499529418, -0.00588104892], lengths: [16], scale: 3640577800000000000 },
  },
  "halves of two values, dy in quarters, a weight": {
    cols: 255,
    x: { kind: "runs", values: [1.4111673831939697, 5.880352020263672], lengths: [128, 127] },
    dy: { kind: "runs", values: [1.7, -0.3, 2.9, 0.6], lengths: [64, 64, 64, 63] },
    weight: { kind: "runs", values: [1.1, 0.7, 1.9], lengths: [85] },
  },
  "0.006 and the float after it by turns, beside which eps rules": {
    cols: 8,
    x: { kind: "runs", values: [0.006, 0.006 + 4.66e-10] },
  },
  "0.006 and a noise of 1e-5, beside which eps rules": {
    rows: 3,
    cols: 100,
    x: { ...ONE, values: [0.006], noise: 1e-5 },
  },
  "0.006 and a noise of 1e-7, beside which eps rules": {
    rows: 3,
    cols: 100,
    x: { ...ONE, values: [0.006], noise: 1e-7 },
  },
  "0.006 and a noise of 1e-7, eps unknown to backward": {
    rows: 3,
    cols: 100,
    x: { ...ONE, values: [0.006], noise: 1e-7 },
    unknownEps: true,
  },
  "0.06 and a noise of 1e-4 with an eps of 1e-3": {
    rows: 3,
    cols: 70,
    eps: 1e-3,
    x: { ...ONE, values: [0.06], noise: 1e-4 },
  },
  "1 and the float after it by turns, eps 1": { cols: 20, eps: 1, x: { kind: "runs", values: [1, 1.00000012] } },
  "64 rows of a constant dy": { rows: 64, cols: 17, x: { kind: "bell" }, dy: { ...ONE, values: [1.9402961730957031] } },
  "64 equal rows": {
    rows: 64,
    cols: 6,
    x: { kind: "runs", values: [0.7, -1.9, 0.3] },
    dy: { kind: "runs", values: [1.614] },
  },
  "64 rows of dy, every second one small": {
    rows: 64,
    cols: 131,
    x: { kind: "bell" },
    dy: { kind: "runs", values: [-0.012, 113.770355], lengths: [64], factors: [1, 0.000497411536], turn: 63 },
  },
  "64 rows of dy that are nearly the sign of xhat": {
    rows: 64,
    cols: 33,
    eps: 1,
    x: { kind: "runs", values: [5.57624198, 0.798607252], lengths: [1, 138], turn: 1 },
    dy: { kind: "sign", noise: 3.58624277e-8, equal: true },
  },
  "a constant dy of 6e36": { cols: 768, x: { kind: "bell" }, dy: { ...ONE, values: [6e36] } },
  "dy * weight beyond float32, dx within": {
    cols: 70,
    x: { kind: "bell", scale: 1e10 },
    dy: { kind: "bell", seed: 2, scale: 1e30 },
    weight: { kind: "bell", seed: 3, scale: 1e10 },
  },
  "x near 1e-39 without eps, whose rstd is beyond float32": {
    cols: 40,
    eps: 0,
    x: { kind: "bell", scale: 1e-39 },
    dy: { kind: "bell", seed: 2, scale: 1e-3 },
  },
  "an outlier that magnifies the error of mean(g * xhat)": {
    cols: 8195,
    eps: 1e-12,
    x: { kind: "runs", values: [-4.45756374, -1], spikes: [[0, 1, 1156.17219]] },
  },
  "the same, with dy in quarters": {
    cols: 768,
    x: { kind: "runs", values: [0.7123, -0.71311], spikes: [[5, 1, 20]] },
    dy: { kind: "runs", values: [1.1, 1.1, -1.3, -0.7], lengths: [192] },
  },
  "64 among ones, where dx vanishes": {
    cols: 8188,
    eps: 1.21884653e-7,
    x: { kind: "runs", values: [1], spikes: [[6315, 1, 64]] },
  },
  "76 for 64 columns, then nearly 0, and one number more": {
    cols: 129,
    eps: 0,
    x: {
      kind: "runs",
      values: [76.2015516, -0.319230355],
      lengths: [64],
      scale: 2,
      offset: 1,
      spikes: [[0, 1, 1.38723582]],
    },
  },
  "a constant row": {
    cols: 784,
    eps: 1e-3,
    x: { kind: "runs", values: [1.60623755] },
    dy: { kind: "runs", values: [-1.00000306] },
  },
  "a constant row beside a tiny eps": { cols: 187, eps: 1.14201502e-30, x: { kind: "runs", values: [7.92332675] } },
  "a constant row of 1.6e37": {
    cols: 784,
    eps: 1,
    x: { kind: "runs", values: [1.60623755e37] },
    dy: { kind: "runs", values: [16.5811749, 0.144004533] },
  },
  "an outlier of 260 in front of a ramp": {
    rows: 64,
    cols: 184,
    x: {
      kind: "ramp",
      offset: 1.39250301,
      turn: 262,
      spikes: [
        [0, 1, 260.146392],
        [219, 2, 26.3077935],
      ],
    },
    dy: { kind: "runs", values: [1.0934558] },
  },
  "three outliers on a flat ramp": {
    cols: 4101,
    x: { kind: "ramp", scale: 0.00510368963, offset: 0.06, spikes: [[570, 3, 16.4097457]] },
    dy: { kind: "runs", values: [-0.73804911, 0.622866284, 1.00000049] },
  },
  "ordinary rows, eps unknown to backward": {
    rows: 64,
    cols: 67,
    eps: 1.1920928955078125e-7,
    x: { kind: "bell", offset: 0.882916589, noise: 0.0273553903 },
    dy: { kind: "sign" },
    unknownEps: true,
  },
  "three outliers on a falling ramp, dy of the signs of xhat": {
    cols: 4099,
    eps: 1e-3,
    x: { kind: "ramp", scale: -0.0371855753, offset: -0.006, spikes: [[38, 3, 11.5461685]] },
    dy: { kind: "sign" },
    unknownEps: true,
  },
  "three outliers beside which the rest is flat": {
    rows: 4,
    cols: 2557,
    eps: 0.213360528,
    x: { kind: "ramp", scale: 0.0100585985, offset: 1.03287823, spikes: [[10, 3, 4041.11556]], turn: 449 },
    dy: { kind: "runs", values: [1.01966301, 0.00672508099, 0.06], lengths: [64, 2497], factors: [1, 0.974411279] },
  },
  "three outliers of two kinds, 80 columns": {
    cols: 80,
    eps: 0.0706937616,
    x: {
      kind: "bell",
      seed: 136232,
      spikes: [
        [68, 2, 6.32455532],
        [0, 1, 45.6716904],
      ],
    },
    dy: { kind: "sign" },
    unknownEps: true,
  },
  "three outliers on a flat row, dy a ramp": {
    rows: 5,
    cols: 128,
    x: {
      kind: "ramp",
      scale: 3.0589928e-5,
      offset: 1,
      spikes: [
        [62, 1, 11.3137085],
        [53, 2, 11.3137085],
      ],
      turn: 135,
    },
    dy: { kind: "ramp", turn: 425 },
    unknownEps: true,
  },
  "numbers of forty binades, dy nearly the sign of xhat": {
    rows: 64,
    cols: 193,
    eps: 0,
    x: { kind: "binades", values: [-19.9624062], seed: 262127 },
    dy: { kind: "sign", noise: 0.0128818393, equal: true },
  },
  "numbers of forty binades, dy the signs of xhat, eps unknown": {
    rows: 64,
    cols: 96,
    x: { kind: "binades", values: [19.9528447], seed: 851140 },
    dy: { kind: "sign" },
    unknownEps: true,
  },
  "two values and dy nearly xhat": {
    rows: 64,
    cols: 131,
    eps: 2e-6,
    x: { kind: "runs", values: [1.0000309, 3.20945852], lengths: [2], noise: 0.0000536488183, scale: 1.00001899 },
    dy: { kind: "xhat", noise: 0.000101943681, equal: true },
    weight: { kind: "ramp", offset: 0.801158915 },
  },
  "one value but for the last of 6144, without eps": {
    cols: 6144,
    eps: 0,
    x: { kind: "runs", values: [-3.7, -3.6999997], lengths: [6143, 1] },
  },
  "an outlier before a flat ramp, dy nearly xhat": {
    cols: 1027,
    x: { kind: "ramp", scale: 0.00244920451, spikes: [[0, 1, -19.5987984]], values: [0] },
    dy: { kind: "xhat", offset: -0.0511675083 },
  },
  "an outlier before a flat ramp, dy of two values": {
    cols: 8196,
    x: { kind: "ramp", scale: 0.00244920451, offset: 0.0767153161, spikes: [[0, 1, -19.5987984]] },
    dy: { kind: "runs", values: [1.0527451, -1.00000045] },
  },
  "1e7 and the float after it, without eps worth its name": {
    cols: 2561,
    eps: 1.74502676e-23,
    x: { kind: "runs", values: [10000000, 10000001.3], lengths: [1395, 1] },
    dy: { kind: "runs", values: [-1.00000001] },
  },
  "ordinary rows with two outliers, dy of the signs of xhat": {
    rows: 64,
    cols: 125,
    eps: 0.0762698591,
    x: { kind: "bell", seed: 216305, values: [0.119947568], spikes: [[43, 2, 52.1127058]] },
    dy: { kind: "sign", values: [0] },
    unknownEps: true,
  },
  "an outlier of 2719, dy of nine binades but for one number": {
    rows: 64,
    cols: 128,
    eps: 0.000991818909,
    x: {
      kind: "runs",
      values: [0.548399425, 3.7, 0.548399425],
      lengths: [30, 51, 109, 21],
      noise: 0.000251490968,
      spikes: [[0, 1, 2718.85071]],
    },
    dy: { kind: "binades", values: [-4.52338528], spikes: [[0, 1, 407.14337]] },
    weight: { kind: "runs", values: [120.178364, 0.829842199], offset: -1.02607509 },
  },
  "numbers of twenty binades and two outliers, dy two sizes of their signs": {
    cols: 3088,
    eps: 7.00226508e-14,
    x: {
      kind: "binades",
      values: [10.0859173],
      seed: 297835,
      spikes: [
        [0, 1, 72883.9302],
        [976, 1, 10.1242284],
        [117, 2, 131084.553],
      ],
      noise: 1.73398133e-5,
    },
    dy: { kind: "sign", noise: 9.11263864e-7, values: [2.51755816], seed: 615263 },
  },
  "numbers of three binades and three outliers, dy of the signs of xhat": {
    rows: 4,
    cols: 1001,
    eps: 8.18597719e-25,
    x: { kind: "binades", values: [1.57453112], seed: 451872, spikes: [[793, 3, 265.033589]] },
    dy: { kind: "sign" },
    unknownEps: true,
  },
  "an outlier that is nearly all of the variance, dy nearly xhat": {
    rows: 4,
    cols: 640,
    eps: 0.348799366,
    x: { kind: "bell", seed: 581828, offset: 0.435162054, spikes: [[0, 1, 74636.2285]], values: [0] },
    dy: { kind: "xhat", values: [0.0295776921] },
  },
  "one value and a little noise, but for an element near zero": {
    rows: 64,
    cols: 116,
    eps: 0,
    x: { kind: "runs", values: [-3.7], noise: 0.0179347824, seed: 704834, spikes: [[5, 1, 0.0085111911]] },
    dy: { kind: "sign", values: [0] },
    unknownEps: true,
  },
  "the same of 26 columns": {
    cols: 26,
    eps: 0.0424093046,
    x: { kind: "runs", values: [-3.7], noise: 0.371757882, spikes: [[5, 1, 0.0085111911]], offset: 0.27770492 },
    dy: { kind: "sign", values: [0] },
    unknownEps: true,
  },
  "two outliers of 8902, dy of the signs of xhat": {
    rows: 64,
    cols: 80,
    eps: 0.601836967,
    x: {
      kind: "binades",
      values: [1, -1],
      seed: 240750,
      spikes: [
        [12, 2, 8901.56864],
        [107, 3, 4.38178046],
      ],
      factors: [1, 5.75219722],
    },
    dy: { kind: "sign", values: [0] },
    unknownEps: true,
  },
  "an outlier on a ramp, two weights by turns": {
    rows: 63,
    cols: 241,
    eps: 3.6771718e-26,
    x: { kind: "ramp", turn: 182, spikes: [[136, 1, 11.8251908]] },
    dy: { kind: "runs", values: [2.76721405] },
    weight: { kind: "runs", values: [1, -0.890364893] },
  },
  "the same near zero, 501 columns": {
    rows: 4,
    cols: 501,
    eps: 0.00100226676,
    x: { kind: "ramp", offset: 0.0401155287, turn: 182, spikes: [[136, 1, 11.8251908]] },
    dy: { kind: "runs", values: [2.76722138] },
    weight: { kind: "runs", values: [1, -0.890364893] },
  },
  "three outliers beside 0.06 and two weights": {
    rows: 2,
    cols: 768,
    eps: 1e-6,
    x: {
      kind: "runs",
      values: [0.06],
      noise: 4.35788861e-7,
      seed: 621584,
      spikes: [[655, 3, 26.2906828]],
      scale: 2.02697656,
      factors: [1, 1.00000446],
      equal: true,
    },
    dy: { kind: "runs", values: [0.637979337], scale: 0.872737974, noise: 0.00471891176 },
    unknownEps: true,
    weight: { kind: "runs", values: [1.00000033, 1] },
  },
  "numbers of twenty binades, dy the signs of xhat but for noise": {
    rows: 64,
    cols: 49,
    eps: 0,
    x: { kind: "binades", values: [10], seed: 447205, spikes: [[24, 3, -2.51645137e-5]] },
    dy: { kind: "sign", noise: 0.000585594567 },
  },
  "ordinary rows of 32 columns, dy of the signs of xhat": {
    rows: 64,
    cols: 32,
    eps: 0.001,
    x: { kind: "bell", seed: 454406 },
    dy: { kind: "sign" },
    weight: {
      kind: "runs",
      values: [1.14423325, 293.818903],
      lengths: [64, 1],
      scale: 206357.152,
      spikes: [[9, 1, 0.722865175]],
    },
  },
  "an outlier on a flat ramp, dy and weight of two values each": {
    rows: 64,
    cols: 191,
    eps: 1.81741924e-29,
    x: { kind: "ramp", scale: 0.0556513601, offset: 1, spikes: [[2, 1, -0.000111817364]], noise: 1.04520307e-6 },
    dy: { kind: "runs", values: [3.7, -3.69056306], noise: 2.21743408e-8 },
    weight: { kind: "runs", values: [0.682330619, 0.68928323] },
  },
  "ordinary rows, dy of the signs of xhat, every fourth row beyond 1e18": {
    rows: 64,
    cols: 80,
    eps: 5.33550301e-14,
    x: { kind: "bell", seed: 579566, offset: 1.99556456 },
    dy: { kind: "sign", factors: [1, 1, 1, 2310705960000000000] },
    weight: { kind: "runs", values: [-8.74623164, -8.70594083], offset: 0.0059628886 },
  },
  "a misleading start of a row far from zero": {
    cols: 4095,
    eps: 0.0511678081,
    x: { kind: "runs", values: [10002476.5], noise: 6400.0842, spikes: [[0, 1, 27931.1597]] },
    dy: { kind: "runs", values: [0.00755176503] },
  },
  "a spike among eight columns, 2048 rows": {
    rows: 2048,
    cols: 8,
    eps: 1e-12,
    x: {
      kind: "runs",
      values: [2.34214175, 0.06],
      lengths: [128],
      noise: 0.236692614,
      spikes: [[6, 1, 3.28633535]],
      offset: -0.203103491,
    },
    dy: { kind: "runs", values: [-0.802088368, 1.94029617], lengths: [79, 72, 120, 36, 545], scale: 1.0816152 },
    weight: { kind: "runs", values: [1, -1.00000032] },
  },
  "a spike among 38 columns, dy nearly the sign of xhat": {
    rows: 4,
    cols: 38,
    eps: 0,
    x: {
      kind: "runs",
      values: [2.34214175, 0.06],
      lengths: [128],
      noise: 0.236692614,
      seed: 590648,
      spikes: [[6, 1, 3.28633535]],
      factors: [1, 1.04891091],
      offset: -0.203103491,
    },
    dy: { kind: "sign", noise: 1.15373874e-6, equal: true, seed: 985697, scale: 0.5 },
    weight: { kind: "bell", seed: 657074, offset: 1.87848153, values: [0] },
  },
  "a spike among 53 columns, dy the sign of xhat": {
    rows: 130,
    cols: 53,
    eps: 0,
    x: {
      kind: "runs",
      values: [2.34214175, -1.00000013, -1.0002651, -5.21838808, 0.06, -4.93838732, -5.25760227],
      lengths: [128],
      noise: 0.180783764,
      seed: 12702,
      spikes: [[6, 1, 3.28633535]],
      turn: 27,
      equal: true,
      scale: 0.97943832,
    },
    dy: { kind: "sign", scale: -5.12613199 },
    weight: { kind: "bell", seed: 657074, offset: 1.87848153 },
  },
  "one value but for a few of 255, dy nearly the sign of xhat, eps unknown": {
    rows: 64,
    cols: 255,
    eps: 1.1920929e-7,
    x: {
      kind: "runs",
      values: [0.0111656222, 3.70000329, 0.0111656203],
      lengths: [240, 29],
      noise: 0.00243692539,
      seed: 619337,
      equal: true,
      scale: 1.00000405,
      offset: 1.04092265,
    },
    dy: { kind: "sign", noise: 5.16363099e-8, scale: 1.01741438 },
    weight: { kind: "runs", values: [1, -1.00000032], scale: 1.00030836 },
    unknownEps: true,
  },
  "a ramp of 8, dy nearly xhat": {
    rows: 129,
    cols: 8,
    x: { kind: "ramp", offset: -1.17560488, scale: 1.02105015 },
    dy: { kind: "xhat", noise: 0.0000193927283, values: [0] },
    weight: { kind: "runs", values: [2.60681577] },
  },
  "an outlier of 100,000 and others, dy nearly xhat": {
    rows: 64,
    cols: 130,
    eps: 0.001,
    x: {
      kind: "bell",
      seed: 339136,
      offset: 0.274927294,
      spikes: [
        [0, 1, 100522.908],
        [39, 3, 8.0311892],
      ],
      values: [0],
    },
    dy: { kind: "xhat", noise: 0.0804993988, spikes: [[24, 3, 9.48683298]], equal: true, seed: 485473 },
  },
  "an outlier of 678 among 39, dy nearly xhat": {
    rows: 129,
    cols: 39,
    eps: 1,
    x: {
      kind: "bell",
      seed: 603229,
      spikes: [[0, 1, -677.856477]],
      equal: true,
      factors: [1, -1],
      values: [0.0576254615],
    },
    dy: { kind: "xhat", noise: 0.0166580703, seed: 697423, scale: -1 },
    weight: { kind: "ramp", offset: -1.76296346 },
  },
  "an outlier of 678 among 254, dy nearly the sign of xhat": {
    cols: 254,
    x: { kind: "bell", seed: 603229, spikes: [[0, 1, -677.856477]], values: [0] },
    dy: { kind: "sign", noise: 0.00535339362, scale: 0.971784911 },
    weight: { kind: "runs", values: [1.05113122, 1.00000007] },
  },
  "the same of two rows, 517 columns": {
    rows: 2,
    cols: 517,
    x: { kind: "bell", seed: 603229, spikes: [[0, 1, -677.856477]], equal: true, factors: [1, -1], values: [0] },
    dy: { kind: "sign", noise: 0.00210626308, scale: 0.971784911, equal: true },
  },
  "17 columns far from the others, dy large there, weights of changing sign and a little noise": {
    cols: 255,
    x: { kind: "runs", values: [-1], spikes: [[0, 17, -71833.3702]] },
    dy: { kind: "runs", values: [-0.265882208], spikes: [[0, 16, 25258.9561]] },
    weight: {
      kind: "runs",
      values: [0.994276016, -1.048233],
      lengths: [2],
      noise: 0.00000272770407,
      seed: 45915,
    },
  },
  "four values by turns, constant dy, weights of changing sign": {
    cols: 2048,
    x: { kind: "runs", values: [1.02099162, 9.42995225, 1.00000009, 3.7] },
    dy: { kind: "runs", values: [-3.76124] },
    weight: { kind: "runs", values: [-1.01544846, 1.00000078], lengths: [512] },
  },
  "an outlier of 12 among 127, weights of changing sign": {
    rows: 64,
    cols: 127,
    eps: 5.96046433e-8,
    x: { kind: "runs", values: [0.0617660159], noise: 0.0000489707076, seed: 176297, spikes: [[0, 1, -11.9923351]] },
    dy: { kind: "runs", values: [2.28305615, -2.28305615], lengths: [2], scale: 0.930932999 },
    weight: { kind: "runs", values: [5.95276191, -5.95276191, 0.807568084, 0.975897737], offset: 0.0306725576 },
  },
  "an outlier of 209 among 255, dy and weights of two values": {
    rows: 64,
    cols: 255,
    x: {
      kind: "runs",
      values: [0.0600266342, 0.998234554],
      lengths: [3, 1, 63, 16],
      noise: 0.0000373407565,
      seed: 761745,
      spikes: [[0, 1, 209.703622]],
      scale: -0.617753161,
      offset: -0.828998375,
    },
    dy: { kind: "runs", values: [0.533112651, -0.533112651], turn: 110, lengths: [17, 22] },
    weight: { kind: "runs", values: [2.00000182, -2.59618467] },
  },
  "a mean of five times the spread, hidden by the first number, dy nearly xhat": {
    rows: 64,
    cols: 9,
    eps: 0.00000416454831,
    x: {
      kind: "runs",
      values: [1.01098215, 1.00023108],
      lengths: [64, 1, 8],
      noise: 0.0863158085,
      seed: 519129,
      spikes: [[0, 1, 1.61245155]],
    },
    dy: { kind: "xhat", noise: 0.0662437854 },
  },
  "three equal numbers far from 1018 nearly equal ones, dy by turns": {
    cols: 1021,
    eps: 0.0418941374,
    x: { kind: "bell", scale: 0.00104006646, spikes: [[4, 3, 2070667]] },
    dy: { kind: "runs", values: [-5.12518436, 4.97502004] },
  },
  "three ordinary numbers among 380 of any tiny size, dy by turns": {
    cols: 383,
    eps: 0,
    x: { kind: "binades", values: [20], scale: 3.00573292e-39, spikes: [[14, 3, 2.19089023]] },
    dy: { kind: "runs", values: [-0.817108954, 0.671346012] },
    weight: { kind: "runs", values: [87.9861864, 3.7], lengths: [64, 319] },
  },
  "a ramp with an outlier of 15, dy nearly of one size": {
    cols: 256,
    eps: 0.00000541283525,
    x: { kind: "ramp", offset: -2.35735803, scale: -1, spikes: [[137, 2, 15.2381101]] },
    dy: { kind: "runs", values: [-5.12518436, 4.97455407], lengths: [2], noise: 3.61650177e-7, seed: 550266 },
  },
  "four outliers among 1535, all others nearly equal, dy xhat, weights of eight values": {
    cols: 1535,
    eps: 1.19209801e-7,
    x: {
      kind: "binades",
      values: [3.98889476],
      scale: 1.31137471e-19,
      spikes: [[0, 4, -0.402957294]],
      noise: 1.38469705e-9,
      offset: -0.128975475,
    },
    dy: { kind: "xhat" },
    weight: {
      kind: "runs",
      values: [4.74253539, 1.3, -3.83539521, -3.7, -1.94029617, 5.6767044, 4.12776808, 1.01801213],
    },
  },
  "a row of 1e-9, dy * weight of 1e24": {
    rows: 4,
    cols: 6,
    eps: 0,
    x: { kind: "bell", seed: 651030, factors: [1, 1, 1, 4.50880723e-9] },
    dy: { kind: "binades", values: [4], seed: 357773 },
    weight: { kind: "runs", values: [1.00592757], scale: 6.21532923e22 },
  },
  "an outlier of 66 among 240, dy nearly of one size": {
    rows: 5,
    cols: 240,
    eps: 0.999999929,
    x: { kind: "bell", seed: 481202, offset: 0.871612056, spikes: [[0, 1, 66.367412]] },
    dy: { kind: "runs", values: [-5.12518436, 4.97455407], noise: 3.61650177e-7, seed: 894455 },
    weight: { kind: "runs", values: [1.00000008, 0.999998492] },
  },
  "an outlier first in its lane, dy by turns, a weight": {
    rows: 64,
    cols: 126,
    eps: 0.0449181241,
    x: {
      kind: "runs",
      values: [-0.0524456091, 1, -196.726185, -1.00002547, -0.327637763, -0.141561435, 0.02867485, 5.25154522],
      lengths: [5],
      spikes: [
        [0, 1, 9433.68737],
        [1, 3, 3.14642654],
      ],
      turn: 83,
    },
    dy: { kind: "runs", values: [1, -1.00000037], noise: 0.0153534973, seed: 334590, scale: -1 },
    weight: { kind: "runs", values: [-1.05365922, -1.05365908], lengths: [64, 1] },
  },
  "a large dy, then small ones, equal rows": {
    rows: 49,
    cols: 200,
    x: { kind: "runs", values: [0.99999998, 3.40595849, 0.941393064, 3.40595614], lengths: [4], equal: true, noise: 0 },
    dy: {
      kind: "runs",
      values: [0.0014999996, 2.0071987],
      lengths: [113, 79],
      turn: 2,
      noise: 3.41193799e-9,
      offset: 0,
      equal: true,
      scale: 0.5,
      seed: 249366,
    },
  },
  "dy so small that its products with x are no normal floats": {
    rows: 3,
    cols: 128,
    eps: 1e-12,
    x: { kind: "bell", seed: 3, scale: 1e-5 },
    dy: { kind: "bell", seed: 5, scale: 1e-36 },
  },
  "a constant, and an eps whose rstd no float32 holds": {
    cols: 20,
    eps: 1e-80,
    x: { kind: "runs", values: [3.7] },
  },
};

const beyond = (errors: Partial<Record<keyof Results, number>>) =>
  Object.entries(errors).filter(([name, units]) => !(units <= LIMITS[name as keyof Results]));

describe.each(BUILDS)("the worst inputs known, %s build", (build) => {
  const machine = machineOf(moduleOf(build));

  describe.each(["layerNorm", "rmsNorm"] as const)("%s", (norm) => {
    test.each(Object.entries(CASES))("%s", (_, given) => {
      const errors = measure(machine, { norm, rows: 1, eps: 1e-5, dy: ONE, ...given });
      expect(beyond(errors)).toEqual([]);
    });

    test.each([127, 768])("random pairs of values in runs, cols=%i", (cols) => {
      const next = uniform(5);
      for (let i = 0; i < 1000; i++) {
        const values = [4 * next() - 2, 4 * next() - 2];
        const lengths = [Math.ceil(next() * cols), Math.ceil(next() * cols)];
        const recipe: Recipe = { norm, rows: 1, cols, eps: 1e-12, x: { kind: "runs", values, lengths }, dy: ONE };
        expect([recipe, ...beyond(measure(machine, recipe))]).toEqual([recipe]);
      }
    });
  });
});
