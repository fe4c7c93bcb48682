// What the tests of the entry layernorm-wasm/tfjs share: TensorFlow.js on its wasm and cpu backends in Node. In browsers, with
// threads, and with older versions of TensorFlow.js the entry is tested by test/bundlers and test/tfjs.

import * as tf from "@tensorflow/tfjs-core";
import type * as tfl from "@tensorflow/tfjs-layers";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-layers"; // which has the gradients of tfjs' ops
import { expect, vi } from "vitest";
import { layerNorm, type NormOptions, rmsNorm } from "../src/tfjs/index.js";
import { normal } from "./helpers.js";

export type Optional = tf.Tensor | null | undefined;
export type Axis = number | number[];
export type Norm = "layerNorm" | "rmsNorm";
type Op = (
  x: tf.Tensor,
  gamma?: Optional,
  beta?: Optional,
  axis?: Axis,
  eps?: number,
  options?: NormOptions,
) => tf.Tensor;

export const BACKENDS = ["wasm", "cpu"];
/** Both ops with the same arguments: RMS normalization takes no beta. */
export const OPS: Record<Norm, Op> = {
  layerNorm: layerNorm as Op,
  rmsNorm: (x, gamma, _, ...rest) => (rmsNorm as (...args: unknown[]) => tf.Tensor)(x, gamma, ...rest),
};

export const values = (tensor: tf.Tensor) => tensor.dataSync<"float32">();
export const sizeOf = (shape: number[]) => shape.reduce((size, dimension) => size * dimension, 1);
export const tensorOf = (shape: number[], seed: number) => tf.tensor(normal(sizeOf(shape), seed), shape);
export const apply = (layer: tfl.layers.Layer, x: tf.Tensor) => layer.apply(x) as tf.Tensor;

/** What an op gives with `returnSum`. */
export const both = (result: tf.Tensor) => result as unknown as [y: tf.Tensor, sum: tf.Tensor];

/** The gradients of a function with respect to those tensors that are given, from the gradient of its result. */
export function gradients(f: (...given: tf.Tensor[]) => tf.Tensor, given: Optional[], dy?: tf.Tensor) {
  return tf
    .grads(f)(given.filter((tensor) => tensor !== null) as tf.Tensor[], dy)
    .map(values);
}

/** How far two lists of numbers are apart, at most. */
export function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return Math.max(0, ...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
}

/** All of what tfjs counts, and the data of its backend. */
export function held() {
  const { numTensors, numDataBuffers, numBytes } = tf.memory();
  return { numTensors, numDataBuffers, numBytes, numDataIds: tf.backend().numDataIds() };
}

/** The module of the wasm backend. */
export function wasm() {
  const backend = tf.backend() as unknown as {
    wasm: { HEAPU8: Uint8Array; asm: object; _malloc: (bytes: number) => number };
  };
  return backend.wasm;
}

const KERNELS = ["LayernormWasmForward", "LayernormWasmBackward"];

/** A backend that is as the cpu one, but without the kernels of this package. */
tf.registerBackend("other", () => tf.findBackendFactory("cpu")());
tf.copyRegisteredKernels("cpu", "other");
for (const kernel of KERNELS) tf.unregisterKernel(kernel, "other");

export async function withBackend(name: string, use: () => unknown) {
  const before = tf.getBackend();
  await tf.setBackend(name);
  try {
    await use();
  } finally {
    await tf.setBackend(before);
  }
}

/** The entry as a program has it that imports it now. */
export function freshEntry() {
  vi.resetModules();
  for (const kernel of KERNELS) for (const name of BACKENDS) tf.unregisterKernel(kernel, name);
  return import("../src/tfjs/index.js");
}
