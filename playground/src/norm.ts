// What a norm does: a row as a histogram before and after.

import { layerNormWithStats, rmsNormWithStats } from "layernorm-wasm";
import { normal } from "../../test/random.js";
import { chart, type Mark } from "./chart.js";
import { element, slider, words } from "./controls.js";

const MOST_COLS = 4096;
const BINS = 100; // and one more, as they are centered on zero and on both ends
const NUMBERS = normal(MOST_COLS, 1);

const FORMULAS = {
  layerNorm: "y = (x − mean) · rstd · weight + bias\nrstd = 1 / √(variance + eps)",
  rmsNorm: "y = x · rstd · weight\nrstd = 1 / √(mean square + eps)",
};

const form = element<HTMLFormElement>("norm-form");
const cols = slider("norm-cols", (position) => 2 ** position);
const mean = slider("norm-mean");
const spread = slider("norm-spread");
const outlier = slider("norm-outlier");
const eps = slider("norm-eps", (position) => (position === -13 ? 0 : 10 ** position));
const weight = slider("norm-weight");
const bias = slider("norm-bias");

const view = chart(element("norm-chart"), { label: "value" }, { label: "count", whole: true }, [
  { label: "before", color: "--before", style: "bars" },
  { label: "after", color: "--after", style: "bars" },
]);

/** Of a row, in float64. */
function statistics(row: Float32Array) {
  const average = row.reduce((sum, value) => sum + value, 0) / row.length;
  const square = row.reduce((sum, value) => sum + value ** 2, 0) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - average) ** 2, 0) / row.length;
  return { mean: average, variance, square, least: Math.min(...row), most: Math.max(...row) };
}

/** The ends of the axis: one of few, so that it stays where it is while a slider is moved a little. */
const endFor = (largest: number) => [20, 50, 100, 200, 500].find((end) => end >= largest) as number;

/** How many numbers are in each bin; none where they are NaN. */
function histogram(row: Float32Array, end: number): number[] {
  const counts = new Array<number>(BINS + 1).fill(0);
  for (const value of row) {
    const bin = Math.round(((value + end) / (2 * end)) * BINS);
    if (bin >= 0) counts[bin] = (counts[bin] as number) + 1;
  }
  return counts;
}

function update() {
  const size = cols.value;
  const row = NUMBERS.slice(0, size).map((value) => value * spread.value + mean.value);
  row[0] = (row[0] as number) + outlier.value;

  const norm = new FormData(form).get("norm") as keyof typeof FORMULAS;
  const weights = new Float32Array(size).fill(weight.value);
  const { y, rstd } =
    norm === "layerNorm"
      ? layerNormWithStats(row, size, weights, new Float32Array(size).fill(bias.value), eps.value)
      : rmsNormWithStats(row, size, weights, eps.value);

  element<HTMLInputElement>("norm-bias").disabled = norm === "rmsNorm";
  element("norm-formula").textContent = FORMULAS[norm];
  const sentences = [];
  const outliers: Mark[] = [];
  let largest = 0;
  for (const [when, values, color] of [
    ["before", row, "--rival"],
    ["after", y, "--ours"],
  ] as const) {
    const stats = statistics(values);
    for (const name of ["mean", "variance", "square"] as const) {
      element<HTMLOutputElement>(`norm-${name}-${when}`).value = words(stats[name]);
    }
    const title = when === "before" ? `${size} numbers. Before` : "After";
    if (Number.isNaN(stats.mean)) {
      sentences.push(`${title}: no numbers, since 0 / 0 is none. That is what eps is for.`);
      continue;
    }
    outliers.push([values[0] as number, color]);
    largest = Math.max(largest, -stats.least, stats.most);
    const [least, most, average, deviation] = [stats.least, stats.most, stats.mean, Math.sqrt(stats.variance)].map(
      (value) => words(value, 3),
    );
    sentences.push(`${title}: ${least} to ${most}, mean ${average}, standard deviation ${deviation}.`);
  }
  if (outlier.value !== 0) sentences.push("The lines are at the outlier.");
  const end = endFor(largest);
  view.draw(
    Array.from({ length: BINS + 1 }, (_, i) => (i / BINS - 0.5) * 2 * end),
    [histogram(row, end), histogram(y, end)],
    sentences.join(" "),
    ...(outlier.value === 0 ? [] : outliers),
  );
  element<HTMLOutputElement>("norm-rstd").value = words(rstd[0] as number);
}

form.addEventListener("input", update);
update();
