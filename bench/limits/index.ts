// For npm run bench, not in the package: what a memory gives at most (a copy, and a read that keeps no more than one word of it), and
// the straight two-pass kernel, what layer normalization costs with no care for exactness.

export function copy(to: usize, from: usize, bytes: usize): void {
  memory.copy(to, from, bytes);
}

/** to = a + b, 16 floats per step; `count` is a multiple of that. */
export function add(to: usize, a: usize, b: usize, count: usize): void {
  const end = count << 2;
  for (let i: usize = 0; i < end; i += 64) {
    v128.store(to + i, f32x4.add(v128.load(a + i), v128.load(b + i)));
    v128.store(to + i, f32x4.add(v128.load(a + i, 16), v128.load(b + i, 16)), 16);
    v128.store(to + i, f32x4.add(v128.load(a + i, 32), v128.load(b + i, 32)), 32);
    v128.store(to + i, f32x4.add(v128.load(a + i, 48), v128.load(b + i, 48)), 48);
  }
}

/** The exclusive or of all words, 64 bytes per step; `bytes` is a multiple of that. */
export function read(from: usize, bytes: usize): i32 {
  let a = i32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  const end = from + bytes;
  for (let p = from; p < end; p += 64) {
    a = v128.xor(a, v128.load(p));
    b = v128.xor(b, v128.load(p, 16));
    c = v128.xor(c, v128.load(p, 32));
    d = v128.xor(d, v128.load(p, 48));
  }
  const all = v128.xor(v128.xor(a, b), v128.xor(c, d));
  return (
    i32x4.extract_lane(all, 0) ^ i32x4.extract_lane(all, 1) ^ i32x4.extract_lane(all, 2) ^ i32x4.extract_lane(all, 3)
  );
}

/** [a, b, c, d] -> a + b + c + d */
function total(v: v128): f32 {
  v = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1);
}

function normalize(y: usize, x: usize, weight: usize, bias: usize, mean: v128, rstd: v128): void {
  const xhat = f32x4.mul(f32x4.sub(v128.load(x), mean), rstd);
  v128.store(y, f32x4.add(f32x4.mul(xhat, v128.load(weight)), v128.load(bias)));
}

/** Forward: float32 sums over the whole row about zero, then the normalizing pass. `cols` is a multiple of 16. */
export function straight(
  y: usize, // [rows, cols]
  x: usize, // [rows, cols]
  weight: usize, // [cols]
  bias: usize, // [cols]
  rows: usize,
  cols: usize,
  eps: f32,
): void {
  const bytes = cols << 2;
  for (let row: usize = 0; row < rows; row++) {
    let s0 = f32x4.splat(0);
    let s1 = s0;
    let s2 = s0;
    let s3 = s0;
    let q0 = s0;
    let q1 = s0;
    let q2 = s0;
    let q3 = s0;
    for (let i: usize = 0; i < bytes; i += 64) {
      const p = x + i;
      const a = v128.load(p);
      const b = v128.load(p, 16);
      const c = v128.load(p, 32);
      const d = v128.load(p, 48);
      s0 = f32x4.add(s0, a);
      s1 = f32x4.add(s1, b);
      s2 = f32x4.add(s2, c);
      s3 = f32x4.add(s3, d);
      q0 = f32x4.add(q0, f32x4.mul(a, a));
      q1 = f32x4.add(q1, f32x4.mul(b, b));
      q2 = f32x4.add(q2, f32x4.mul(c, c));
      q3 = f32x4.add(q3, f32x4.mul(d, d));
    }
    const m = total(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3))) / f32(cols);
    const squares = total(f32x4.add(f32x4.add(q0, q1), f32x4.add(q2, q3))) / f32(cols);
    const mean = f32x4.splat(m);
    const rstd = f32x4.splat(<f32>1 / Mathf.sqrt(squares - m * m + eps));
    for (let i: usize = 0; i < bytes; i += 64) {
      normalize(y + i, x + i, weight + i, bias + i, mean, rstd);
      normalize(y + i + 16, x + i + 16, weight + i + 16, bias + i + 16, mean, rstd);
      normalize(y + i + 32, x + i + 32, weight + i + 32, bias + i + 32, mean, rstd);
      normalize(y + i + 48, x + i + 48, weight + i + 48, bias + i + 48, mean, rstd);
    }
    x += bytes;
    y += bytes;
  }
}
