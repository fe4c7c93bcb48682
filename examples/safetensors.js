// Reads the safetensors format: the header's length in 8 bytes, a JSON header of names, types, shapes and offsets, the data.

const TYPES = { F32: Float32Array, F64: Float64Array };

/**
 * @typedef {{ shape: number[], data: Float32Array | Float64Array }} Entry
 * @param {Uint8Array} file
 * @returns {{ tensors: Map<string, Entry>, metadata: Record<string, string> }}
 */
export function parseSafetensors(file) {
  const bytes = new Uint8Array(file);
  const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries)) {
    const Type = TYPES[/** @type {keyof typeof TYPES} */ (dtype)];
    if (!Type) throw new TypeError(`${name} is ${dtype}, expected F32 or F64`);
    const [from, to] = data_offsets;
    tensors.set(name, { shape, data: new Type(bytes.slice(start + from, start + to).buffer) });
  }
  return { tensors, metadata };
}
