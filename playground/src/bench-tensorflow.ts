// TensorFlow.js on its WebAssembly backend, one thread: its layer, and layer normalization by hand. Loaded when asked for.

import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import wasm from "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url";
import * as tf from "@tensorflow/tfjs-core";
import { layers } from "@tensorflow/tfjs-layers";
import type { Contender, Problem } from "./bench-worker.js";

export async function tensorFlow({ rows, cols, x, weight, bias, eps }: Problem): Promise<Contender[]> {
  // One binary is enough: without threads, and with SIMD, which we need too.
  setWasmPaths(
    Object.fromEntries(["", "-simd", "-threaded-simd"].map((kind) => [`tfjs-backend-wasm${kind}.wasm`, wasm])),
  );
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  await tf.setBackend("wasm");
  await tf.ready();
  const from = tf.tensor2d(x, [rows, cols]);
  const [scale, shift] = [tf.tensor1d(weight), tf.tensor1d(bias)];
  const layer = layers.layerNormalization({ axis: -1, epsilon: eps });
  layer.build([rows, cols]);
  layer.setWeights([scale, shift]);

  const contender = (name: string, compute: () => tf.Tensor): Contender => {
    let y: Float32Array = new Float32Array();
    // Nothing is returned from tidy: it would look for tensors in each element of an array.
    const call = () =>
      tf.tidy(() => {
        y = compute().dataSync<"float32">();
      });
    return { name, call, result: () => y };
  };
  return [
    contender("TensorFlow.js, its layer", () => layer.apply(from) as tf.Tensor),
    contender("TensorFlow.js, tf.moments by hand", () => {
      const { mean, variance } = tf.moments(from, -1, true);
      return tf.add(tf.mul(tf.div(tf.sub(from, mean), tf.sqrt(tf.add(variance, eps))), scale), shift);
    }),
  ];
}
