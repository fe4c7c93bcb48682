// What engines.mjs runs in each engine: the kernels' speed on a few shapes, as JSON on standard output or posted by a page.

import { Runtime, Tensor } from "../dist/index.js";

const SHAPES = [
  [128, 768],
  [1024, 768],
  [8192, 768],
  [1024, 4096],
  [4096, 64],
] as const;
const ROUNDS = 10;
const ROUND_MS = 20; // the clocks of browsers are coarse

const gigabytes: Record<string, number> = {};
const runtime = Runtime.create();
const { kernels } = runtime;
for (const [rows, cols] of SHAPES) {
  const size = rows * cols;
  const numbers = Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 4096) / 2048 - 1);
  // Others than x: where dy is nearly xhat, backward takes a slower way.
  const gradients = Float32Array.from({ length: size }, (_, i) => ((i * 6007) % 4093) / 2046 - 1);
  const tensor = (length: number, data?: Float32Array) => new Tensor([length], data, { runtime });
  const [x, dy, y] = [tensor(size, numbers), tensor(size, gradients), tensor(size)];
  const [weight, bias, dweight, dbias] = [
    tensor(cols, numbers.subarray(0, cols)),
    tensor(cols),
    tensor(cols),
    tensor(cols),
  ];
  const [mean, rstd] = [tensor(rows), tensor(rows)];
  const workspace = tensor(kernels.layerNormBackwardWorkspace(rows, cols) / 4 || 1);
  const [xp, dyp, yp, wp, bp] = [x, dy, y, weight, bias].map(({ pointer }) => pointer) as number[] as Five;
  const [mp, rp, dwp, dbp, sp] = [mean, rstd, dweight, dbias, workspace].map(
    ({ pointer }) => pointer,
  ) as number[] as Five;
  const passes = {
    forward: () => kernels.layerNormForward(yp, 0, mp, rp, xp, 0, wp, bp, rows, cols, 1e-5),
    backward: () => kernels.layerNormBackward(yp, dwp, dbp, dyp, xp, mp, rp, wp, 0, rows, cols, sp),
  };
  for (const [pass, call] of Object.entries(passes)) {
    // Engines compile again while they run, so that the first rounds are slower.
    let calls = 1;
    for (const start = performance.now(); performance.now() < start + 300; ) call();
    for (let once = 0; once < ROUND_MS / 2; calls *= 2) {
      const start = performance.now();
      for (let i = 0; i < calls; i++) call();
      once = performance.now() - start;
    }
    let best = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      const start = performance.now();
      for (let i = 0; i < calls; i++) call();
      best = Math.min(best, (performance.now() - start) / calls);
    }
    gigabytes[`${pass} ${rows}x${cols}`] = ((pass === "forward" ? 2 : 3) * size * 4) / best / 1e6;
  }
  for (const own of [x, dy, y, weight, bias, dweight, dbias, mean, rstd, workspace]) own.dispose();
}

type Five = [number, number, number, number, number];

if (typeof document === "object") fetch("/report", { method: "POST", body: JSON.stringify(gigabytes) });
else console.log(JSON.stringify(gigabytes));
