/**
 * The kernels' ABI: what each kernel takes, and how its arguments move with the rows.
 *
 * Arguments are outputs, then inputs, then sizes, then eps or workspace. A pointer is a byte address in the memory, a
 * multiple of 4, and 0 where an operand is absent. A kernel writes to its outputs and nowhere else.
 * @module
 */

/** A byte address in the memory. */
type Ptr = number;

export interface Kernels {
  /**
   * sum = x + residual; y, mean, rstd = layer normalization of it. `y`, `sum`, `x` and `residual` are [rows, cols],
   * `mean` and `rstd` [rows], `weight` and `bias` [cols]. Only `y` and `x` must be there. `y` and `sum` may each be
   * `x` or `residual`.
   */
  // biome-ignore format: the table below has the same arguments
  layerNormForward(y: Ptr, sum: Ptr, mean: Ptr, rstd: Ptr, x: Ptr, residual: Ptr, weight: Ptr, bias: Ptr, rows: number, cols: number, eps: number): void;
  /**
   * dx = the gradient of x, plus add. `dweight` and `dbias`, [cols], are added to. `dx`, `dweight`, `dbias`, `weight`
   * and `add` may be 0. `mean` and `rstd` are those of the forward pass.
   * `workspace` has as many bytes as `layerNormBackwardWorkspace` says. It may be 0 only where `dweight` and `dbias`
   * are. `dx` may be `dy` or `add`.
   */
  // biome-ignore format: the table below has the same arguments
  layerNormBackward(dx: Ptr, dweight: Ptr, dbias: Ptr, dy: Ptr, x: Ptr, mean: Ptr, rstd: Ptr, weight: Ptr, add: Ptr, rows: number, cols: number, workspace: Ptr): void;
  /** The bytes of workspace for `layerNormBackward`. Of 2 GiB or more it is a negative number. */
  layerNormBackwardWorkspace(rows: number, cols: number): number;
  /**
   * `layerNormBackward` of some rows of a call. Pointers are those of the first of these rows, which is row `start`
   * of `total`. The sums stay in the workspace, of `sumsWorkspace` bytes, until `addSums` adds them. Chunks of rows
   * may come in any order, but the rows of a chunk in theirs, and a multiple of `sumsGroup` at a time.
   */
  layerNormBackwardRows(...args: [...Parameters<Kernels["layerNormBackward"]>, start: number, total: number]): void;
  /** sum = x + residual; y, rstd = RMS normalization of it. As `layerNormForward`, without mean and bias. */
  // biome-ignore format: the table below has the same arguments
  rmsNormForward(y: Ptr, sum: Ptr, rstd: Ptr, x: Ptr, residual: Ptr, weight: Ptr, rows: number, cols: number, eps: number): void;
  /** As `layerNormBackward`, without mean and bias. */
  // biome-ignore format: the table below has the same arguments
  rmsNormBackward(dx: Ptr, dweight: Ptr, dy: Ptr, x: Ptr, rstd: Ptr, weight: Ptr, add: Ptr, rows: number, cols: number, workspace: Ptr): void;
  /** The bytes of workspace for `rmsNormBackward`. */
  rmsNormBackwardWorkspace(rows: number, cols: number): number;
  /** `rmsNormBackward` of some rows of a call, as `layerNormBackwardRows` is. */
  rmsNormBackwardRows(...args: [...Parameters<Kernels["rmsNormBackward"]>, start: number, total: number]): void;
  /** The rows of a chunk. A sum over all rows is that of the sums of the chunks, whoever computes these. */
  sumsChunk(total: number): number;
  /** A call for some rows begins at a multiple of this and has a multiple of it. Only the last rows may be fewer. */
  sumsGroup(): number;
  /** The bytes of workspace that all chunks need together. */
  sumsWorkspace(total: number, cols: number): number;
  /** dweight += and dbias += the sums in the workspace. Each may be 0. */
  addSums(dweight: Ptr, dbias: Ptr, total: number, cols: number, workspace: Ptr): void;
}

/** How many floats an argument moves from one row to the next: `cols`, 1, or 0. */
const MATRIX = 2;
const PER_ROW = 1;
const MOVES: Record<string, number> = {
  y: MATRIX,
  sum: MATRIX,
  x: MATRIX,
  residual: MATRIX,
  dx: MATRIX,
  dy: MATRIX,
  add: MATRIX,
  mean: PER_ROW,
  rstd: PER_ROW,
};

type Name = "layerNormForward" | "layerNormBackward" | "rmsNormForward" | "rmsNormBackward";

/** A kernel that computes row by row. */
export interface Kernel {
  name: Name;
  /** Its place in `KERNELS`. */
  index: number;
  moves: readonly number[];
  /** The places of rows and cols among the arguments. */
  rows: number;
  cols: number;
  /** Which arguments are summed over the rows, dweight and dbias; -1 where there is none. */
  sums: readonly [number, number];
  workspace: number;
}

function kernel([name, list]: [Name, string], index: number): Kernel {
  const names = list.split(" ");
  return {
    name,
    index,
    moves: names.map((argument) => (Object.hasOwn(MOVES, argument) ? (MOVES[argument] as number) : 0)),
    rows: names.indexOf("rows"),
    cols: names.indexOf("cols"),
    sums: [names.indexOf("dweight"), names.indexOf("dbias")],
    workspace: names.indexOf("workspace"),
  };
}

/** Every kernel that computes row by row, with its arguments in their order. */
export const KERNELS: readonly Kernel[] = (
  [
    ["layerNormForward", "y sum mean rstd x residual weight bias rows cols eps"],
    ["layerNormBackward", "dx dweight dbias dy x mean rstd weight add rows cols workspace"],
    ["rmsNormForward", "y sum rstd x residual weight rows cols eps"],
    ["rmsNormBackward", "dx dweight dy x rstd weight add rows cols workspace"],
  ] as [Name, string][]
).map(kernel);

/** A call of a kernel that is yet to be made. */
export interface KernelCall {
  kernel: Kernel;
  args: readonly number[];
}

type Recorder = Record<Name, (...args: number[]) => KernelCall>;

/** In place of the kernels: each function returns the call instead of making it. */
export const RECORD = Object.fromEntries(
  KERNELS.map((kernel) => [kernel.name, (...args: number[]): KernelCall => ({ kernel, args })]),
) as Recorder;

type Function = (...args: readonly number[]) => void;

/** Makes a call. */
export function call(kernels: Kernels, { kernel, args }: KernelCall): void {
  (kernels[kernel.name] as Function)(...args);
}

/** Whether a call sums over its rows in a workspace. */
export function sumsRows({ kernel, args }: KernelCall): boolean {
  return sumsAnything(kernel, args) && args[kernel.workspace] !== 0;
}

/** Whether a call sums over its rows. */
export function sumsAnything({ sums }: Kernel, args: readonly number[]): boolean {
  return sums.some((index) => index >= 0 && args[index] !== 0);
}

/**
 * Makes a call for some of its rows.
 * @param sums whether it sums over its rows in a workspace, of `sumsWorkspace` bytes
 * @param fixed pointers that are those of the first of these rows already
 */
export function callRows(
  kernels: Kernels,
  { kernel, args }: KernelCall,
  start: number,
  count: number,
  sums: boolean,
  fixed?: readonly number[],
): void {
  const { name, moves, rows, cols } = kernel;
  const strides = [0, start * 4, start * 4 * (args[cols] as number)];
  const moved: number[] = [];
  for (let i = 0; i < moves.length; i++) {
    const value = args[i] as number;
    const stays = value === 0 || fixed?.includes(value);
    moved.push(stays ? value : value + (strides[moves[i] as number] as number));
  }
  moved[rows] = count;
  if (sums) (kernels[`${name}Rows` as "layerNormBackwardRows"] as Function)(...moved, start, args[rows] as number);
  else (kernels[name] as Function)(...moved);
}

/** Adds the sums of a call, once all of its rows are computed. */
export function addSums(kernels: Kernels, { kernel, args }: KernelCall): void {
  const [dweight, dbias] = kernel.sums;
  const at = (index: number) => (index < 0 ? 0 : (args[index] as number));
  kernels.addSums(at(dweight), at(dbias), at(kernel.rows), at(kernel.cols), at(kernel.workspace));
}
