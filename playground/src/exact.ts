// How exact: errors against float64 while the row moves away from zero.

import { layerNorm } from "layernorm-wasm";
import { normal } from "../../test/random.js";
import { referenceForward, unitsOff } from "../../test/reference.js";
import { chart } from "./chart.js";
import { element, slider, words } from "./controls.js";

const COLS = 768;
const EPS = 1e-5;
const STEPS = 57; // 0, then eight to a decade from 1 to 1e7
const NUMBERS = normal(COLS, 2);

const offsetAt = (position: number) => (position === 0 ? 0 : 10 ** ((position - 1) / 8));

/** As it is written everywhere: two passes in float32, each operation rounded. */
function usual(x: Float32Array): Float32Array {
  const { fround } = Math;
  let sum = 0;
  for (const value of x) sum = fround(sum + value);
  const mean = fround(sum / x.length);
  let squares = 0;
  for (const value of x) {
    const difference = fround(value - mean);
    squares = fround(squares + fround(difference * difference));
  }
  const rstd = fround(1 / fround(Math.sqrt(fround(fround(squares / x.length) + fround(EPS)))));
  return x.map((value) => fround(fround(value - mean) * rstd));
}

/** The largest errors on the row at an offset, in units of 2^-23 of the largest |y|. */
function errorsAt(offset: number): { ours: number; usual: number } {
  const x = NUMBERS.map((value) => value + offset);
  const { y } = referenceForward({ x, rows: 1, cols: COLS, eps: EPS });
  const largest = y.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const units = (got: Float32Array) =>
    unitsOff(
      got,
      y,
      y.map(() => largest),
    );
  return { ours: units(layerNorm(x, COLS, null, null, EPS)), usual: units(usual(x)) };
}

const view = chart(
  element("exact-chart"),
  { label: "offset of the row", scale: "asinh", ends: () => [0, 1e7] },
  { label: "error in units", scale: "log" },
  [
    { label: "ours", color: "--ours" },
    { label: "the usual formula in float32", color: "--rival", style: "dashed" },
  ],
);
const offsets = Array.from({ length: STEPS + 1 }, (_, position) => offsetAt(position));
const errors = offsets.map(errorsAt);
const lines = [errors.map(({ ours }) => ours), errors.map(({ usual }) => usual)];
const most = words(Math.max(...(lines[0] as number[])), 3);

const offset = slider("exact-offset", offsetAt);
const update = () => {
  const { ours, usual } = errorsAt(offset.value);
  element<HTMLOutputElement>("exact-ours").value = words(ours, 3);
  element<HTMLOutputElement>("exact-usual").value = words(usual, 3);
  view.draw(
    offsets,
    lines,
    `At an offset of ${words(offset.value, 3)} ours is ${words(ours, 3)} units off, the usual formula ${words(usual, 3)}. Over all offsets up to 10 million ours is off by ${most} at most.`,
    [offset.value, "--text"],
  );
};
element("exact-form").addEventListener("input", update);
update();
