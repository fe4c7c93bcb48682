// Fuzzes the public API: random calls with right and wrong arguments, in any order, on runtimes that have enough memory, too
// little, or an allocator that fails and grows at random. Checked at each call: errors are documented ones and leave all as
// it was, nothing is written but the results, and those agree with float64. After each iteration: no memory is lost.
//
//   npx tsx scripts/fuzz.ts [--seconds 60] [--seed S] [--iterations N] [--first I]
//
// An iteration depends on the seed and its number alone; a failure prints the options that repeat it.

import { parseArgs } from "node:util";
import { runInNewContext } from "node:vm";
import {
  LayerNorm,
  type LinearMemory,
  layerNorm,
  layerNormBackward,
  layerNormWithStats,
  Parameter,
  Runtime,
  Tensor,
} from "../src/index.js";
import { normal, uniform } from "../test/helpers.js";
import { type Case, errorsOf, LIMITS, type Results } from "../test/reference.js";

const string = { type: "string" } as const;
const { values: given } = parseArgs({ options: { seconds: string, seed: string, iterations: string, first: string } });
const { seconds = "60", seed = Math.floor(Math.random() * 2 ** 32), iterations = "Infinity", first = "0" } = given;
const CALLS = 60;
const ARENA = 2048;
const DOCUMENTED =
  /^(LayerNorm(\.(forward|backward|train|loadStateDict))?|Tensor|layerNorm(WithStats|Backward)?|Runtime\.allocate)(:| is| was) /;

// biome-ignore lint/suspicious/noExplicitAny: the arguments are wrong on purpose
type Any = any;
type Floats = ArrayLike<number>;
const counts = { calls: 0, TypeError: 0, RangeError: 0, "out of memory": 0, compared: 0 };

let random = uniform(0);
const below = (n: number) => Math.floor(random() * n);
const chance = (p: number) => random() < p;
const pick = <T>(list: readonly T[]) => list[below(list.length)] as T;
const PAGE = 65536;
const sizeOf = (shape: readonly number[]) => shape.reduce((size, dimension) => size * dimension, 1);
const finite = (values: Floats) => Array.from(values).every(Number.isFinite);
const isFloats = (value: unknown): value is Float32Array =>
  Object.prototype.toString.call(value) === "[object Float32Array]";
/** Lists and other arrays of floats are operands, too, with the numbers that they have as float32. */
const isNumbers = (value: unknown) =>
  /Float(64|16)Array/.test(Object.prototype.toString.call(value)) ||
  (Array.isArray(value) && [...value].every((element) => typeof element === "number"));
const isLive = (value: unknown) => (value instanceof Tensor ? !value.disposed : isFloats(value) || isNumbers(value));
const same = (a: Any, b: Any) => Buffer.from(a.slice().buffer).equals(Buffer.from(b.slice().buffer));
/** A copy; an array that is detached counts as empty. */
function floatsOf(operand: Any): Float32Array | null {
  if (!operand || (operand instanceof Tensor && operand.disposed)) return null;
  const floats = operand instanceof Tensor ? operand.data : isNumbers(operand) ? Float32Array.from(operand) : operand;
  return !isFloats(floats) ? null : floats.length === 0 ? new Float32Array(0) : floats.slice();
}

class Failure extends Error {}
function check(holds: boolean, message: () => string): void {
  if (!holds) throw new Failure(message());
}

/** Rows, each of a kind of its own. */
function values(size: number, cols: number): Float32Array<ArrayBuffer> {
  const all = normal(size, below(2 ** 32));
  for (let start = 0; start < size; start += cols) {
    const row = all.subarray(start, start + cols);
    const scale = pick([1, 1, 1, 1, 1e-3, 1e3, 1e-42, 1e20, 1e37]);
    const offset = pick([0, 0, 0, 1, 100, -1e4]) * scale;
    const one = chance(0.1) ? below(cols) : -1;
    const constant = chance(0.1);
    for (let i = 0; i < row.length; i++) row[i] = (constant ? 1 : (row[i] as number)) * scale + offset;
    if (one >= 0) row[one] = pick([NaN, Infinity, -Infinity, 1e6, 0]);
  }
  return all;
}

const foreign = runInNewContext("Float32Array") as Float32ArrayConstructor;
function junk(): Any {
  const symbol = Symbol("junk");
  const wrong = [
    null,
    undefined,
    0,
    -1,
    NaN,
    1.5,
    2 ** 600,
    "",
    "x".repeat(99),
    true,
    symbol,
    8n,
    {},
    [],
    [[1]],
    ["1"],
    new Array(2),
  ];
  const more = [
    [1, NaN],
    [2 ** 600, 2 ** 600, 0],
    Object.create(null),
    new Float64Array(8),
    new DataView(new ArrayBuffer(8)),
  ];
  return pick([
    ...wrong,
    ...more,
    () => 1,
    new BigInt64Array(3),
    new Float32Array(7),
    new foreign(below(40)),
    Runtime.default,
  ]);
}

function show(value: Any): string {
  if (value instanceof Tensor) return value.disposed ? "disposed Tensor" : `Tensor[${value.shape}]@${value.pointer}`;
  if (ArrayBuffer.isView(value))
    return `${value.constructor.name}(${(value as Float32Array).length})@${value.byteOffset}`;
  if (Array.isArray(value)) return `[${value.slice(0, 9).map(show)}]`;
  if (typeof value !== "object" || value === null) return String(value).slice(0, 20);
  return `{${Object.entries(value instanceof Runtime ? {} : value).map(([key, v]) => `${key}: ${show(v)}`)}}`;
}

const rowOf = (values: Float32Array, row: number, cols: number) => values.subarray(row * cols, (row + 1) * cols);

/** y against float64, within its limits; NaN in the row of what is no number. */
function checkForward(
  y: Float32Array,
  x: Float32Array,
  weight: Floats | null,
  bias: Floats | null,
  cols: number,
  eps: number,
) {
  const rows = x.length / cols;
  for (let row = 0; row < rows; row++) {
    const own = rowOf(x, row, cols);
    const got = rowOf(y, row, cols);
    check(finite(own) || got.every((v) => Number.isNaN(v)), () => `y of [${own}] is [${got}], expected NaN`);
  }
  checkErrors({ y }, { x, weight, bias, rows, cols, eps });
}

/** dx, dweight and dbias likewise. */
function checkBackward(got: Any, dy: Float32Array, x: Float32Array, weight: Floats | null, cols: number, eps: number) {
  const rows = x.length / cols;
  for (let row = 0; row < rows; row++) {
    const [own, d, dx] = [rowOf(x, row, cols), rowOf(dy, row, cols), rowOf(got.dx, row, cols)];
    const spoilt = finite(own) ? finite(d) || !dx.some((v) => Number.isFinite(v)) : dx.every((v) => Number.isNaN(v));
    check(spoilt, () => `dx of x = [${own}], dy = [${d}] is [${dx}], expected NaN`);
  }
  const { before, ...results } = got;
  // Without rows and weight nothing tells the columns, and of an eps beyond 2^252 rstd is no normal float32.
  if (rows > 0 && eps <= 2 ** 252) checkErrors(results, { x, dy, weight, rows, cols, eps }, before);
}

function checkErrors(got: Partial<Results>, input: Case, before?: Any): void {
  for (const [name, units] of Object.entries(errorsOf(got, input, before)) as [keyof Results, number][]) {
    counts.compared++;
    check(
      units <= LIMITS.layerNorm[name],
      () =>
        `${name} is ${units} units off: [${Array.from(got[name] ?? []).slice(0, 40)}] of ${JSON.stringify(input).slice(0, 2000)}`,
    );
  }
}

/** A runtime, and what can be seen of its memory from outside. */
interface Home {
  runtime: Runtime;
  /** Throws when something was written where nothing lies. */
  intact(): void;
  /** Throws when not all has been given back. */
  empty(): void;
}

function managedHome(maximum: number): Home {
  const runtime = Runtime.create({ memory: new WebAssembly.Memory({ initial: 1, maximum }) });
  const largestBlock = () => {
    let [fits, fails] = [0, maximum * PAGE];
    while (fails - fits > 16) {
      const middle = (fits + fails) >> 1;
      try {
        runtime.free(runtime.allocate(middle));
        fits = middle;
      } catch {
        fails = middle;
      }
    }
    return fits;
  };
  // The small memory is grown to its end by the first search; in the large one growth is what is to happen.
  const search = maximum < 16 ? largestBlock : () => 0;
  search();
  const room = search();
  return {
    runtime,
    intact: () => {},
    empty: () => check(search() === room, () => `room for ${search()} bytes is left of ${room}`),
  };
}

/** Over an allocator of its own, which fails and grows at random: outside of its blocks all must hold the pattern. */
function guardedHome(): Home {
  const [pattern, guard, maximum] = [0xa5, 32, 8];
  const memory = new WebAssembly.Memory({ initial: 1, maximum });
  const blocks = new Map<number, number>();
  let full = false;
  const clean = Buffer.alloc(maximum * PAGE, pattern);
  const clear = (from: number, to: number) => new Uint8Array(memory.buffer).fill(pattern, from, to);
  const grow = (pages: number) => {
    const end = memory.buffer.byteLength;
    if (end + pages * PAGE > maximum * PAGE) return false;
    memory.grow(pages);
    clear(end, end + pages * PAGE);
    return true;
  };
  clear(0, PAGE);
  const allocate = (bytes: number): number => {
    if (full || chance(0.03)) return 0;
    if (chance(0.05)) grow(1);
    let at = guard + 4 * below(16);
    for (const [pointer, size] of [...blocks].sort(([a], [b]) => a - b)) {
      if (at + bytes + guard <= pointer) break;
      at = Math.max(at, pointer + Math.ceil(size / 4) * 4 + guard);
    }
    const missing = at + bytes + guard - memory.buffer.byteLength;
    if (missing > 0 && !grow(Math.ceil(missing / PAGE))) return 0;
    blocks.set(at, bytes);
    return at;
  };
  const free = (pointer: number) => {
    check(blocks.has(pointer), () => `free(${pointer}), which is no block`);
    clear(pointer, pointer + (blocks.get(pointer) as number));
    blocks.delete(pointer);
  };
  const intact = () => {
    const bytes = Buffer.from(memory.buffer.slice(0));
    for (const [pointer, size] of blocks) bytes.fill(pattern, pointer, pointer + size);
    const same = bytes.equals(clean.subarray(0, bytes.length));
    check(same, () => `written outside of all blocks, at ${bytes.findIndex((byte) => byte !== pattern)}`);
  };
  const runtime = Runtime.create({ memory, allocate, free });
  const empty = () => {
    // A full memory makes the runtime give back the block that it keeps between calls.
    full = true;
    try {
      runtime.allocate(4);
    } catch {}
    full = false;
    check(blocks.size === 0, () => `${blocks.size} blocks are left`);
  };
  return { runtime, intact, empty };
}

/** Bytes of a memory, which survive that it grows, or of the buffer of an array. */
interface Range {
  owner: LinearMemory | ArrayBufferLike;
  start: number;
  end: number;
}
const bytesOf = ({ owner, start, end }: Range) =>
  new Uint8Array("grow" in owner && "buffer" in owner ? owner.buffer : (owner as ArrayBuffer), start, end - start);

interface Module {
  ln: LayerNorm;
  home: Home;
  /** The x that forward kept for backward, and what it held. */
  saved?: { x: unknown; held: Float32Array; shape: readonly number[] } | undefined;
}

/** One iteration: what lives in it, and the calls on that. */
class Round {
  readonly homes = [managedHome(1024), managedHome(2), guardedHome()];
  tensors: Tensor[] = [];
  modules: Module[] = [];
  readonly dead: Tensor[] = [];
  readonly stale: Float32Array[] = [];
  readonly log: string[] = [];
  /** Memory that isn't the tensors', for those with a pointer; 0 where there was no room. */
  readonly arenas = this.homes.map(
    ({ runtime }) => this.attempt("allocate", [ARENA], [], () => runtime.allocate(ARENA)) ?? 0,
  );
  /** Most things fit each other, by their last dimensions. */
  readonly trailing = pick([[1], [2], [3], [5], [8], [17], [33], [100], [2, 3], [4, 4]]);

  rangesOf(thing: Any): Range[] {
    if (thing instanceof Tensor) {
      if (thing.disposed) return [];
      const range = { owner: thing.runtime.memory, start: thing.pointer, end: thing.pointer + thing.size * 4 };
      return [range, ...(thing instanceof Parameter ? this.rangesOf(thing.grad) : [])];
    }
    if (!isFloats(thing) || thing.length === 0) return [];
    const runtimes = [...this.homes.map(({ runtime }) => runtime), Runtime.default];
    const home = runtimes.find(({ memory }) => memory.buffer === thing.buffer);
    const start = thing.byteOffset;
    return [{ owner: home?.memory ?? thing.buffer, start, end: start + thing.byteLength }];
  }

  /** Calls; where it throws all must be as it was, otherwise all but what lies in `writes`. */
  attempt<T>(what: string, args: readonly unknown[], writes: readonly unknown[], call: () => T): T | undefined {
    this.log.push(`${what}(${args.map(show).join(", ")})`);
    counts.calls++;
    const allowed = writes.flatMap((thing) => this.rangesOf(thing));
    const alive = [...this.tensors, ...this.modules.flatMap(({ ln }) => [ln.weight, ln.bias]), ...args];
    const kept = alive.flatMap((thing) =>
      this.rangesOf(thing).map((range) => ({ thing, range, was: bytesOf(range).slice() })),
    );
    let threw = "";
    let result: T | undefined;
    try {
      result = call();
    } catch (error) {
      const kind = (error as Error)?.constructor?.name as "TypeError" | "RangeError";
      threw = `${kind}: ${(error as Error)?.message}`;
      check(/^(Type|Range)Error$/.test(kind) && DOCUMENTED.test((error as Error).message), () => `threw ${threw}`);
      counts[/out of memory/.test(threw) ? "out of memory" : kind]++;
    }
    this.log.push(`  ${threw || show(result)}`);
    for (const home of this.homes) home.intact();
    for (const { thing, range, was } of kept) {
      if (thing instanceof Tensor && thing.disposed) continue;
      const now = bytesOf(range);
      if (Buffer.compare(now, was) === 0) continue;
      const hit = (at: number) => !threw && allowed.some((a) => a.owner === range.owner && a.start <= at && at < a.end);
      const stray = was.findIndex((byte, i) => byte !== now[i] && !hit(range.start + i));
      check(stray < 0, () => `byte ${stray} of what lies at ${range.start} was changed ${threw && "though it threw"}`);
    }
    return result;
  }

  shape(): Any {
    if (chance(0.02)) return junk();
    if (chance(0.02)) return [30000 / sizeOf(this.trailing), ...this.trailing].map(Math.ceil);
    return [...pick([[], [1], [2], [0], [3], [2, 2], [70]]), ...(chance(0.95) ? this.trailing : [below(9)])];
  }

  tensor(home: Home, shape: Any = this.shape()): Any {
    const found = this.tensors.filter((t) => t.runtime === home.runtime && show(t.shape) === show(shape));
    if (found.length > 0 && chance(0.5)) return pick(found);
    const fits = Array.isArray(shape) && sizeOf(shape) < 50_000;
    const data = chance(0.1)
      ? junk()
      : fits && chance(0.9)
        ? values(
            sizeOf(shape),
            this.trailing.reduce((a, b) => a * b),
          )
        : undefined;
    const given: Any = { runtime: chance(0.02) ? junk() : home.runtime };
    const arena = this.arenas[this.homes.indexOf(home)] as number;
    const room = fits ? ARENA - sizeOf(shape) * 4 : -1;
    // Only what is in the arena is ours to look at; the others are wrong.
    if (arena && room >= 0 && given.runtime === home.runtime && chance(0.2))
      given.pointer = arena + 4 * below(room / 4 + 1);
    else if (chance(0.02)) given.pointer = pick([0, 2, -4, 2 ** 40, NaN, "4", null, {}]);
    if (chance(0.02)) given.Runtime = 1;
    const target =
      given.pointer && room >= 0 && data ? new Float32Array(home.runtime.memory.buffer, arena, ARENA / 4) : null;
    const made = this.attempt("new Tensor", [shape, data, given], [target], () => new Tensor(shape, data, given));
    if (made) this.tensors.push(made);
    return made ?? junk();
  }

  /** An argument: mostly a Tensor or array of a shape, else another one or something wrong. */
  operand(home: Home, shape?: Any): Any {
    const kind = random();
    if (kind < 0.5) return this.tensor(home, shape);
    const size = Array.isArray(shape) ? sizeOf(shape) : sizeOf(this.trailing) * below(4);
    if (kind < 0.8) return values(size < 50_000 ? size : 3, sizeOf(this.trailing));
    if (kind < 0.9) {
      const views = this.tensors.map((t) => t.data).filter((view) => shape === undefined || view.length === size);
      if (views.length > 0) return pick(views);
    }
    if (kind < 0.93) return this.tensor(pick(this.homes), shape);
    const gone = this.stale.filter((view) => view.length === 0);
    return pick([junk(), pick(this.dead), pick(gone), values(size + 1, size + 1), this.tensor(home)]);
  }

  outOption(home: Home, x: Any): Any {
    if (chance(0.6)) return undefined;
    if (chance(0.1)) return pick([junk(), { Out: x }]);
    return {
      out: chance(0.4) ? x : x instanceof Tensor ? this.tensor(home, x.shape) : this.operand(home, [x?.length ?? 1]),
    };
  }

  newModule(): void {
    const home = pick(this.homes);
    const shape: Any = chance(0.05) ? junk() : chance(0.9) ? this.trailing : below(9);
    const given: Any = { runtime: home.runtime };
    if (chance(0.5)) given.eps = pick([0, 1e-5, 1e-3, 1, 1e10]);
    if (chance(0.3)) given.elementwiseAffine = chance(0.5);
    if (chance(0.3)) given.bias = chance(0.5);
    if (chance(0.1)) given[pick(["eps", "bias", "elementwiseAffine", "runtime", "Bias"])] = junk();
    const ln = this.attempt("new LayerNorm", [shape, given], [], () => new LayerNorm(shape, given));
    if (!ln) return;
    this.modules.push({
      ln,
      home: this.homes.find(({ runtime }) => runtime === (ln.weight?.runtime ?? given.runtime)) ?? home,
    });
  }

  forward(module: Module): void {
    const { ln, home } = module;
    const x = this.operand(home);
    const given = this.outOption(home, x);
    const [held, weight, bias] = isLive(x) ? [x, ln.weight, ln.bias].map((p) => floatsOf(p)) : [];
    const y = this.attempt("forward", [x, given], [given?.out], () => ln.forward(x, given));
    if (!y) return;
    this.checkKind(y, x, given?.out);
    if (ln.training) module.saved = { x, held: held as Float32Array, shape: x.shape ?? [x.length] };
    checkForward(
      floatsOf(y) as Float32Array,
      held as Float32Array,
      weight ?? null,
      bias ?? null,
      sizeOf(ln.normalizedShape),
      ln.eps,
    );
  }

  backward({ ln, home, saved }: Module): void {
    const dy = this.operand(home, chance(0.9) ? saved?.shape : undefined);
    const given = this.outOption(home, dy);
    const learned = [ln.weight, ln.bias].map((p) => (p && isLive(p) && p.requiresGrad ? p : null));
    const [dweight, dbias] = learned.map((p) => p?.grad.slice() ?? null);
    const [d, weight, x] = [dy, ln.weight, saved?.x].map((p) => floatsOf(p));
    const writes = [given?.out, ...learned.map((p) => p?.grad)];
    const dx = this.attempt("backward", [dy, given], writes, () => ln.backward(dy, given));
    if (!dx) return;
    this.checkKind(dx, dy, given?.out);
    // A Tensor that forward kept may have been written to since, against the documentation.
    if (!saved || (saved.x instanceof Tensor && (!x || !same(x, saved.held)))) return;
    const got: Any = { dx: floatsOf(dx), before: { dweight, dbias } };
    // An array given as out may be a view of the gradients.
    if (!isFloats(given?.out)) Object.assign(got, { dweight: learned[0]?.grad, dbias: learned[1]?.grad });
    checkBackward(got, d as Float32Array, saved.held, weight ?? null, sizeOf(ln.normalizedShape), ln.eps);
  }

  /** A result is of the kind of the operand, and new or what was to be written to. */
  checkKind(result: Any, like: Any, out?: Any): void {
    // Where the memory grew in the call, an out that lay in it is detached, and the result is a view anew.
    const fits = out === undefined ? !this.tensors.includes(result) : result === out || out.length === 0;
    check(
      fits && result instanceof Tensor === like instanceof Tensor,
      () => `returned ${show(result)} for ${show(like)}`,
    );
    if (result instanceof Tensor && !out) this.tensors.push(result);
  }

  functions(): void {
    const home = pick(this.homes);
    const cols = sizeOf(this.trailing);
    const x = this.operand(home);
    const affine = () => (chance(0.5) ? this.operand(home, this.trailing) : pick([null, undefined]));
    const [shape, weight, bias]: Any[] = [chance(0.95) ? this.trailing : junk(), affine(), affine()];
    const eps: Any = pick([undefined, 0, 1e-5, 1, chance(0.2) ? junk() : 1e-3]);
    const [held, w, b] = [x, weight, bias].map((p) => floatsOf(p));
    const args = [x, shape, weight, bias, eps] as const;
    const plain = this.attempt("layerNorm", args, [], () => layerNorm(...args));
    if (plain) this.checkKind(plain, x);
    const result = this.attempt("layerNormWithStats", args, [], () => layerNormWithStats(...args));
    if (!result) return;
    for (const made of Object.values(result)) this.checkKind(made, x);
    if (plain) check(same(floatsOf(plain), floatsOf(result.y)), () => "layerNorm and layerNormWithStats differ");
    checkForward(floatsOf(result.y) as Float32Array, held as Float32Array, w ?? null, b ?? null, cols, eps ?? 1e-5);
    const dy = this.operand(home, x.shape ?? [x.length]);
    const grads = floatsOf(dy);
    const { mean, rstd } = chance(0.9) ? result : { mean: this.operand(home), rstd: this.operand(home) };
    const inputs = [dy, x, mean, rstd, weight] as const;
    const got = this.attempt("layerNormBackward", inputs, [], () => layerNormBackward(...inputs));
    for (const made of Object.values(got ?? {})) this.checkKind(made, dy);
    // Tensors that share the arena may have been made over the operands since.
    const [xNow, wNow] = [x, weight].map(floatsOf);
    if (!got || mean !== result.mean || rstd !== result.rstd || !same(xNow, held) || (w && !same(wNow, w))) return;
    const [dx, dweight, dbias] = [got.dx, got.dweight, got.dbias].map(floatsOf);
    const gradients = { dx, dweight, dbias };
    checkBackward(gradients, grads as Float32Array, held as Float32Array, w ?? null, cols, eps ?? 1e-5);
  }

  /** The rest of what a module can do. */
  other({ ln, home }: Module): void {
    const both = [ln.weight, ln.bias];
    const entry = () =>
      chance(0.8)
        ? normal(Math.min(sizeOf(ln.normalizedShape), 999), below(99))
        : this.operand(home, ln.normalizedShape);
    const dict: Any = chance(0.05) ? junk() : {};
    const strict: Any = pick([undefined, {}, { strict: false }, chance(0.1) ? junk() : { strict: true }]);
    const keys = chance(0.8)
      ? ["weight", "bias"]
      : [pick(["weight", "gamma", "scale", "x"]), pick(["bias", "beta", "y"])];
    if (typeof dict === "object" && dict && dict !== Runtime.default)
      for (const key of keys) if (chance(0.9)) dict[key] = entry();
    const mode: Any = chance(0.1) ? junk() : chance(0.5);
    // After all that may let the memory grow.
    const grads = both.map((p) => (p && isLive(p) ? p.grad : null));
    const datas = both.map((p) => (p && isLive(p) ? p.data : null));
    const calls: [string, unknown[], unknown[], () => unknown][] = [
      ["loadStateDict", [dict, strict, ...Object.values(dict ?? {})], datas, () => ln.loadStateDict(dict, strict)],
      ["stateDict", [], [], () => ln.stateDict()],
      ["train", [mode], [], () => ln.train(mode)],
      ["train", [], [], () => ln.train()],
      ["eval", [], [], () => ln.eval()],
      ["zeroGrad", [], grads, () => ln.zeroGrad()],
      ["resetParameters", [], datas, () => ln.resetParameters()],
      ["parameters", [], [], () => ln.parameters().map((p) => [p.data, p.grad, p.pointer])],
    ];
    this.attempt(...pick(calls));
    for (const p of both) if (p && chance(0.1)) p.requiresGrad = chance(0.7);
  }

  dispose(): void {
    const module = pick(this.modules);
    if (module && chance(0.15)) {
      this.attempt("module.dispose", [], [], () => module.ln.dispose());
      // It stays for a while, to be used wrongly.
      if (chance(0.5)) this.modules = this.modules.filter((m) => m !== module);
    }
    const tensor = pick(this.tensors);
    if (!tensor || chance(0.3)) return;
    this.tensors = this.tensors.filter((t) => t !== tensor);
    this.dead.push(tensor);
    this.attempt("tensor.dispose", [tensor], [], () => tensor.dispose());
    this.attempt("disposed", [tensor], [], () =>
      pick([() => tensor.dispose(), () => tensor.data, () => tensor.pointer])(),
    );
  }

  /** Lets the memory grow, and views of it go stale. */
  grow(): void {
    const { runtime } = pick(this.homes);
    for (const t of this.tensors) if (t.size > 0) this.stale.push(t.data);
    const bytes: Any = chance(0.2) ? junk() : below(3) * PAGE;
    const pointer = this.attempt("allocate", [bytes], [], () => runtime.allocate(bytes));
    if (pointer !== undefined) this.attempt("free", [pointer], [], () => runtime.free(pointer));
  }

  run(): void {
    for (let call = 0; call < CALLS; call++) {
      const module = pick(this.modules);
      const kind = random();
      if (!module || kind < 0.08) this.newModule();
      else if (kind < 0.33) this.forward(module);
      else if (kind < 0.58) this.backward(module);
      else if (kind < 0.7) this.other(module);
      else if (kind < 0.85) this.functions();
      else if (kind < 0.95 || this.tensors.length > 20) this.dispose();
      else this.grow();
    }
    for (const { ln } of this.modules) ln.dispose();
    for (const tensor of this.tensors) tensor.dispose();
    for (const [i, home] of this.homes.entries()) {
      if (this.arenas[i]) home.runtime.free(this.arenas[i]);
      home.intact();
      home.empty();
    }
  }
}

console.log(`seed ${seed}`);
const end = performance.now() + Number(seconds) * 1000;
let iteration = Number(first);
for (; iteration < Number(first) + Number(iterations) && performance.now() < end; iteration++) {
  random = uniform(Math.imul(Number(seed) ^ Math.imul(iteration, 0x9e3779b1), 0x85ebca6b));
  // Memories are only freed once a FinalizationRegistry has had its turn.
  await new Promise(setImmediate);
  const round = new Round();
  try {
    round.run();
  } catch (error) {
    console.error(round.log.join("\n"));
    console.error(error instanceof Failure ? error.message : error);
    console.error(
      `iteration ${iteration} failed: npx tsx scripts/fuzz.ts --seed ${seed} --first ${iteration} --iterations 1`,
    );
    process.exit(1);
  }
}
const found = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
console.log(`${iteration - Number(first)} iterations: ${found.join(", ")}`);
