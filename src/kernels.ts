/**
 * The kernels' ABI: what each kernel takes, and how its arguments move with the rows.
 *
 * Arguments are outputs, then inputs, then sizes, eps or workspace. A pointer is a byte address in the memory, a
 * multiple of 4, and 0 where an operand is absent. A kernel writes to its outputs and nowhere else.
 * @module
 */

/**
 * The arguments of each kernel that computes row by row. `y`, `sum`, `x`, `residual`, `dx`, `dy` and `add` are
 * [rows, cols], `mean` and `rstd` [rows], `weight`, `bias`, `dweight` and `dbias` [cols].
 */
export const ARGUMENTS = {
  /**
   * sum = x + residual; y, mean, rstd = layer normalization of it. Only `y` and `x` must be there. `y` and `sum` may
   * each be `x` or `residual`.
   */
  layerNormForward: "y sum mean rstd x residual weight bias rows cols eps",
  /**
   * dx = the gradient of x, plus add. `dweight` and `dbias` are added to. `dx`, `dweight`, `dbias`, `weight` and `add`
   * may be 0. `mean` and `rstd` are those of the forward pass. `workspace` has as many bytes as
   * `layerNormBackwardWorkspace` says. It may be 0 only where `dweight` and `dbias` are. `dx` may be `dy` or `add`.
   */
  layerNormBackward: "dx dweight dbias dy x mean rstd weight add rows cols workspace",
  /** sum = x + residual; y, rstd = RMS normalization of it. As `layerNormForward`, without mean and bias. */
  rmsNormForward: "y sum rstd x residual weight rows cols eps",
  /** As `layerNormBackward`, without mean and bias. */
  rmsNormBackward: "dx dweight dy x rstd weight add rows cols workspace",
} as const;

type Lists = typeof ARGUMENTS;
export type KernelName = keyof Lists;
type BackwardName = Extract<KernelName, `${string}Backward`>;

type Words<List> = List extends `${infer Word} ${infer Rest}` ? Word | Words<Rest> : List;
type Argument = Words<Lists[KernelName]> & string;
/** A number for each argument of a kernel, in the order of `ARGUMENTS`. */
type Numbers<List> = List extends `${string} ${infer Rest}` ? [number, ...Numbers<Rest>] : [number];

/** The kernels that compute row by row, and what belongs to them. */
type RowKernels = {
  [Name in KernelName]: (...args: Numbers<Lists[Name]>) => void;
} & {
  /** The bytes of workspace for a backward kernel. Of 2 GiB or more it is a negative number. */
  [Name in BackwardName as `${Name}Workspace`]: (rows: number, cols: number) => number;
} & {
  /**
   * A backward kernel for some rows of a call. Pointers are those of the first of these rows, which is row `start`
   * of `total`. The sums stay in the workspace, of `sumsWorkspace` bytes, until `addSums` adds them. Chunks of rows
   * may come in any order, but the rows of a chunk in theirs, and a multiple of `sumsGroup` at a time.
   */
  [Name in BackwardName as `${Name}Rows`]: (
    ...args: [...args: Numbers<Lists[Name]>, start: number, total: number]
  ) => void;
};

export interface Kernels extends RowKernels {
  /** The rows of a chunk. A sum over all rows is that of the sums of the chunks, whoever computes these. */
  sumsChunk(total: number): number;
  /** A call for some rows begins at a multiple of this and has a multiple of it. Only the last rows may be fewer. */
  sumsGroup(): number;
  /** The bytes of workspace that all chunks need together. */
  sumsWorkspace(total: number, cols: number): number;
  /** dweight += and dbias += the sums in the workspace. Each may be 0. */
  addSums(dweight: number, dbias: number, total: number, cols: number, workspace: number): void;
}

type Invoke = (kernels: Record<KernelName, (...args: (number | undefined)[]) => void>, a: readonly number[]) => void;

// Each in a call of its own, which engines compile to a jump. To spread a list takes them as long as a short row.
// biome-ignore format: one list a line
const INVOKE: Readonly<Record<KernelName, Invoke>> = {
  layerNormForward: (k, a) => k.layerNormForward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10]),
  layerNormBackward: (k, a) => k.layerNormBackward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]),
  rmsNormForward: (k, a) => k.rmsNormForward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]),
  rmsNormBackward: (k, a) => k.rmsNormBackward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]),
};

/** A kernel, with the place of each argument among its arguments; -1 where it takes no such argument. */
export interface Kernel extends Readonly<Record<Argument, number>> {
  readonly name: KernelName;
  /** Its place in `KERNELS`. */
  readonly index: number;
  /** What its arguments are called where it is used: the first is "out". */
  readonly names: readonly string[];
  /** How many floats each argument moves from one row to the next: 2 stands for `cols`. */
  readonly moves: readonly number[];
  /** The place of `x` in forward, of `dy` in backward: the first input, after the outputs. */
  readonly source: number;
  /** The place of `residual` or `add`. */
  readonly addend: number;
  /** Calls it with the arguments of a list, which may be longer. */
  readonly invoke: Invoke;
  /** The names of what belongs to a backward kernel. */
  readonly ofRows: `${BackwardName}Rows`;
  readonly ofWorkspace: `${BackwardName}Workspace`;
}

const all = Object.values(ARGUMENTS).join(" ").split(" ");

const moveOf = (argument: string) =>
  /mean|rstd/.test(argument) ? 1 : /^([xy]|d[xy]|sum|residual|add)$/.test(argument) ? 2 : 0;

/** Every kernel that computes row by row, in the order of `ARGUMENTS`. */
export const KERNELS = Object.entries(ARGUMENTS).map(([name, words], index) => {
  const list = words.split(" ");
  const places = Object.fromEntries(all.map((argument) => [argument, list.indexOf(argument)]));
  const source = list.findIndex((argument) => /^(x|dy)$/.test(argument));
  const addend = list.findIndex((argument) => /residual|add/.test(argument));
  const names = ["out", ...list.slice(1)];
  const own = { name, index, names, moves: list.map(moveOf), source, addend, invoke: INVOKE[name as KernelName] };
  return { ...places, ...own, ofRows: `${name}Rows`, ofWorkspace: `${name}Workspace` } as unknown as Kernel;
}) as unknown as readonly [Kernel, Kernel, Kernel, Kernel];

/** A call of a kernel that is yet to be made. There may be more arguments than the kernel takes. */
export type KernelCall = { readonly kernel: Kernel; readonly args: readonly number[] };

/** Makes a call. */
export const call = (kernels: Kernels, { kernel, args }: KernelCall) =>
  kernel.invoke(kernels as Parameters<Invoke>[0], args);

const at = (args: readonly number[], place: number) => (place < 0 ? 0 : (args[place] as number));

/** The bytes of workspace that a backward kernel needs. */
export const workspaceOf = (kernels: Kernels, kernel: Kernel, rows: number, cols: number) =>
  kernels[kernel.ofWorkspace](rows, cols) >>> 0;

/** Whether a call sums over its rows. */
export const sumsAnything = ({ kernel, args }: KernelCall) =>
  at(args, kernel.dweight) !== 0 || at(args, kernel.dbias) !== 0;

/** How many bytes each argument of a call moves from one row to the next. */
export function stridesOf({ kernel, args }: KernelCall): number[] {
  const bytes = [0, 4, 4 * at(args, kernel.cols)];
  return kernel.moves.map((move, i) => (args[i] === 0 ? 0 : (bytes[move] as number)));
}

/**
 * Makes a call for some of its rows.
 * @param sums whether it sums over its rows in a workspace, of `sumsWorkspace` bytes
 */
export function callRows(
  kernels: Kernels,
  kernelCall: KernelCall,
  start: number,
  count: number,
  sums: boolean,
  strides: readonly number[] = stridesOf(kernelCall),
): void {
  const { kernel, args } = kernelCall;
  const some = args.slice(0, strides.length).map((value, i) => value + start * (strides[i] as number));
  some[kernel.rows] = count;
  if (sums) some.push(start, at(args, kernel.rows));
  (kernels[sums ? kernel.ofRows : kernel.name] as (...args: number[]) => void)(...some);
}

/** Adds the sums of a call, once all of its rows are computed. */
export function addSums(kernels: Kernels, { kernel, args }: KernelCall): void {
  const { dweight, dbias, rows, cols, workspace } = kernel;
  kernels.addSums(at(args, dweight), at(args, dbias), at(args, rows), at(args, cols), at(args, workspace));
}
