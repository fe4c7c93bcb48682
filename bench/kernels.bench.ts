// Forward and backward beside a plain copy in the same memory, one thread, float32.
//
// Each shape is first verified against the float64 reference, then timed in interleaved rounds. GB/s count each tensor once:
// forward x and y, backward x, dy and dx, copy what it reads and what it writes. The machine's load moves all three alike, so
// the figures to quote are the ratios to the copy of the same run: of the fastest rounds, and in brackets of the medians.
//
//   npm run bench                          these shapes
//   npm run bench -- 1024x768 2048x4096    others

import { Runtime, Tensor } from "../src/index.js";
import { normal } from "../test/helpers.js";
import { dxUnits, forwardUnits } from "../test/reference.js";

const ROUNDS = 60;
const EPS = 1e-5;
const LIMIT = 4; // units of 2^-23, see test/reference.ts

const shapes = process.argv.length > 2 ? process.argv.slice(2) : ["1024x768", "8192x768", "2048x4096", "65536x64"];
console.log(`Node ${process.version}, ${process.arch}; GB/s, and the ratio to copy\n`);
console.log(["rows x cols", "copy", "forward", "backward", "units off"].map((title) => title.padEnd(22)).join(""));
for (const shape of shapes) {
  const [rows, cols] = shape.split("x").map(Number);
  if (!rows || !cols) throw new Error(`${shape}: expected rows x cols, as in 1024x768`);
  bench(rows, cols);
}

function bench(rows: number, cols: number): void {
  const size = rows * cols;
  const runtime = Runtime.create();
  const { kernels, memory } = runtime;
  const tensor = (shape: number[], data?: Float32Array) => new Tensor(shape, data, { runtime });
  const x = tensor([size], normal(size, 1));
  const dy = tensor([size], normal(size, 2));
  const weight = tensor([cols], normal(cols, 3));
  const bias = tensor([cols], normal(cols, 4));
  const sizes = [size, size, rows, rows, cols, cols, kernels.layerNormBackwardWorkspace(rows, cols) / 4];
  const [y, dx, mean, rstd, dweight, dbias, workspace] = sizes.map((n) => tensor([n])) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];

  const bytes = new Uint8Array(memory.buffer);
  const contenders = {
    copy: () => bytes.copyWithin(y.pointer, x.pointer, x.pointer + 4 * size),
    forward: () =>
      kernels.layerNormForward(
        y.pointer,
        mean.pointer,
        rstd.pointer,
        x.pointer,
        weight.pointer,
        bias.pointer,
        rows,
        cols,
        EPS,
      ),
    backward: () =>
      kernels.layerNormBackward(
        dx.pointer,
        dweight.pointer,
        dbias.pointer,
        dy.pointer,
        x.pointer,
        mean.pointer,
        rstd.pointer,
        weight.pointer,
        rows,
        cols,
        workspace.pointer,
      ),
  };

  contenders.forward();
  contenders.backward();
  const input = { x: x.data, dy: dy.data, weight: weight.data, bias: bias.data, rows, cols, eps: EPS };
  const off = [forwardUnits(y.data, input), dxUnits(dx.data, input)];
  if (!off.every((units) => units <= LIMIT)) throw new Error(`${rows}x${cols}: ${off} units off the reference`);

  const repeats = Math.max(1, Math.round(2 ** 21 / size));
  const times = { copy: [] as number[], forward: [] as number[], backward: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of ["copy", "forward", "backward"] as const) {
      const start = performance.now();
      for (let i = 0; i < repeats; i++) contenders[name]();
      times[name].push((performance.now() - start) / repeats);
    }
  }

  const speed = (name: keyof typeof times, rank: number) => {
    const tensors = name === "backward" ? 3 : 2;
    const sorted = times[name].slice(ROUNDS / 6).sort((a, b) => a - b);
    return (tensors * 4 * size) / sorted[Math.floor(rank * (sorted.length - 1))]! / 1e6;
  };
  const ratio = (name: keyof typeof times) =>
    `${speed(name, 0).toFixed(1)}  ${[0, 0.5].map((rank) => (speed(name, rank) / speed("copy", rank)).toFixed(2)).join(" (")})`;
  const cells = [`${rows} x ${cols}`, speed("copy", 0).toFixed(1), ratio("forward"), ratio("backward")];
  console.log([...cells, off.map((units) => units.toFixed(2)).join(", ")].map((cell) => cell.padEnd(22)).join(""));
}
