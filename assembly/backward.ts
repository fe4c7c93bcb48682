// Layer normalization, backward, from the statistics of the forward pass: how the rows are summed up.
//
//   dx = the gradient of x, row by row: backward-rows.ts
//   dweight += sum over rows of dy * xhat        dbias += sum over rows of dy
//
// dx is assigned (=), dweight and dbias are added to (+=). dx may be dy; no other overlap is allowed.
//
// The sums over rows run in float32 for a part of PART rows, and the parts are added in double: float32 alone would drift, by
// a rounding of the total for each row. The parts make at most CHUNKS chunks, each with a total of its own, and the chunks' totals are
// added up in their order. Parts and chunks are fixed by the number of rows, and so is every sum, whichever thread takes which chunk.

import { backwardRows } from "./backward-rows";
import { addPart, addTotal, addTotals } from "./gradients";

// Rows whose dweight and dbias are summed in float32.
const PART: usize = 64;
// Enough for sixteen threads to share, and few enough for one to add up: at 768 columns in 20 microseconds.
const CHUNKS: usize = 32;

/** The rows of a chunk, a multiple of PART; the last chunk may have fewer. */
export function layerNormBackwardChunk(rows: usize): usize {
  const parts = (rows + PART - 1) / PART;
  return ((parts + CHUNKS - 1) / CHUNKS) * PART;
}

/** The bytes of workspace that `layerNormBackward` needs to add the parts in double; 0 where there is but one. */
export function layerNormBackwardWorkspace(rows: usize, cols: usize): usize {
  // For dweight and for dbias: a total and a chunk's total in double, and the sum of a part in float32.
  return rows > PART ? cols * 40 : 0;
}

export function layerNormBackward(
  dx: usize, // [rows, cols], or 0: not wanted
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols], or 0: all ones
  rows: usize,
  cols: usize,
  workspace: usize, // as layerNormBackwardWorkspace says, or 0: sum the rows in float32 throughout
): void {
  if (!workspace || rows <= PART || !(dweight | dbias)) {
    backwardRows(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols);
    return;
  }
  const stride = cols << 2;
  const chunk = layerNormBackwardChunk(rows);
  const totals = workspace;
  // A chunk that is one part needs no total of its own.
  const own = chunk > PART ? totals + (stride << 2) : totals;
  const part = workspace + (stride << 3);
  memory.fill(totals, 0, stride << 2);

  // a chunk per step
  for (let start: usize = 0; start < rows; start += chunk) {
    if (own !== totals) memory.fill(own, 0, stride << 2);
    sumChunk(dx, dweight, dbias, dy, x, mean, rstd, weight, rows, cols, start, own, part);
    if (own !== totals) addTotals(totals, own, cols << 1);
  }
  if (dweight) addTotal(dweight, totals, cols);
  if (dbias) addTotal(dbias, totals + (stride << 1), cols);
}

/** Of the chunk that starts at a row: dx =, and totals += the sums of its parts. Pointers are those of the whole. */
export function sumChunk(
  dx: usize, // [rows, cols] or 0
  dweight: usize, // not written to here; 0: not wanted
  dbias: usize, // the same
  dy: usize, // [rows, cols]
  x: usize, // [rows, cols]
  mean: usize, // [rows]
  rstd: usize, // [rows]
  weight: usize, // [cols] or 0
  rows: usize,
  cols: usize,
  start: usize,
  totals: usize, // [2, cols], double
  part: usize, // [2, cols], overwritten
): void {
  const stride = cols << 2;
  const end = min(start + layerNormBackwardChunk(rows), rows);

  // a part per step
  for (let row = start; row < end; row += PART) {
    const at = row * stride;
    memory.fill(part, 0, stride << 1);
    backwardRows(
      dx && dx + at,
      dweight && part,
      dbias && part + stride,
      dy + at,
      x + at,
      mean + (row << 2),
      rstd + (row << 2),
      weight,
      min(end - row, PART),
      cols,
    );
    addPart(totals, part, cols << 1);
  }
}
