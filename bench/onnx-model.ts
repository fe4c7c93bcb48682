// An ONNX model of LayerNormalization nodes, as bytes: the few fields of onnx.proto that it takes, in protobuf's encoding.

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

/** Y = LayerNormalization(X, Scale, B) over the last axis; with `nodes`, so many of them one after the other. */
export function layerNormModel(rows: number, cols: number, epsilon: number, nodes = 1): Uint8Array {
  const chain = Array.from(
    { length: nodes },
    (_, i): Field => [
      1,
      message(
        [1, i === 0 ? "X" : `X${i}`],
        [1, "Scale"],
        [1, "B"],
        [2, i === nodes - 1 ? "Y" : `X${i + 1}`],
        [4, "LayerNormalization"],
        [5, message([1, "axis"], [20, ATTRIBUTE_INT], [3, -1])],
        [5, message([1, "epsilon"], [20, ATTRIBUTE_FLOAT], [2, new Float32(epsilon)])],
      ),
    ],
  );
  const graph = message(
    ...chain,
    [2, "layernorm"],
    [11, value("X", [rows, cols])],
    [11, value("Scale", [cols])],
    [11, value("B", [cols])],
    [12, value("Y", [rows, cols])],
  );
  return message([1, 8], [8, message([1, ""], [2, 17])], [7, graph]);
}
