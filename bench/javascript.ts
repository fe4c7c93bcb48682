// Plain JavaScript: the loops that a good programmer writes over Float32Arrays. A residual is added by one of its own.

import type { Prepare, Problem } from "./problem.js";
import { repeat } from "./race.js";

export const javaScript: Prepare = (problem, pass, { rms, residual }) => {
  const { x, dy } = problem;
  const out = new Float32Array(x.length);
  const sum = residual ? new Float32Array(x.length) : x;
  const loops = (rms ? rmsNorm : layerNorm)({ ...problem, x: sum }, out);
  const addThenNorm = () => {
    for (let i = 0; i < sum.length; i++) sum[i] = x[i]! + dy[i]!;
    loops.forward();
  };
  const forward = residual ? addThenNorm : loops.forward;
  forward();
  return { call: repeat(pass === "forward" ? forward : loops.backward), result: () => out };
};

function layerNorm({ rows, cols, x, dy, weight, bias, eps }: Problem, out: Float32Array) {
  const [mean, rstd] = [new Float32Array(rows), new Float32Array(rows)];
  const [dweight, dbias] = [new Float32Array(cols), new Float32Array(cols)];
  return {
    forward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        let sum = 0;
        for (let i = start; i < start + cols; i++) sum += x[i]!;
        const m = sum / cols;
        let squares = 0;
        for (let i = start; i < start + cols; i++) {
          const d = x[i]! - m;
          squares += d * d;
        }
        const r = 1 / Math.sqrt(squares / cols + eps);
        for (let i = 0; i < cols; i++) out[start + i] = (x[start + i]! - m) * r * weight[i]! + bias[i]!;
        mean[row] = m;
        rstd[row] = r;
      }
    },
    backward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        const m = mean[row]!;
        const r = rstd[row]!;
        let a = 0;
        let c = 0;
        for (let i = 0; i < cols; i++) {
          const d = dy[start + i]!;
          const h = (x[start + i]! - m) * r;
          const g = d * weight[i]!;
          a += g;
          c += g * h;
          dweight[i]! += d * h;
          dbias[i]! += d;
        }
        a /= cols;
        c = (c / cols) * r;
        for (let i = 0; i < cols; i++) {
          out[start + i] = r * (dy[start + i]! * weight[i]! - a - (x[start + i]! - m) * c);
        }
      }
    },
  };
}

function rmsNorm({ rows, cols, x, dy, weight, eps }: Problem, out: Float32Array) {
  const [rstd, dweight] = [new Float32Array(rows), new Float32Array(cols)];
  return {
    forward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        let squares = 0;
        for (let i = start; i < start + cols; i++) squares += x[i]! * x[i]!;
        const r = 1 / Math.sqrt(squares / cols + eps);
        for (let i = 0; i < cols; i++) out[start + i] = x[start + i]! * r * weight[i]!;
        rstd[row] = r;
      }
    },
    backward() {
      for (let row = 0; row < rows; row++) {
        const start = row * cols;
        const r = rstd[row]!;
        let c = 0;
        for (let i = 0; i < cols; i++) {
          const d = dy[start + i]!;
          const h = x[start + i]! * r;
          c += d * weight[i]! * h;
          dweight[i]! += d * h;
        }
        c = (c / cols) * r;
        for (let i = 0; i < cols; i++) out[start + i] = r * (dy[start + i]! * weight[i]! - x[start + i]! * c);
      }
    },
  };
}
