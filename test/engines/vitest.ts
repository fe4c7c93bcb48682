// Stands in for "vitest" in other engines than Node: the same functions, from Vitest's own runner and its own assertions.

import {
  ASYMMETRIC_MATCHERS_OBJECT,
  GLOBAL_EXPECT,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from "@vitest/expect";
import * as chai from "chai";

export { afterAll, afterEach, beforeAll, beforeEach, describe, it, test } from "@vitest/runner";
export { expectTypeOf } from "expect-type";

const globals = globalThis as unknown as Record<symbol, object>;

function expectation(value: unknown, message?: string): Chai.Assertion {
  return chai.expect(value, message);
}

export const expect = Object.assign(expectation, chai.expect);
globals[GLOBAL_EXPECT] = expect;
for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);
Object.assign(expect, globals[ASYMMETRIC_MATCHERS_OBJECT]);
setState({ assertionCalls: 0 }, expect as never);
