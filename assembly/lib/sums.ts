// The sums over rows, dweight and dbias: where they are kept, and in which order they are added.
//
// A sum runs in float32 for a group of rows only. Each addition may err by half a unit of the sum, and they may all
// err the same way. The groups of a part are added in float32, the parts in double. The parts make at most CHUNKS
// chunks. Each chunk has totals of its own, and the totals of the chunks are added in their order. All of these depend
// on the operands of the call and their shape. So every sum has the same bits for one thread or many. It also has them
// for rows that come all at once or some groups at a time.
//
// A chunk's slot in the workspace: its totals in double, then the groups of its current part in float32, and one more
// group, each for dweight and dbias.

/** Rows of a group: six pairs. Of rows that are added one after the other, half as many. */
export const GROUP: usize = 12;
/** Groups after which they are added to the totals. */
export const GROUPS: usize = 4;
const PART: usize = GROUPS * GROUP;
// Enough for sixteen threads to share, and few enough to add up: at 768 columns in 20 microseconds.
const CHUNKS: usize = 32;
/** Bytes of a slot for each column: totals, and five groups. */
export const SLOT: usize = 56;

/** A call for some rows begins at a multiple of this and has a multiple of it. Only the last rows may be fewer. */
export function sumsGroup(): usize {
  return GROUP;
}

/** The rows of a chunk, a multiple of PART; the last chunk may have fewer. */
export function sumsChunk(rows: usize): usize {
  const parts = (rows + PART - 1) / PART;
  return max((parts + CHUNKS - 1) / CHUNKS, 2) * PART;
}

/** The chunks of a call. */
function chunksOf(rows: usize): usize {
  const chunk = sumsChunk(rows);
  return (rows + chunk - 1) / chunk;
}

/** The bytes of workspace for all chunks together. */
export function sumsWorkspace(rows: usize, cols: usize): usize {
  return chunksOf(rows) * cols * SLOT;
}

/** The bytes of workspace for one chunk after the other: the first has a slot of its own, the others share one. */
export function workspaceOf(rows: usize, cols: usize): usize {
  return min(chunksOf(rows), 2) * cols * SLOT;
}

/** dweight += and dbias += the sums of all chunks. */
export function addSums(
  dweight: usize, // [cols], or 0: not wanted
  dbias: usize, // [cols], or 0: not wanted
  rows: usize,
  cols: usize,
  workspace: usize, // as sumsWorkspace says
): void {
  const end = workspace + sumsWorkspace(rows, cols);
  const slot = cols * SLOT;

  // a chunk per step
  for (let other = workspace + slot; other < end; other += slot) addTotals(workspace, other, cols);
  if (rows) addTo(dweight, dbias, workspace, cols);
}

/** dweight += and dbias += the totals, from double to float32. */
export function addTo(
  dweight: usize, // [cols] or 0
  dbias: usize, // [cols] or 0
  totals: usize, // [2, cols], double
  cols: usize,
): void {
  if (dweight) round(dweight, totals, cols);
  if (dbias) round(dbias, totals + (cols << 3), cols);
}

/** sum += totals, from double to float32. */
function round(
  sum: usize, // [cols]
  totals: usize, // [cols], double
  cols: usize,
): void {
  const end4 = (cols & ~3) << 2;
  const end = cols << 2;
  let i: usize = 0;

  // 4 per step
  for (; i < end4; i += 16) {
    const t = totals + (i << 1);
    const v = v128.load(sum + i);
    const low = f64x2.add(f64x2.promote_low_f32x4(v), v128.load(t));
    const high = f64x2.add(f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 0, 1)), v128.load(t, 16));
    v128.store(sum + i, v128.shuffle<f64>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2));
  }

  // tail, 1 per step
  for (; i < end; i += 4) store<f32>(sum + i, f32(f64(load<f32>(sum + i)) + load<f64>(totals + (i << 1))));
}

/** totals += the groups of a part, from float32 to double. */
export function addPart(
  totals: usize, // [2, cols], double
  part: usize, // [groups, 2, cols]
  groups: usize, // 1 to 4
  width: usize, // the bytes to add
  cols: usize,
): void {
  const step = cols << 3;
  const end = width & ~15;
  let i: usize = 0;

  // 4 per step
  for (; i < end; i += 16) {
    const p = part + i;
    const t = totals + (i << 1);
    let v = v128.load(p);
    if (groups > 1) v = f32x4.add(v, v128.load(p + step));
    if (groups > 2) v = f32x4.add(v, v128.load(p + step * 2));
    if (groups > 3) v = f32x4.add(v, v128.load(p + step * 3));
    v128.store(t, f64x2.add(v128.load(t), f64x2.promote_low_f32x4(v)));
    v = v128.shuffle<f32>(v, v, 2, 3, 0, 1);
    v128.store(t, f64x2.add(v128.load(t, 16), f64x2.promote_low_f32x4(v)), 16);
  }

  // tail, 1 per step
  for (; i < width; i += 4) {
    const t = totals + (i << 1);
    let v = load<f32>(part + i);
    for (let g: usize = 1; g < groups; g++) v += load<f32>(part + step * g + i);
    store<f64>(t, load<f64>(t) + f64(v));
  }
}

/** totals += more, both double. */
export function addTotals(
  totals: usize, // [2, cols], double
  more: usize, // [2, cols], double
  cols: usize,
): void {
  const end = cols << 4;

  // 2 per step
  for (let i: usize = 0; i < end; i += 16)
    v128.store(totals + i, f64x2.add(v128.load(totals + i), v128.load(more + i)));
}
