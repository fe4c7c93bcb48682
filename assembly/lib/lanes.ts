// Lane helpers, and the marker types by which a loop is compiled once for each set of operands.

/** Stands for an operand that the loop reads, writes or applies. */
export type Present = u32;
/** Stands for an operand that it does without: its code is left out at compile time. */
export type Absent = void;
/** Stands for a mean that takes two numbers, in a row far from zero. `isFloat` tells it from the others. */
export type Far = f32;

/** [a, b], [c, d] -> [a + b, c + d], of doubles. */
export function sumLanes(v: v128, w: v128): v128 {
  return f64x2.add(v128.shuffle<f64>(v, w, 0, 2), v128.shuffle<f64>(v, w, 1, 3));
}

/** [a, b, c, d] -> [a + c, b + d] in double. */
export function sumHalves(v: v128): v128 {
  return f64x2.add(f64x2.promote_low_f32x4(v), promoteHigh(v));
}

/** [a, b, c, d] -> [c, d] in double. */
export function promoteHigh(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 0, 1));
}

/** a, b -> [a, b]: how a function here returns two numbers. */
export function pair(a: f64, b: f64): v128 {
  return f64x2.replace_lane(f64x2.splat(a), 1, b);
}

/** The 4 floats at `pointer`. Of fewer than 4 that are left, in bytes, the first one and zeros. */
export function load4(pointer: usize, left: usize): v128 {
  return left < 16 ? v128.load32_zero(pointer) : v128.load(pointer);
}

/** Stores 4 floats, or of fewer that are left the first one. */
export function store4(pointer: usize, v: v128, left: usize): void {
  if (left < 16) v128.store32_lane(pointer, v, 0);
  else v128.store(pointer, v);
}
