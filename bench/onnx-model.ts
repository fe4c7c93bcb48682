// An ONNX model of normalizations, as bytes: the few fields of onnx.proto that it takes, in protobuf's encoding.

import type { Problem, Work } from "./problem.js";

type Field = [number: number, value: number | string | Uint8Array | Float32];

/** A number to be encoded as a float rather than as an integer. */
class Float32 {
  constructor(readonly value: number) {}
}

const FLOAT = 1; // TensorProto.DataType
const ATTRIBUTE_FLOAT = 1; // AttributeProto.AttributeType
const ATTRIBUTE_INT = 2;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return [...bytes, Number(rest)];
}

function message(...fields: Field[]): Uint8Array {
  const bytes: number[] = [];
  for (const [number, value] of fields) {
    if (typeof value === "number") bytes.push(...varint(number << 3), ...varint(value));
    else if (value instanceof Float32) {
      bytes.push(...varint((number << 3) | 5), ...new Uint8Array(new Float32Array([value.value]).buffer));
    } else {
      const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
      bytes.push(...varint((number << 3) | 2), ...varint(content.length), ...content);
    }
  }
  return Uint8Array.from(bytes);
}

/** A ValueInfoProto of float32. */
function value(name: string, shape: number[]): Uint8Array {
  const dimensions = shape.map((size): Field => [1, message([1, size])]);
  return message([1, name], [2, message([1, message([1, FLOAT], [2, message(...dimensions)])])]);
}

/** A field for each of the values. */
const each = (number: number, values: (string | Uint8Array)[]) => values.map((value): Field => [number, value]);

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
  const chain = Array.from({ length: nodes }, (_, i): Field => {
    const inputs = [i === 0 ? "X" : `Y${i}`, ...(residual ? [i === 0 ? "Skip" : `Sum${i}`] : []), ...parameters];
    // The outputs between are the mean and rstd, which nobody asks for.
    const outputs = [i === nodes - 1 ? "Y" : `Y${i + 1}`, ...(residual ? ["", "", `Sum${i + 1}`] : [])];
    const node = message(
      ...each(1, inputs),
      ...each(2, outputs),
      [4, operator],
      ...each(5, residual ? [] : [message([1, "axis"], [20, ATTRIBUTE_INT], [3, -1])]),
      [5, message([1, "epsilon"], [20, ATTRIBUTE_FLOAT], [2, new Float32(eps)])],
      [7, residual ? "com.microsoft" : ""],
    );
    return [1, node];
  });
  const inputs = [value("X", [rows, cols]), ...(residual ? [value("Skip", [rows, cols])] : [])];
  const weights = parameters.map((name) => value(name, [cols]));
  const graph = message(...chain, [2, "norm"], ...each(11, [...inputs, ...weights]), [12, value("Y", [rows, cols])]);
  const opset = (domain: string, version: number): Field => [8, message([1, domain], [2, version])];
  return message([1, 8], opset("", 17), opset("com.microsoft", 1), [7, graph]);
}
