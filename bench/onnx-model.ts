// An ONNX model of normalizations, as bytes: the few fields of onnx.proto that it takes, in protobuf's encoding.

import type { Problem, Work } from "./problem.js";

/** A number and what it holds: an integer, a float (an array of one), text, or bytes, as of another message. */
type Field = [number: number, value: number | Float32Array | string | Uint8Array];

const FLOAT = 1; // TensorProto.DataType
const ATTRIBUTE_FLOAT = 1; // AttributeProto.AttributeType
const ATTRIBUTE_INT = 2;

const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]);

function encoded([number, value]: Field): number[] {
  if (typeof value === "number") return [...varint(number << 3), ...varint(value)];
  if (value instanceof Float32Array) return [...varint((number << 3) | 5), ...new Uint8Array(value.buffer)];
  const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
  return [...varint((number << 3) | 2), ...varint(content.length), ...content];
}

const message = (...fields: Field[]) => Uint8Array.from(fields.flatMap(encoded));

/** A field for each of the values. */
const each = (number: number, values: (string | Uint8Array)[]) => values.map((value): Field => [number, value]);

/** A ValueInfoProto of float32. */
function value(name: string, ...shape: number[]): Uint8Array {
  const dimensions = shape.map((size) => message([1, size]));
  return message([1, name], [2, message([1, message([1, FLOAT], [2, message(...each(1, dimensions))])])]);
}

/**
 * Y = norm(X) or, with a residual, norm(X + Skip), over the last axis. With `nodes`, so many of them one after the other, each
 * with the sum of the one before as its residual, as in a residual stream.
 *
 * onnxruntime's RMSNorm, which it calls simplified, is in the default domain, and the fused residuals in Microsoft's.
 */
export function normModel({ rows, cols, eps }: Pick<Problem, "rows" | "cols" | "eps">, work: Work = {}, nodes = 1) {
  const { rms, residual } = work;
  const operator = `${residual ? "Skip" : ""}${rms ? "Simplified" : ""}LayerNormalization`;
  const parameters = rms ? ["Scale"] : ["Scale", "B"];
  const chain = Array.from({ length: nodes }, (_, i) => {
    const inputs = [i === 0 ? "X" : `Y${i}`, ...(residual ? [i === 0 ? "Skip" : `Sum${i}`] : []), ...parameters];
    // The outputs between are the mean and rstd, which nobody asks for.
    const outputs = [i === nodes - 1 ? "Y" : `Y${i + 1}`, ...(residual ? ["", "", `Sum${i + 1}`] : [])];
    return message(
      ...each(1, inputs),
      ...each(2, outputs),
      [4, operator],
      ...each(5, residual ? [] : [message([1, "axis"], [20, ATTRIBUTE_INT], [3, 1])]),
      [5, message([1, "epsilon"], [20, ATTRIBUTE_FLOAT], [2, Float32Array.of(eps)])],
      [7, residual ? "com.microsoft" : ""],
    );
  });
  const inputs = [value("X", rows, cols), ...(residual ? [value("Skip", rows, cols)] : [])];
  const weights = parameters.map((name) => value(name, cols));
  const graph = message(...each(1, chain), [2, "norm"], ...each(11, [...inputs, ...weights]), [
    12,
    value("Y", rows, cols),
  ]);
  const opset = (domain: string, version: number) => message([1, domain], [2, version]);
  return message([1, 8], ...each(8, [opset("", 17), opset("com.microsoft", 1)]), [7, graph]);
}
