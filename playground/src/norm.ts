// What a norm does: a row as a histogram before and after.

import { layerNormWithStats, rmsNormWithStats } from "layernorm-wasm";
import { normal } from "../../test/random.js";
import { chart } from "./chart.js";
import { element, slider, words } from "./controls.js";

const MOST_COLS = 4096;
const BINS = 40;
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

const histogramOf = (when: string, color: `--${string}`) =>
  chart(element(`norm-${when}`), { label: "value" }, { label: "count", whole: true }, [
    { label: when, color, style: "bars" },
  ]);
const before = histogramOf("before", "--rival");
const after = histogramOf("after", "--ours");

/** Of a row, in float64. */
function statistics(row: Float32Array) {
  const average = row.reduce((sum, value) => sum + value, 0) / row.length;
  const square = row.reduce((sum, value) => sum + value ** 2, 0) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - average) ** 2, 0) / row.length;
  return { mean: average, variance, square, least: Math.min(...row), most: Math.max(...row) };
}

function histogram(row: Float32Array, least: number, most: number): { edges: number[]; counts: number[] } {
  const width = (most - least || 1) / BINS;
  const edges = Array.from({ length: BINS }, (_, i) => least + i * width);
  const counts = new Array<number>(BINS).fill(0);
  for (const value of row) {
    const bin = Math.min(BINS - 1, Math.floor((value - least) / width));
    counts[bin] = (counts[bin] as number) + 1;
  }
  return { edges, counts };
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
  for (const [when, values, view] of [
    ["before", row, before],
    ["after", y, after],
  ] as const) {
    const stats = statistics(values);
    for (const name of ["mean", "variance", "square"] as const) {
      element<HTMLOutputElement>(`norm-${name}-${when}`).value = words(stats[name]);
    }
    const title = when === "before" ? "Before" : "After";
    if (Number.isNaN(stats.mean)) {
      view.draw([], [[]], `${title}: no numbers, since 0 / 0 is none. That is what eps is for.`);
      continue;
    }
    const { edges, counts } = histogram(values, stats.least, stats.most);
    const deviation = Math.sqrt(stats.variance);
    view.draw(
      edges,
      [counts],
      `${title}: ${size} numbers from ${words(stats.least, 3)} to ${words(stats.most, 3)}, mean ${words(stats.mean, 3)}, standard deviation ${words(deviation, 3)}.`,
    );
  }
  element<HTMLOutputElement>("norm-rstd").value = words(rstd[0] as number);
}

form.addEventListener("input", update);
update();
