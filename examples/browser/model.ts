// The block of block.safetensors, with an input and what PyTorch made of it.

import { parseSafetensors } from "../safetensors.js";
import { Block } from "./block.js";

export async function loadModel(): Promise<{ block: Block; x: Float32Array; y: Float32Array }> {
  const file = await fetch(new URL("block.safetensors", import.meta.url));
  const { tensors, metadata } = parseSafetensors(new Uint8Array(await file.arrayBuffer()));
  const { x, y, ...weights } = Object.fromEntries(tensors);
  return {
    block: new Block(weights, Number(metadata.heads)),
    x: x?.data as Float32Array,
    y: y?.data as Float32Array,
  };
}

/** How far two results are apart at most, and whether float32 explains that: some roundings of the largest number. */
export function compare(got: Float32Array, expected: Float32Array): string {
  const difference = Math.max(...got.map((value, i) => Math.abs(value - (expected[i] as number))));
  const largest = Math.max(...expected.map(Math.abs));
  const equal = got.length === expected.length && difference <= 8 * 2 ** -23 * largest;
  return `${equal ? "equal to PyTorch" : "DIFFERS from PyTorch"}: at most ${difference.toExponential(1)} apart, of ${largest.toFixed(2)}`;
}
