// Reads the safetensors format: the header's length in 8 bytes, a JSON header of names, types, shapes and offsets, the data.

// JavaScript may have no array of 16-bit floats: of these there are the bits, as loadStateDict takes them.
const TYPES = { F32: Float32Array, F64: Float64Array, BF16: Uint16Array, F16: Uint16Array };

/**
 * @typedef {{ dtype: string, shape: number[], data: Float32Array | Float64Array | Uint16Array }} Entry
 * @param {Uint8Array} file
 * @returns {{ tensors: Map<string, Entry>, metadata: Record<string, string> }}
 */
export function parseSafetensors(file) {
  const start = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries)) {
    if (/^[IU]\d/.test(dtype)) continue; // integers, such as positions, are no weights
    const Type = TYPES[/** @type {keyof typeof TYPES} */ (dtype)];
    if (!Type) throw new TypeError(`${name} is ${dtype}, expected ${Object.keys(TYPES).join(", ")}`);
    const [from, to] = data_offsets;
    tensors.set(name, { dtype, shape, data: new Type(new Uint8Array(file.subarray(start + from, start + to)).buffer) });
  }
  return { tensors, metadata };
}
