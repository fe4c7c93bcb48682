// An edge worker that normalizes what it is sent:
//
//   POST /layernorm                     {"x": [[1, 2, 3], [4, 5, 9]], "weight"?: [..], "bias"?: [..], "eps"?: 1e-5}
//                                       answers {"y": [[..], [..]]}
//   POST /layernorm?shape=2,3&eps=1e-5  float32, little-endian, as application/octet-stream; answers the same
//
// Rows are the last dimension. Bad input is answered with 4xx and {"error": ".."}.

import { layerNorm } from "layernorm-wasm";

/** Of each type of body. JSON takes many times its size in memory, and an isolate has 128 MB. */
const MAX_BYTES = { "application/json": 1024 * 1024, "application/octet-stream": 4 * 1024 * 1024 };
const MAX_ROWS = 65536;

/** @typedef {keyof typeof MAX_BYTES} Type */

class Refusal extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export default {
  /** @param {Request} request */
  async fetch(request) {
    try {
      return await answer(request);
    } catch (error) {
      // The package's own errors name the argument, what was expected and what came.
      const known = error instanceof Refusal || error instanceof TypeError || error instanceof RangeError;
      const status = error instanceof Refusal ? error.status : known ? 400 : 500;
      return Response.json({ error: known ? error.message : "internal error" }, { status });
    }
  },
};

/** @param {Request} request */
async function answer(request) {
  const url = new URL(request.url);
  if (url.pathname !== "/layernorm") throw new Refusal(404, "expected POST /layernorm");
  if (request.method !== "POST") throw new Refusal(405, `${request.method}, expected POST`);
  const [given = ""] = (request.headers.get("content-type") ?? "none").split(";");
  const type = /** @type {Type} */ (given.trim().toLowerCase());
  if (!Object.hasOwn(MAX_BYTES, type)) {
    throw new Refusal(415, `content-type is ${type}, expected application/json or application/octet-stream`);
  }
  const body = await read(request, MAX_BYTES[type]);
  return type === "application/json" ? ofJson(body) : ofBinary(body, url.searchParams);
}

/**
 * The body, up to the limit: what comes after it is not even read.
 * @param {Request} request @param {number} most in bytes
 */
async function read(request, most) {
  const parts = [];
  let size = 0;
  for await (const part of request.body ?? []) {
    size += part.length;
    if (size > most) throw new Refusal(413, `more than ${most} bytes`);
    parts.push(part);
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.length;
  }
  return body;
}

/** @param {Uint8Array} body */
function ofJson(body) {
  let input;
  try {
    input = JSON.parse(new TextDecoder().decode(body));
  } catch (error) {
    throw new Refusal(400, `not JSON: ${/** @type {Error} */ (error).message}`);
  }
  const { x, weight, bias, eps = 1e-5 } = input ?? {};
  if (Array.isArray(x) && x.length > MAX_ROWS) throw new Refusal(413, `x: more than ${MAX_ROWS} rows`);
  if (!Array.isArray(x) || x.length === 0 || !x.every((row) => Array.isArray(row) && row.length === x[0].length)) {
    throw new Refusal(400, "x: expected a list of rows of the same length");
  }
  const cols = x[0].length;
  const flat = floats("x", x.flat(), x.length * cols);
  const y = layerNorm(flat, cols, optional("weight", weight, cols), optional("bias", bias, cols), eps);
  if (!y.every(Number.isFinite)) throw new Refusal(400, "y: a result is beyond the range of float32");
  return Response.json({ y: x.map((_, row) => [...y.subarray(row * cols, (row + 1) * cols)]) });
}

/** @param {Uint8Array<ArrayBuffer>} body @param {URLSearchParams} query */
function ofBinary(body, query) {
  const shape = (query.get("shape") ?? "").split(",").map(Number);
  if (!shape.every((dimension) => Number.isInteger(dimension) && dimension > 0)) {
    throw new Refusal(400, `shape is ${query.get("shape")}, expected positive integers such as 2,768`);
  }
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  if (body.length !== size * 4) {
    throw new Refusal(400, `the body has ${body.length} bytes, expected ${size * 4} for the shape ${shape}`);
  }
  const eps = Number(query.get("eps") ?? 1e-5);
  const y = layerNorm(new Float32Array(body.buffer), shape[shape.length - 1], null, null, eps);
  return new Response(y, { headers: { "content-type": "application/octet-stream" } });
}

/** @param {string} name @param {unknown} values @param {number} cols */
function optional(name, values, cols) {
  return values == null ? null : floats(name, values, cols);
}

/** @param {string} name @param {unknown} values @param {number} length */
function floats(name, values, length) {
  const good = Array.isArray(values) && values.length === length && values.every((value) => typeof value === "number");
  if (!good) throw new Refusal(400, `${name}: expected ${length} numbers`);
  const array = new Float32Array(values);
  // JSON has no infinity: what it can't hold would be answered as null.
  const beyond = array.findIndex((value) => !Number.isFinite(value));
  if (beyond >= 0) throw new Refusal(400, `${name}: ${values[beyond]} is beyond the range of float32`);
  return array;
}
