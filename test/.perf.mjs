import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import "@tensorflow/tfjs-backend-wasm";
import { layerNorm, layerNormalization } from "layernorm-wasm/tfjs";
await tf.setBackend("wasm"); await tf.ready();
const x = tf.randomNormal([1024, 768]);
const [own, ours] = [tfl.layers.layerNormalization(), layerNormalization()];
const g = tf.ones([768]), b = tf.zeros([768]);
const hand = () => { const { mean, variance } = tf.moments(x, -1, true); return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-3))), g), b); };
const cs = { own: () => own.apply(x), hand, ours: () => ours.apply(x), op: () => layerNorm(x, g, b) };
for (const [n, f] of Object.entries(cs)) { let best = 1e9; let bestNoRead = 1e9; for (let i = 0; i < (n === "own" ? 4 : 30); i++) { const t = performance.now(); const y = tf.tidy(f); const u = performance.now(); y.dataSync(); best = Math.min(best, performance.now() - t); bestNoRead = Math.min(bestNoRead, u - t); y.dispose(); } console.log(n, best, bestNoRead); }
