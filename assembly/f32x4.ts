// Lane helpers, and the two marker types by which a loop is compiled once for each set of operands.

/** Stands for an operand that the loop reads, writes or applies. */
export type Present = u32;
/** Stands for one that it does without: its code is left out at compile time. */
export type Absent = void;

/** [a, b, c, d] -> (a + b) + (c + d), added in double. */
export function sumLanes(v: v128): f64 {
  return (
    f64(f32x4.extract_lane(v, 0)) +
    f64(f32x4.extract_lane(v, 1)) +
    (f64(f32x4.extract_lane(v, 2)) + f64(f32x4.extract_lane(v, 3)))
  );
}

/** a, b -> [a, b]: how a function here returns two numbers. */
export function pair(a: f64, b: f64): v128 {
  return f64x2.replace_lane(f64x2.splat(a), 1, b);
}
