// Stands in for "node:fs" where there are no files: the fixtures, by name.

import drift from "../fixtures/drift.safetensors";
import golden from "../fixtures/golden.safetensors";
import goldenRms from "../fixtures/golden-rms.safetensors";
import keras from "../fixtures/keras.json" with { type: "json" };

const files: Record<string, Uint8Array> = {
  "drift.safetensors": drift,
  "golden.safetensors": golden,
  "golden-rms.safetensors": goldenRms,
  "keras.json": new TextEncoder().encode(JSON.stringify(keras)),
};

export function readFileSync(url: URL, encoding?: "utf8"): Uint8Array | string {
  const bytes = files[url.pathname.replace(/^.*\//, "")];
  if (!bytes) throw new Error(`${url} is not among the fixtures`);
  return encoding ? new TextDecoder().decode(bytes) : bytes;
}
