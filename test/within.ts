import { expect } from "vitest";
import { beyond } from "./reference.js";

/** Expects results to be within their limits, or a share of these. */
export function expectWithin(...args: Parameters<typeof beyond>): void {
  expect(beyond(...args)).toEqual({});
}
