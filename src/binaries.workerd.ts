/**
 * The modules for hosts that compile no bytes: their bundlers and loaders give compiled ones for these imports.
 * @module
 */

export { default as heap } from "./heap.wasm";
export { default as kernels } from "./layernorm.wasm";
