// Who is measured: a line declares a contender. Tables, pictures and goals follow from it.

import { availableParallelism } from "node:os";
import { javaScript } from "./javascript.js";
import * as ours from "./ours.js";
import type { Pass, Prepare, Work } from "./problem.js";
import * as rivals from "./rivals.js";

export interface Contender {
  name: string;
  prepare: Prepare;
  /** The one that it has, where it hasn't both. */
  only?: Pass;
  /** What it computes, where that isn't layer normalization of x. */
  work?: Work;
  /** Elements of the shapes that it is measured on. With more it would take minutes, or more memory than it has. */
  least?: number;
  most?: number;
  /** How many tensors a limit reads and writes. */
  tensors?: number;
  /** A library, whose results `npm run accuracy` compares as well. */
  library?: true;
  /** In the README's picture and table, which have the contenders with a label. The version is added to it. */
  label?: string;
  /** In the README's table, if it is called otherwise there. */
  code?: string;
  /** Why it has no time backward. */
  missing?: string;
}

export const OURS = "module, Tensor with out";
export const ON_ARRAYS = "module, Float32Array with out";
const WEB = "onnxruntime-web";
const NODE = "onnxruntime-node";
const ALONE = true;

const only = "forward";
const library = true;
const missing = "no backward";
const [rms, residual, both] = [{ rms: true }, { residual: true }, { rms: true, residual: true }];
const most = Infinity; // any shape; all contenders together need too much memory there
const least = 2 ** 16; // below it to hand a half over takes longer than to copy it
const cores = availableParallelism();

// biome-ignore format: a contender a line
const LINES = [
  { name: "kernel", most, prepare: ours.kernel },
  { name: "kernel of 2026-11-21", prepare: ours.earlier },
  { name: OURS, prepare: ours.onTensors(), label: "layernorm-wasm", code: "**`LayerNorm` on a `Tensor` with `out`**" },
  { name: `${OURS}, 1 threads`, prepare: ours.onTensors(1) },
  { name: `${OURS}, 2 threads`, prepare: ours.onTensors(2) },
  ...(cores > 2 ? [{ name: `${OURS}, ${cores} threads`, prepare: ours.onTensors(cores) }] as const : []),
  { name: "module, Tensor", prepare: ours.onNewTensors },
  { name: ON_ARRAYS, prepare: ours.onArrays(true), label: "the same, on arrays", code: "`LayerNorm` on arrays with `out`" },
  { name: "module, Float32Array", prepare: ours.onArrays(false) },
  { name: "kernel, RMSNorm", work: rms, prepare: ours.kernel },
  { name: "kernel, residual", only, work: residual, prepare: ours.kernel },
  { name: "addition, then kernel", only, work: residual, prepare: ours.additionThenKernel },
  { name: "kernel, RMSNorm, residual", only, work: both, prepare: ours.kernel },
  { name: "addition, then kernel, RMSNorm", only, work: both, prepare: ours.additionThenKernel },
  { name: "copy", tensors: 2, most, prepare: ours.limit("copy") },
  { name: "copy, 2 threads", tensors: 2, least, prepare: ours.copyOnThreads },
  { name: "read", tensors: 1, prepare: ours.limit("read") },
  { name: "plain JavaScript", prepare: javaScript, label: "plain JavaScript" },
  { name: "plain JavaScript, RMSNorm", work: rms, prepare: javaScript },
  { name: "plain JavaScript, residual", only, work: residual, prepare: javaScript },
  { name: "plain JavaScript, RMSNorm, residual", only, work: both, prepare: javaScript },
  { name: "straight two-pass kernel", only, prepare: ours.straight },
  { name: WEB, only, prepare: rivals.onnxruntime(WEB), library, label: WEB, missing },
  { name: `${WEB}, its kernel`, only, prepare: rivals.onnxruntime(WEB, ALONE) },
  { name: `${WEB}, its SimplifiedLayerNormalization`, only, work: rms, most: 2 ** 23, prepare: rivals.onnxruntime(WEB, ALONE) },
  { name: `${WEB}, its SkipLayerNormalization`, only, work: residual, most: 2 ** 23, prepare: rivals.onnxruntime(WEB, ALONE) },
  { name: `${WEB}, its SkipSimplifiedLayerNormalization`, only, work: both, most: 2 ** 23, prepare: rivals.onnxruntime(WEB, ALONE) },
  { name: "tfjs, wasm", only, most: 2 ** 20, prepare: rivals.tfjs("wasm"), library, label: "TensorFlow.js, wasm", code: "`tf.layers.layerNormalization`, wasm backend" },
  { name: "tfjs, cpu", only, most: 2 ** 20, prepare: rivals.tfjs("cpu") },
  { name: "jax-js, wasm", only, prepare: rivals.jax },
  { name: NODE, only, prepare: rivals.onnxruntime(NODE), library, label: `${NODE}, native`, missing },
  { name: `${NODE}, its kernel`, only, prepare: rivals.onnxruntime(NODE, ALONE) },
  { name: `${NODE}, its SimplifiedLayerNormalization`, only, work: rms, most: 2 ** 23, prepare: rivals.onnxruntime(NODE, ALONE) },
  { name: `${NODE}, its SkipLayerNormalization`, only, work: residual, most: 2 ** 23, prepare: rivals.onnxruntime(NODE, ALONE) },
  { name: `${NODE}, its SkipSimplifiedLayerNormalization`, only, work: both, most: 2 ** 23, prepare: rivals.onnxruntime(NODE, ALONE) },
  { name: "PyTorch CPU", prepare: rivals.python("pytorch"), library, label: "PyTorch, native" },
  { name: "Flax CPU", prepare: rivals.python("flax"), library, label: "Flax with jit, native" },
  { name: "Keras CPU", prepare: rivals.python("keras"), library, label: "Keras, native" },
  { name: "C, -O3", prepare: rivals.c("c") },
  { name: "C, -O3 -march=native -ffast-math", prepare: rivals.c("c-fast", "-march=native", "-ffast-math") },
  { name: "C, AVX2 by hand", prepare: rivals.c("c-avx2", "-DAVX2", "-mavx2", "-mfma") },
] as const satisfies Contender[];

export type Name = (typeof LINES)[number]["name"];
export const CONTENDERS: (Contender & { name: Name })[] = [...LINES];

/** Who is beside our module in the README, in this order. */
export const SHOWN = CONTENDERS.filter(({ label }) => label);

/** The name of our kernel that does the same work. */
export const kernelFor = ({ rms, residual }: Work = {}) =>
  `kernel${rms ? ", RMSNorm" : ""}${residual ? ", residual" : ""}`;
