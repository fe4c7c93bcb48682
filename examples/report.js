// A table of what an example computed beside what was published, with a mark. A figure that differs fails the example.

/** @typedef {number | string | boolean | ArrayLike<number>} Figure */

let failures = 0;

/** @param {string} title */
export function heading(title) {
  console.log(`\n${title}\n${"=".repeat(title.length)}`);
}

/** @param {string} title */
export function section(title) {
  console.log(`\n${title}`);
}

/**
 * Prints one line and marks it.
 * @param {string} name
 * @param {Figure} got
 * @param {Figure} expected
 * @param {number} [tolerance] how far numbers may differ; by default half a unit of the fourth decimal
 */
export function compare(name, got, expected, tolerance = 0.5e-4) {
  const same = typeof expected === "object" ? listsAgree(got, expected, tolerance) : agree(got, expected, tolerance);
  row(name, show(got), show(expected), same);
}

/**
 * Prints one line whose expectation is a bound or another statement.
 * @param {string} name
 * @param {Figure} got
 * @param {string} expected in words
 * @param {boolean} holds
 */
export function claim(name, got, expected, holds) {
  row(name, show(got), expected, holds);
}

/** Ends the process with an error if anything differed. */
export function conclude() {
  if (failures > 0) {
    console.error(`\n${failures} figures differ from the published ones`);
    process.exit(1);
  }
  console.log("\nAll figures agree with the published ones.");
}

/** @param {string} name @param {string} got @param {string} expected @param {boolean} good */
function row(name, got, expected, good) {
  if (!good) failures++;
  console.log(`  ${good ? "✓" : "✗ DIFFERS"} ${name.padEnd(44)} ${got.padEnd(38)} ${expected}`);
}

/** @param {Figure} got @param {Figure} expected @param {number} tolerance */
function agree(got, expected, tolerance) {
  if (typeof got !== "number" || typeof expected !== "number") return got === expected;
  return Object.is(got, expected) || Math.abs(got - expected) <= tolerance;
}

/** @param {Figure} got @param {ArrayLike<number>} expected @param {number} tolerance */
function listsAgree(got, expected, tolerance) {
  if (typeof got !== "object" || got.length !== expected.length) return false;
  return Array.from(expected).every((value, i) => agree(/** @type {number} */ (got[i]), value, tolerance));
}

/** @param {Figure} value */
function show(value) {
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(7);
  if (typeof value !== "object") return String(value);
  const numbers = Array.from(value);
  const whole = numbers.every(Number.isInteger);
  return `(${numbers.map((number) => (whole ? String(number) : number.toFixed(4))).join(", ")})`;
}
