// npm run example:minilm -- [FOLDER or address]: embeds twenty sentences with all-MiniLM-L6-v2 in TensorFlow.js,
// compares them with PyTorch's embeddings, finds for each the nearest, and times the model with three kinds of norms.
//
// The model is read from a folder, or fetched from an address and kept in build/minilm: 91 MB. Without either, the
// address is that of the model on its hub.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { claim, compare, conclude, heading, section } from "../report.js";
import { parseSafetensors } from "../safetensors.js";
import { Encoder, NORMS, nearest, tf } from "./encoder.js";
import { HUB } from "./hub.js";

const OWN = "tf.layers.layerNormalization";
const root = new URL("../..", import.meta.url);
const [from = HUB] = process.argv.slice(2);
const kept = fileURLToPath(new URL("build/minilm", root));

/** @param {string} name */
async function read(name) {
  if (!/^https?:/.test(from)) return readFileSync(join(from, name));
  const path = join(kept, name);
  if (!existsSync(path)) {
    console.log(`fetching ${name}`);
    const response = await fetch(`${from}/${name}`).catch((cause) => {
      throw new Error(`${from} can't be reached. A folder with the model's files may be given instead.`, { cause });
    });
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    mkdirSync(kept, { recursive: true });
    writeFileSync(`${path}.part`, new Uint8Array(await response.arrayBuffer()));
    renameSync(`${path}.part`, path); // whole, or not there
  }
  return readFileSync(path);
}

const fixture = parseSafetensors(readFileSync(new URL("test/fixtures/minilm.safetensors", root)));
const all = JSON.parse(readFileSync(new URL("sentences.json", import.meta.url), "utf8"));
const expected = /** @type {Float32Array} */ (fixture.tensors.get("embeddings")?.data);
const width = 384;
const sentences = /** @type {string[]} */ (all.slice(0, expected.length / width));
const theirs = sentences.map((_, i) => expected.subarray(i * width, (i + 1) * width));

const encoder = await Encoder.load(read);
heading(`all-MiniLM-L6-v2 in TensorFlow.js ${tf.version_core}, ${tf.getBackend()}, ${sentences.length} sentences`);

section(`Beside PyTorch ${fixture.metadata.torch}`);
const tokens = sentences.map((sentence) => encoder.tokens(sentence));
compare("tokens in all", tokens.flat().length, JSON.parse(fixture.metadata.tokens).flat().length, 0);
compare("tokens are the same", String(tokens) === String(JSON.parse(fixture.metadata.tokens)), true);
for (const norm of Object.keys(NORMS)) {
  const ours = tokens.map((ids) => encoder.embed(ids, norm).embedding);
  const cosine = Math.min(...ours.map((embedding, i) => nearest(embedding, [theirs[i]])[0].cosine));
  claim(`${norm}, least cosine`, cosine, "above 0.99999", cosine > 0.99999);
  const furthest = Math.max(
    ...ours.flatMap((embedding, i) => Array.from(embedding, (v, k) => Math.abs(v - theirs[i][k]))),
  );
  claim(`${norm}, largest difference`, furthest, "below 0.000001", furthest < 1e-6);
}

section("The nearest of each");
const ours = tokens.map((ids) => encoder.embed(ids, "layernorm-wasm").embedding);
for (const [i, sentence] of sentences.entries()) {
  const [, { index, cosine }] = nearest(ours[i], ours);
  claim(sentence, `${cosine.toFixed(2)}  ${sentences[index]}`, "", index === nearest(theirs[i], theirs)[1].index);
}

/**
 * Milliseconds of an embedding with each norm, in turns: those of the fastest round.
 * @param {number[][]} texts
 * @param {number} rounds
 */
function race(texts, rounds) {
  /** @type {Record<string, { total: number, norms: number }>} */
  const best = {};
  for (let round = 0; round < rounds; round++) {
    for (const norm of Object.keys(NORMS)) {
      const times = texts.map((ids) => encoder.embed(ids, norm));
      const sum = (/** @type {"total" | "norms"} */ what) =>
        times.reduce((sum, time) => sum + time[what], 0) / texts.length;
      const total = sum("total");
      if (total < (best[norm]?.total ?? Infinity)) best[norm] = { total, norms: sum("norms") };
    }
  }
  return best;
}

const LONG = 128;
const long = encoder.tokens(all.join(" ")).slice(0, LONG);
for (const [title, times] of Object.entries({
  [`${sentences.length} sentences of ${(tokens.flat().length / tokens.length).toFixed(0)} tokens`]: race(tokens, 5),
  [`${LONG} tokens`]: race([long], 4),
})) {
  section(`Milliseconds of an embedding, ${title}: the fastest round, and the part of the norms`);
  const ours = times["layernorm-wasm"].total;
  for (const [norm, { total, norms }] of Object.entries(times)) {
    const figures = `${total.toFixed(1)} ms, norms ${((100 * norms) / total).toFixed(1)} %`;
    claim(norm, figures, `${(total / ours).toFixed(2)} × as long as ours`, norm !== OWN || total > ours);
  }
}
console.log(`\nNode ${process.version}, ${cpus()[0]?.model}`);
conclude();
