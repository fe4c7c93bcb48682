// How all benches time: contenders take turns in rounds of many calls. The fastest round is the measure, because other work
// on the machine only ever adds.

export interface Runner {
  /** So many calls: nothing, or the milliseconds that each took by a clock of its own. */
  call(calls: number): undefined | number | Promise<undefined | number>;
  /** What comes before its turn, and is not timed. */
  prepare?(): unknown;
}

const MOST_CALLS = 32_768;
/** Who has taken so long stops after three rounds: slow contenders, and threads whose core other work has taken. */
const BUDGET_MS = 2500;
const LEAST_ROUNDS = 3;

/** So many calls of a function. */
export function repeat(call: () => unknown): Runner["call"] {
  return (calls) => {
    for (let i = 0; i < calls; i++) call();
    return undefined;
  };
}

/** The same, where each is awaited. */
export function repeatAsync(call: () => unknown): Runner["call"] {
  return async (calls) => {
    for (let i = 0; i < calls; i++) await call();
    return undefined;
  };
}

/** A turn: the milliseconds that it lasts, and those of each call. The clock of a contender may leave out most of a call. */
async function turn(runner: Runner, calls: number) {
  await runner.prepare?.();
  const start = performance.now();
  const own = await runner.call(calls);
  const wall = performance.now() - start;
  return { wall, each: own ?? wall / calls };
}

/** Milliseconds of a call of each contender in each round, sorted. A round lasts at least `roundMs`. */
export async function race(
  runners: Runner[],
  { rounds = 25, roundMs = 8, note }: { rounds?: number; roundMs?: number; note?: (progress: string) => void } = {},
): Promise<number[][]> {
  const entries: { runner: Runner; calls: number; spent: number; times: number[] }[] = [];
  for (const runner of runners) {
    let calls = 1;
    // Twice as many calls each time, until they last a round: a first call is not compiled yet, and takes far longer.
    // They are to last it twice, as other work may have come between.
    for (; calls < MOST_CALLS; calls *= 2) {
      if ((await turn(runner, calls)).wall >= roundMs && (await turn(runner, calls)).wall >= roundMs) break;
    }
    entries.push({ runner, calls, spent: 0, times: [] });
  }
  for (let round = 0; round < rounds; round++) {
    note?.(`round ${round + 1} of ${rounds}`);
    for (const entry of entries) {
      if (entry.spent > BUDGET_MS && round >= LEAST_ROUNDS) continue;
      const { wall, each } = await turn(entry.runner, entry.calls);
      entry.spent += wall;
      entry.times.push(each);
    }
  }
  return entries.map(({ times }) => times.sort((a, b) => a - b));
}

/** Throws where a result is further off than so many times its largest value. */
export function verify(what: string, got: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  let largest = 0;
  let furthest = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    const off = Math.abs(got[i]! - expected[i]!);
    if (!(off <= furthest)) furthest = off;
  }
  if (!(furthest <= tolerance * largest)) throw new Error(`${what} is ${furthest} off the reference`);
}
