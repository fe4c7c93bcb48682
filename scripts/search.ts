// Looks for the inputs on which the kernels are furthest off, in the units of their limits: random search, and from the worst
// found a hill climb, down to single bits. Prints the worst of each result, as a recipe that repeats it, and fails when one is
// beyond its limit or not finite where the truth is.
//
//   npm run search [-- --minutes 10] [--seed S] [--result dx] [--recipe '{"norm": ...}']
//
// With --result it looks for the worst of that one alone. With --recipe it only measures that one. KERNELS names another build
// than release.

import { parseArgs } from "node:util";
import { moduleOf } from "../test/builds.js";
import { bell, uniform } from "../test/helpers.js";
import { machineOf, measure, type Pattern, type Recipe } from "../test/recipe.js";
import { LIMITS, type Results } from "../test/reference.js";

const string = { type: "string" } as const;
const { values: given } = parseArgs({ options: { minutes: string, seed: string, result: string, recipe: string } });
const { minutes = "10", seed = String(Math.floor(Math.random() * 2 ** 32)) } = given;
const NAMES = Object.keys(LIMITS.layerNorm) as (keyof Results)[];

const machine = machineOf(moduleOf(process.env.KERNELS ?? "release"));
if (given.recipe) {
  const recipe: Recipe = JSON.parse(given.recipe);
  const errors = measure(machine, recipe);
  console.log(errors);
  process.exit(NAMES.some((name) => (errors[name] ?? 0) > LIMITS[recipe.norm][name]) ? 1 : 0);
}

const random = uniform(Number(seed));
const below = (n: number) => Math.floor(random() * n);
const chance = (p: number) => random() < p;
const pick = <T>(list: readonly T[]) => list[below(list.length)] as T;
/** To the digits that tell one float from the next. */
const short = (value: number) => Number(value.toPrecision(9));
const tenTo = (from: number, to: number) => short(10 ** (from + random() * (to - from)));

// Both sides of every step, block and part of the loops.
const COLS = [
  ...Array.from({ length: 33 }, (_, i) => i + 1),
  ...[48, 63, 64, 65, 80, 96, 100, 112, 120, 126, 127, 128, 129, 130, 144, 191, 192, 193, 200, 248, 255, 256, 257, 264],
  ...[320, 383, 384, 385, 500, 511, 512, 513, 640, 767, 768, 769, 1000, 1023, 1024, 1025, 1536, 2048],
  ...[2560, 3072, 4095, 4096, 4097, 8192, 8211],
];
const ROWS = [
  1, 1, 1, 2, 2, 3, 4, 4, 5, 6, 8, 11, 12, 13, 24, 47, 48, 49, 63, 64, 65, 129, 2047, 2048, 2049, 2050, 2113,
];
const ROOM = 1 << 13;
const EPS = [0, 0, 1e-12, 1e-6, 2 ** -23, 1e-5, 1e-5, 1e-3, 1];

/** A number of any kind. */
function number(): number {
  const sign = chance(0.3) ? -1 : 1;
  return (
    sign *
    pick([
      () => short(random() * 6),
      () => short(random()),
      () => tenTo(-3, 3),
      () => pick([0, 1, 1.3, 0.006, 0.06, 3.7, 1.94029617]),
      () => short(1 + random() * 2 ** -pick([4, 12, 20, 23])),
    ])()
  );
}

function runs(cols: number): Pattern {
  const count = pick([1, 2, 2, 2, 3, 4, 4, 5, 7]);
  const even = Math.max(1, Math.ceil(cols / count));
  const lengths = pick<() => number[]>([
    () => [1],
    () => [even],
    () => [64, Math.max(1, cols - 64)],
    () => [pick([2, 3, 4, 5, 8, 15, 16, 17, 32, 64, 127, 128])],
    () => Array.from({ length: count }, () => 1 + below(cols)),
  ])();
  return { kind: "runs", values: Array.from({ length: count }, number), lengths };
}

/** 1 and some last bits. */
const bits = () => 1 + below(2 ** pick([2, 4, 8, 12, 16, 22])) * 2 ** -23;

/** Runs of numbers that round alike, block after block: those of one sign, then perhaps those of the other. */
function built(cols: number): Pattern {
  const some = (sign: number) => Array.from({ length: pick([1, 2, 4, 8, 8, 16, 32]) }, () => sign * bits());
  const lengths = [pick([1, 1, 4, 4, 8])];
  return {
    kind: "runs",
    values: some(1),
    lengths,
    ...(chance(0.7) && { rest: { from: 32 * below(cols / 32 + 1), values: some(-1), lengths } }),
    ...(chance(0.3) && { spikes: [[below(cols), 1, short(outlier(cols))]] as const }),
  };
}

/** Of some deviations of numbers of size 1. */
const outlier = (cols: number) =>
  (chance(0.5) ? -1 : 1) * Math.min(Math.sqrt(cols), pick([2, 4, 10, 30])) * (1 + random());

const bells = (): Pattern => ({ kind: "bell", seed: below(1e6) });

/** Numbers of ordinary size. */
function ordinary(cols: number): Pattern {
  return pick([
    () => runs(cols),
    () => runs(cols),
    bells,
    () => ({ ...bells(), offset: short(pick([0.25, 0.5, 1, 2]) * (1 + bell(random) / 10)) }),
    () => ({ ...runs(cols), noise: tenTo(-10, -1), seed: below(1e6) }),
    (): Pattern => ({ kind: "ramp", offset: short(bell(random)), turn: below(cols) }),
    (): Pattern => ({ kind: "binades", values: [pick([1, 4, 10, 20])], seed: below(1e6) }),
  ])();
}

/** Numbers that differ little beside their size. */
function narrow(cols: number): Pattern {
  const offset = pick([0.006, 0.06, 1, -3.7, 1e4, 1e7, number()]);
  const noise = short(Math.abs(offset) * tenTo(-8, 0));
  return pick([
    (): Pattern => ({ kind: "runs", values: [offset], noise, seed: below(1e6) }),
    (): Pattern => ({
      kind: "runs",
      values: [offset, short(offset + noise)],
      lengths: pick([[1], [cols - 1, 1], [2]]),
    }),
    (): Pattern => ({ ...runs(cols), scale: noise, offset }),
    (): Pattern => ({ kind: "ramp", scale: noise, offset }),
  ])();
}

function anyX(cols: number): Pattern {
  const x = pick([
    () => built(cols),
    () => built(cols),
    () => ordinary(cols),
    () => ordinary(cols),
    () => narrow(cols),
  ])();
  if (chance(0.25))
    x.scale = short((x.scale ?? 1) * pick([tenTo(-46, 38), tenTo(17, 20), tenTo(-25, -17), 3e-39, 1e37]));
  return decorated(x, cols);
}

/** A misleading start, an outlier, or the outlier that takes half of the variance of numbers of size 1. */
const spike = (cols: number) =>
  pick<() => [number, number, number]>([
    () => [0, pick([1, 4, 16, 17]), short(number() * tenTo(0, 5))],
    () => [below(cols), 1 + below(3), short(number() * tenTo(-6, 7))],
    () => [below(cols), 1 + below(3), short(Math.sqrt(cols * pick([0.1, 0.5, 0.5, 0.9])))],
  ])();

/** With a spike, or rows of different sizes, now and then. */
function decorated(pattern: Pattern, cols: number): Pattern {
  return {
    ...pattern,
    ...(chance(0.15) && { spikes: [spike(cols)] }),
    ...(chance(0.1) && {
      factors: pick([
        [1, tenTo(-4, 4)],
        [1, 1, -1],
        [1, 1, 1, tenTo(-30, 30)],
      ]),
    }),
    ...(chance(0.3) && { equal: true }),
    ...(chance(0.2) && { turn: below(cols) }),
  };
}

function anyDy(cols: number): Pattern {
  const dy = pick([
    () => built(cols),
    () => ordinary(cols),
    () => ordinary(cols),
    (): Pattern => ({ kind: "runs", values: [number()] }),
    (): Pattern => ({ kind: pick(["xhat", "sign"]), offset: pick([0, 0, number()]), noise: pick([0, tenTo(-8, -1)]) }),
  ])();
  if (chance(0.15)) dy.scale = short((dy.scale ?? 1) * pick([6e36, tenTo(-46, 38), tenTo(30, 38), tenTo(-45, -36)]));
  return decorated(dy, cols);
}

function anyWeight(cols: number): Pattern | undefined {
  if (chance(0.5)) return undefined;
  const weight = chance(0.5) ? built(cols) : ordinary(cols);
  if (chance(0.15)) weight.scale = pick([tenTo(-40, 38), tenTo(0, 10)]);
  return chance(0.1) ? decorated(weight, cols) : weight;
}

/** Outliers of about one size that have most of the variance of x, and small numbers of dy there. */
function outliers(cols: number): Pick<Recipe, "x" | "dy"> {
  const size = tenTo(0.5, 3);
  const columns = Array.from({ length: 1 + below(4) }, (_, i) => (chance(0.6) ? i : below(cols)));
  const spikes = (value: () => number) =>
    columns.map((column): [number, number, number] => [column, 1, short(value())]);
  const x = pick([bells(), { kind: "binades", values: [short(random() * 3)], seed: below(1e6) } as const]);
  const kind = pick(["sign", "sign", "xhat", "bell"] as const);
  return {
    x: { ...x, spikes: spikes(() => size * (1 + bell(random) / 100)) },
    dy: { kind, noise: short(random() ** 3), seed: below(1e6), spikes: spikes(() => pick([0, bell(random) / 3])) },
  };
}

const anyEps = () => (chance(0.2) ? tenTo(-30, 0) : pick(EPS));

/** A number of rows; most of the time few, which are soon tried. */
function fitting(cols: number): number {
  const room = pick([ROOM / 16, ROOM / 4, ROOM]);
  return pick(ROWS.filter((rows) => rows === 1 || rows * cols <= room));
}

const norms: Recipe["norm"][] =
  "rmsNormBackward" in machine.kernels ? ["layerNorm", "layerNorm", "rmsNorm"] : ["layerNorm"];

function anyRecipe(): Recipe {
  const cols = pick(COLS);
  const recipe: Recipe = {
    norm: pick(norms),
    rows: fitting(cols),
    cols,
    eps: anyEps(),
    x: anyX(cols),
    dy: anyDy(cols),
    ...(chance(0.1) && outliers(cols)),
  };
  const weight = anyWeight(cols);
  if (weight) recipe.weight = weight;
  if (chance(0.3)) recipe.bias = chance(0.5) ? built(cols) : ordinary(cols);
  if (chance(0.15)) recipe.wanted = pick([["dx"], ["dweight"], ["dbias"], ["dx", "dweight"], ["dweight", "dbias"]]);
  return recipe;
}

function forwardOf({ dy, wanted, ...recipe }: Recipe): Recipe {
  return recipe;
}

/** A little more or less, or much. */
function nudged(value: number): number {
  const ulps = (most: number) => short(value * (1 + (1 + below(most)) * pick([-1, 1]) * 2 ** -23));
  return pick([
    () => ulps(1),
    () => ulps(4),
    () => ulps(64),
    () => ulps(4096),
    () => short(value * (1 + bell(random) * tenTo(-8, -1))),
    () => short(value * (1 + bell(random) * tenTo(-3, 0))),
    () => short(value * 2 ** (below(3) - 1)),
    () => short(value + bell(random) * 0.1),
    () => -value,
    number,
  ])();
}

/** Changes something of a pattern. */
function nudge(pattern: Pattern, cols: number): void {
  const { values = [0], lengths = [1], spikes = [], rest } = pattern;
  // Of what follows, now and then.
  if (rest && chance(0.4)) {
    const { from, ...runs } = rest;
    const other: Pattern = { kind: "runs", ...runs };
    nudge(other, cols);
    const moved = chance(0.8)
      ? from
      : pick([() => from + pick([-32, -8, -1, 1, 8, 32]), () => 32 * below(cols / 32 + 1)])();
    pattern.rest = { from: moved, values: other.values ?? [0], ...(other.lengths && { lengths: other.lengths }) };
    return;
  }
  const at = below(values.length);
  const other = below(lengths.length);
  const change = pick<() => Partial<Pattern>>([
    () => ({ values: values.map((v, i) => (i === at ? nudged(v) : v)) }),
    () => ({ values: values.map((v, i) => (i === at ? nudged(v) : v)) }),
    () => ({ values: values.map((v, i) => (i === at ? nudged(pick(values)) : v)) }),
    () => ({ values: values.map((v) => (chance(0.3) ? nudged(v) : v)) }),
    () => ({ values: [...values, ...values].slice(0, 64) }),
    () => ({ values: [...values, nudged(pick(values))] }),
    () => ({ values: values.filter((_, i) => i !== at || i === 0) }),
    () => ({
      lengths: lengths.map((v, i) =>
        i === other ? Math.max(1, (lengths[other] as number) + pick([-16, -1, 1, 16])) : v,
      ),
    }),
    () => ({ lengths: lengths.map((v, i) => (i === other ? 1 + below(cols) : v)) }),
    () => ({ lengths: [...lengths, 1 + below(cols)] }),
    () => ({ lengths: lengths.filter((_, i) => i !== other || i === 0) }),
    () => ({ scale: nudged(pattern.scale ?? 1) }),
    () => ({ offset: nudged(pattern.offset ?? 0) }),
    () => ({ noise: pattern.noise ? short(pattern.noise * tenTo(-1, 1)) : tenTo(-10, -1) }),
    () => ({ noise: 0 }),
    () => ({ seed: below(1e6) }),
    () => ({ equal: !pattern.equal }),
    () => ({ turn: chance(0.5) ? 0 : below(cols) }),
    () => ({ spikes: chance(0.5) ? [] : [spike(cols), ...spikes].slice(0, 4) }),
    () => ({ spikes: [[below(cols), 1, nudged(pick(values))] as const, ...spikes].slice(0, 8) }),
    () => ({ spikes: spikes.map(([column, count, value]) => [column, count, chance(0.5) ? nudged(value) : value]) }),
    () => ({ factors: chance(0.5) ? [1] : [1, nudged(1)] }),
  ])();
  Object.assign(pattern, change);
}

/** A recipe with something changed, or exchanged with that of another. */
function mutated(recipe: Recipe, other: Recipe): Recipe {
  const made = structuredClone(recipe);
  for (let changes = pick([1, 1, 2, 3]); changes > 0; changes--) {
    const { cols } = made;
    const change = pick<() => Partial<Recipe> | undefined>([
      () => void nudge(made.x, cols),
      () => void nudge(made.x, cols),
      () => void nudge(made.x, cols),
      () => void nudge(made.dy ?? made.x, cols),
      () => void nudge(made.dy ?? made.x, cols),
      () => (made.weight ? void nudge(made.weight, cols) : { weight: ordinary(cols) }),
      () => (made.bias ? void nudge(made.bias, cols) : undefined),
      () => ({ eps: chance(0.5) ? anyEps() : Math.min(1, Math.abs(nudged(made.eps))) }),
      () => ({ cols: chance(0.5) ? pick(COLS) : Math.max(1, cols + pick([-16, -4, -1, 1, 4, 16])) }),
      () => ({ rows: fitting(cols) }),
      () => structuredClone(pick([{ x: other.x }, { dy: other.dy }, { weight: other.weight }])) as Partial<Recipe>,
      () => void delete made[pick(["weight", "bias", "wanted"] as const)],
      () => {
        // A small number in dy where x has an outlier, which then magnifies the errors of the sums.
        const spikes = made.x.spikes?.map(([at, count]) => [at, count, pick([0, 1e-3])] as const);
        if (made.dy && spikes) made.dy.spikes = spikes;
        return undefined;
      },
    ])();
    Object.assign(made, change);
  }
  if (made.rows > 1 && made.rows * made.cols > ROOM) made.rows = fitting(made.cols);
  return made;
}

/** What a recipe may be without. */
function* simpler(recipe: Recipe): Generator<Recipe> {
  if (recipe.dy && recipe.dy.kind !== "runs") yield { ...recipe, dy: { kind: "runs", values: [1] } };
  for (const name of ["weight", "bias", "wanted", "dy"] as const) {
    const { [name]: had, ...rest } = recipe;
    if (had !== undefined) yield rest;
  }
  for (const rows of [1, 2, 4, 64]) if (rows < recipe.rows) yield { ...recipe, rows };
  for (const name of ["x", "dy", "weight", "bias"] as const) {
    const pattern = recipe[name];
    if (!pattern) continue;
    for (const key of [
      "spikes",
      "factors",
      "turn",
      "equal",
      "noise",
      "offset",
      "scale",
      "lengths",
      "seed",
      "rest",
    ] as const) {
      const { [key]: had, ...rest } = pattern;
      if (had !== undefined) yield { ...recipe, [name]: rest };
    }
    for (const at of pattern.values?.slice(1).keys() ?? [])
      yield { ...recipe, [name]: { ...pattern, values: pattern.values?.filter((_, i) => i !== at) } };
  }
}

const unitsOf = (recipe: Recipe, name: keyof Results) => measure(machine, recipe)[name] ?? 0;

/** The simplest that is as much beyond the limit. */
function simplest(recipe: Recipe, name: keyof Results): Recipe {
  for (const trial of simpler(recipe))
    if (unitsOf(trial, name) > LIMITS[recipe.norm][name]) return simplest(trial, name);
  return recipe;
}

interface Found {
  name: keyof Results;
  units: number;
  recipe: Recipe;
}
// The worst of each result, norm, size and kind of row, so that the climb starts from different places.
const worst = new Map<string, Found>();
// The first of each that is not finite.
const broken = new Map<string, Found>();

console.log(`seed ${seed}`);
const end = performance.now() + Number(minutes) * 60_000;
let tried = 0;
for (; performance.now() < end; tried++) {
  let recipe: Recipe;
  const name = (given.result as keyof Results) ?? pick(NAMES);
  const ofForward = name === "y" || name === "mean" || name === "rstd";
  const known = [...worst.values()].filter((found) => found.name === name);
  if (known.length === 0 || chance(0.3)) recipe = anyRecipe();
  else {
    const share = ({ units, recipe }: Found) => units / LIMITS[recipe.norm][name];
    const few = Array.from({ length: pick([1, 4, 20]) }, () => pick(known));
    recipe = mutated(few.reduce((a, b) => (share(a) > share(b) ? a : b)).recipe, pick(known).recipe);
  }
  if (ofForward) recipe = { ...forwardOf(recipe), rows: Math.min(recipe.rows, pick([1, 1, 4, 5])) };
  else recipe.dy ??= anyDy(recipe.cols);
  for (const [name, units] of Object.entries(measure(machine, recipe)) as [keyof Results, number][]) {
    const infinite = units === Infinity;
    const size = Math.ceil(Math.log2(recipe.cols));
    const key = infinite
      ? `${recipe.norm} ${name}`
      : `${recipe.norm} ${name} ${size} ${recipe.x.kind} ${recipe.x.rest !== undefined}`;
    const found = infinite ? broken : worst;
    const before = found.get(key);
    if (!before || (!infinite && units > before.units)) found.set(key, { name, units, recipe });
  }
}

console.log(`${tried} inputs\n`);
let beyond = 0;
for (const norm of new Set(norms)) {
  for (const name of NAMES) {
    const all = [...worst.values(), ...broken.values()].filter(
      (found) => found.name === name && found.recipe.norm === norm,
    );
    all.sort((a, b) => b.units - a.units);
    const limit = LIMITS[norm][name];
    const bad = all.filter(({ units }) => units > limit);
    beyond += bad.length;
    for (const { recipe } of bad.length > 0 ? bad.slice(0, 5) : all.slice(0, 1)) {
      const shown = bad.length > 0 ? simplest(recipe, name) : recipe;
      console.log(`${norm} ${name} ${unitsOf(shown, name).toPrecision(3)} of ${limit}: ${JSON.stringify(shown)}`);
    }
  }
}
console.log(beyond === 0 ? "\nAll within their limits." : `\n${beyond} beyond their limits.`);
process.exit(beyond === 0 ? 0 : 1);
