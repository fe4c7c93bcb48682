// How all benches time: contenders take turns in rounds of many calls. The fastest round is the measure, because other work
// on the machine only ever adds.

export interface Runner {
  /** So many calls: nothing, or the milliseconds that each took by a clock of its own. */
  call(calls: number): undefined | number | Promise<undefined | number>;
  /** What comes before its turn, and is not timed. */
  prepare?(): unknown;
}

const MOST_CALLS = 32_768;
const SLOW_MS = 100; // a call from which a contender takes three rounds

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

/** Milliseconds of a call of each contender in each round, sorted. A round lasts at least `roundMs`. */
export async function race(
  runners: Runner[],
  { rounds = 25, roundMs = 8, note }: { rounds?: number; roundMs?: number; note?: (progress: string) => void } = {},
): Promise<number[][]> {
  const entries: { runner: Runner; calls: number; rounds: number; times: number[] }[] = [];
  for (const runner of runners) {
    // Twice as many calls each time, until they last a round: a first call is not compiled yet, and takes far longer.
    for (let calls = 1; ; calls *= 2) {
      await runner.prepare?.();
      const start = performance.now(); // of the wall: a contender's own clock may leave out most of a call
      await runner.call(calls);
      const time = performance.now() - start;
      if (time < roundMs && calls < MOST_CALLS) continue;
      entries.push({ runner, calls, rounds: time > SLOW_MS * calls ? 3 : rounds, times: [] });
      break;
    }
  }
  for (let round = 0; round < rounds; round++) {
    note?.(`round ${round + 1} of ${rounds}`);
    for (const { runner, calls, rounds: own, times } of entries) {
      if (round >= own) continue;
      await runner.prepare?.();
      const start = performance.now();
      times.push((await runner.call(calls)) ?? (performance.now() - start) / calls);
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
