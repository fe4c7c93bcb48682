// The far ends of a memory of 32-bit addresses.

import { describe, expect, test } from "vitest";
import { LayerNorm, Runtime, Tensor } from "../src/index.js";
import { normal } from "./helpers.js";

const GIB = 2 ** 30;
const rows = 5;
const cols = 37;
const x = normal(rows * cols, 1);
const dy = normal(rows * cols, 2);

/** Forward and backward on x, y, dy and dx at given addresses, beside what the default runtime gives. */
function expectSame(runtime: Runtime, addresses: number[]): void {
  const [atX, atY, atDy, atDx] = addresses as [number, number, number, number];
  const tensor = (pointer: number, data?: Float32Array) => new Tensor([rows, cols], data, { runtime, pointer });
  const here = new LayerNorm(cols, { runtime });
  const there = new LayerNorm(cols);
  const y = here.forward(tensor(atX, x), { out: tensor(atY) });
  expect(y.data).toEqual(there.forward(x));
  const dx = here.backward(tensor(atDy, dy), { out: tensor(atDx) });
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

  /** Addresses for x, y, dy and dx, one after the other. */
  const rowOf = (first: number) => [0, 1, 2, 3].map((i) => first + i * size);

  test("has the same results above 2 GiB", () => {
    expectSame(from(2 * GIB + 65536), rowOf(2 * GIB + 4));
  });

  test.each([0, 1, 2, 3])("has the same results with tensor %i across 2 GiB, or up to the last byte", (i) => {
    const own = i === 0 ? 2 * GIB - 16384 : GIB; // what the module has goes across, too
    expectSame(from(own), Object.assign(rowOf(3 * GIB), { [i]: 2 * GIB - 52 }));
    expectSame(from(GIB), Object.assign(rowOf(GIB + 65536), { [i]: 4 * GIB - size }));
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
