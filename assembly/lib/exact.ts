// Backward of one row in double: right for any finite row. It computes the mean anew, and also rstd where that is not a
// normal float.
//
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + add        g = dy * weight, xhat = (x - mean) * rstd
//
// A row is read twice. The first pass sums d, d^2, g and g * d, where d = x - the first number of the row. The second
// writes dx, and adds to dweight and dbias. About the first number, nearly equal numbers keep all their digits. Equal
// ones have a variance of 0.

// 2^-126, the smallest normal float: below it, a float doesn't have all of its digits.
const NORMAL: f64 = 1.1754943508222875e-38;

/** dx =, totals += of one row. */
export function exactRow(
  dx: usize, // [cols] or 0
  totals: usize, // [2, cols], double: of dweight, and of dbias; or 0
  dy: usize, // [cols]
  x: usize, // [cols]
  weight: usize, // [cols] or 0
  add: usize, // [cols] or 0
  cols: usize,
  rstd: f32,
  centered: bool, // whether there is a mean
): void {
  const end = cols << 2;
  const n = f64(cols);
  const first = centered ? f64(load<f32>(x)) : 0;
  let values: f64 = 0;
  let squares: f64 = 0;
  let s: f64 = 0;
  let q: f64 = 0;
  for (let i: usize = 0; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - first;
    const g = gradient(dy, weight, i);
    values += d;
    squares += d * d;
    s += g;
    q += g * d;
  }

  const delta = centered ? values / n : 0;
  const a = centered ? s / n : 0;
  let r = f64(rstd);
  // eps is not known here. Where rstd is too small, eps is nothing beside the variance. Where it is infinite, eps is
  // taken as 0.
  if (!(r >= NORMAL && r < Infinity)) r = 1 / Math.sqrt(squares / n - delta * delta);
  const c = (q / n - a * delta) * r * r;
  for (let i: usize = 0; i < end; i += 4) {
    const d = f64(load<f32>(x + i)) - first - delta;
    if (totals) {
      const t = totals + (i << 1);
      const g = f64(load<f32>(dy + i));
      store<f64>(t, load<f64>(t) + g * (d * r));
      store<f64>(t + (end << 1), load<f64>(t + (end << 1)) + g);
    }
    if (!dx) continue;
    const v = f32(r * (gradient(dy, weight, i) - d * c - a));
    store<f32>(dx + i, add ? v + load<f32>(add + i) : v);
  }
}

/** g of one column. */
function gradient(dy: usize, weight: usize, i: usize): f64 {
  const d = f64(load<f32>(dy + i));
  return weight ? d * f64(load<f32>(weight + i)) : d;
}
