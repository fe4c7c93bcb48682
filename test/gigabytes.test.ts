// The far ends of a memory of 32-bit addresses.

import { describe, expect, test } from "vitest";
import { LayerNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";

const GIB = 2 ** 30;
const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);
const dy = normal(rows * cols, 2);

/** Forward and backward on tensors at given addresses, beside what the default runtime gives. */
function expectSame(runtime: Runtime, at: { x: number; y: number; dy: number; dx: number }): void {
  const tensor = (pointer: number, data?: Float32Array) => new Tensor([rows, cols], data, { runtime, pointer });
  const here = new LayerNorm(cols, { runtime });
  const there = new LayerNorm(cols);
  const y = here.forward(tensor(at.x, x), { out: tensor(at.y) });
  expect(y.data).toEqual(there.forward(x));
  const dx = here.backward(tensor(at.dy, dy), { out: tensor(at.dx) });
  expect(dx.data).toEqual(there.backward(dy));
  expect(here.weight?.grad).toEqual(there.weight?.grad);
  expect(here.bias?.grad).toEqual(there.bias?.grad);
}

describe("a memory of 4 GiB", () => {
  const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536 });
  const size = rows * cols * 4;

  /** A runtime whose blocks come one after the other from `first` on. */
  function from(first: number): Runtime {
    let next = first;
    const allocate = (bytes: number) => {
      next += Math.ceil(bytes / 4) * 4;
      // As an export of WebAssembly returns it, i32.
      return (next - Math.ceil(bytes / 4) * 4) | 0;
    };
    return Runtime.create({ memory, allocate, free: () => {} });
  }

  test("has the same results above 2 GiB", () => {
    const at = 2 * GIB + 4;
    expectSame(from(2 * GIB + 65536), { x: at, y: at + size, dy: at + 2 * size, dx: at + 3 * size });
  });

  test("has the same results across 2 GiB", () => {
    const across = 2 * GIB - 52;
    const above = 3 * GIB;
    expectSame(from(2 * GIB - 16384), { x: across, y: above, dy: above + size, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: across, dy: above + size, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: above + size, dy: across, dx: above + 2 * size });
    expectSame(from(GIB), { x: above, y: above + size, dy: above + 2 * size, dx: across });
  });

  test("has the same results up to its last byte", () => {
    const last = 4 * GIB - size;
    expectSame(from(GIB), { x: last, y: GIB + 65536, dy: GIB + 65536 + size, dx: GIB + 65536 + 2 * size });
    expectSame(from(GIB), { x: last - size, y: last, dy: last - 2 * size, dx: last - 3 * size });
    expectSame(from(GIB), { x: last - size, y: last - 2 * size, dy: last - 3 * size, dx: last });
  });
});

test("a heap grown to over 3 GiB holds what was there, and computes above it", () => {
  const runtime = Runtime.create();
  const ln = new LayerNorm(cols, { runtime });
  const apart = new LayerNorm(cols);
  const before = new Tensor([rows, cols], x, { runtime });
  ln.forward(before);
  const fillers = [1, 2, 3].map(() => runtime.allocate(GIB - 65536));
  expect(runtime.memory.buffer.byteLength).toBeGreaterThan(3 * GIB);
  expect(before.data).toEqual(x);

  apart.forward(x);
  expect(ln.backward(dy)).toEqual(apart.backward(dy));
  const y = ln.forward(new Tensor([rows, cols], x, { runtime }));
  expect(y.data).toEqual(apart.forward(x));
  expect(Math.max(...fillers, y.pointer)).toBeGreaterThan(2 * GIB);
  for (const pointer of fillers) runtime.free(pointer);
  expect(y.data).toEqual(apart.forward(x));
});
