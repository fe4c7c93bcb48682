// Runs in the page after it: moves every control, and compares what the page shows with float64. Posts what passed and failed.

import axe from "axe-core";
import { layerNorm } from "layernorm-wasm";
import { GOLDEN } from "../../test/digest.js";
import { normal, uniform } from "../../test/random.js";

declare const hooks: typeof import("./hooks.js");

const parameters = new URL(location.href).searchParams;
const isolated = parameters.has("isolated");

const passed: string[] = [];
const failures: string[] = [];
async function test(name: string, body: () => void | Promise<void>): Promise<void> {
  fetch("/progress", { method: "POST", body: name });
  try {
    await body();
    passed.push(name);
  } catch (error) {
    failures.push(`${name}: ${error} ${(error as Error).stack ?? ""}`);
  }
}

function ok(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** That two numbers agree but for `tolerance`, of the expected one, or `least`. */
function near(got: number, expected: number, what: string, tolerance = 1e-3, least = 1e-6): void {
  const apart = Math.abs(got - expected);
  ok(apart <= Math.max(least, tolerance * Math.abs(expected)), `${what} is ${got}, expected ${expected}`);
}

// The page, as its user has it

const $ = <E extends HTMLElement = HTMLElement>(selector: string): E => {
  const found = document.querySelector<E>(selector);
  ok(found !== null, `no ${selector}`);
  return found;
};
const used = new Set<Element>();
function move(id: string, position: number): void {
  const input = $<HTMLInputElement>(`#${id}`);
  input.value = String(position);
  near(input.valueAsNumber, position, `the position of ${id}`);
  input.dispatchEvent(new Event("input", { bubbles: true }));
  used.add(input);
}
function click(selector: string): void {
  const control = $(selector);
  control.click();
  used.add(control);
}
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
async function until(condition: () => boolean, what: string, ms = 30_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    ok(performance.now() < end, `waited ${ms} ms for ${what}`);
    await sleep(10);
  }
}
/** A number as the page writes it. */
const numberOf = (text: string) => Number(text.replaceAll("−", "-"));
const shown = (id: string) => numberOf($<HTMLOutputElement>(`#${id}`).value);

/** The columns of the table of a chart. */
async function table(figure: string): Promise<number[][]> {
  const details = $<HTMLDetailsElement>(`#${figure} details`);
  if (!details.open) {
    $(`#${figure} summary`).click();
    await until(() => details.querySelector("td") !== null, `the table of ${figure}`);
  }
  const rows = [...details.querySelectorAll("tbody tr")].map((row) =>
    [...row.children].map((cell) => numberOf(cell.textContent ?? "")),
  );
  return (rows[0] ?? []).map((_, column) => rows.map((row) => row[column] as number));
}

const brush = document.createElement("canvas").getContext("2d") as CanvasRenderingContext2D;
function colorOf(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  brush.strokeStyle = getComputedStyle(probe).color;
  probe.remove();
  return String(brush.strokeStyle);
}

type Pair = [value: [number, number], pixel: [number, number]];

interface Line {
  color: string;
  dashed?: boolean;
  ys: number[];
}

/** That lines are drawn where they should be, all by one scale: `x` and `y` turn values into something linear in pixels. */
async function drawn(figure: string, xs: number[], lines: Line[], x = (v: number) => v, y = (v: number) => v) {
  await sleep(0); // charts are drawn after the event
  const canvas = $<HTMLCanvasElement>(`#${figure} canvas`);
  ok(canvas.clientWidth > 200 && canvas.clientHeight > 100, `${figure} is ${canvas.width} by ${canvas.height}`);
  const pairs: Pair[] = [];
  for (const { color, dashed = false, ys } of lines) {
    const rgb = colorOf(color);
    const line = hooks.drawings.get(canvas)?.find((one) => one.color === rgb && one.dashed === dashed);
    ok(line !== undefined, `${figure} has no line of ${color}`);
    ok(line.points.length === ys.length, `${figure}, ${color}: ${line.points.length} points, expected ${ys.length}`);
    ys.forEach((value, i) => {
      const [left, top] = line.points[i] as [number, number];
      pairs.push([
        [x(xs[i] as number), y(value)],
        [left, top],
      ]);
    });
  }
  for (const axis of [0, 1] as const) {
    const sorted = [...pairs].sort(([a], [b]) => a[axis] - b[axis]);
    const [first, last] = [sorted[0], sorted.at(-1)] as [Pair, Pair];
    const [low, lowAt, high, highAt] = [first[0][axis], first[1][axis], last[0][axis], last[1][axis]];
    ok(axis === 0 ? highAt > lowAt : highAt < lowAt, `${figure}: axis ${axis} is upside down`);
    for (const [value, pixel] of pairs) {
      const expected = lowAt + ((value[axis] - low) / (high - low)) * (highAt - lowAt);
      near(pixel[axis], expected, `${figure}: a pixel of axis ${axis}`, 0, 1.5);
    }
  }
}

/** That bars are as high as the counts, and as far right as their numbers, all by one scale, and within the canvas. */
async function drawnBars(figure: string, xs: number[], all: { color: string; counts: number[] }[]) {
  await sleep(0);
  const canvas = $<HTMLCanvasElement>(`#${figure} canvas`);
  const bars = all.flatMap(({ color, counts }) => {
    const points = hooks.drawings.get(canvas)?.find((one) => one.color === colorOf(color))?.points ?? [];
    // uPlot leaves bars of no height out.
    const some = counts.flatMap((count, i) => (count > 0 ? [{ count, x: xs[i] as number }] : []));
    const high = points.filter(([, , , height]) => (height as number) > 0);
    ok(high.length === some.length, `${figure}: ${high.length} bars of ${color}, expected ${some.length}`);
    return some.map((bar, i) => {
      const [left, , width, height] = high[i] as [number, number, number, number];
      ok(width >= 1 && left >= 0 && left + width <= canvas.width, `${figure}: bar ${i} is ${width} wide at ${left}`);
      return { ...bar, middle: left + width / 2, height };
    });
  });
  const most = bars.reduce((a, b) => (b.count > a.count ? b : a));
  ok(most.height > 50, `${figure}: the highest bar is ${most.height} pixels high`);
  const [first, last] = [bars.reduce((a, b) => (b.x < a.x ? b : a)), bars.reduce((a, b) => (b.x > a.x ? b : a))];
  for (const { count, x, middle, height } of bars) {
    near(height, (most.height * count) / most.count, `${figure}: the bar of ${x}`, 0, 2);
    const share = first.x === last.x ? 0 : (x - first.x) / (last.x - first.x);
    near(middle, first.middle + share * (last.middle - first.middle), `${figure}: the middle of the bar of ${x}`, 0, 2);
  }
}

// What is expected, in float64

function statistics(row: ArrayLike<number>) {
  const values = Array.from(row);
  const average = (of: number[]) => of.reduce((sum, value) => sum + value, 0) / of.length;
  const mean = average(values);
  return { mean, variance: average(values.map((v) => (v - mean) ** 2)), square: average(values.map((v) => v * v)) };
}

function norm(x: ArrayLike<number>, { rms = false, eps = 1e-5, weight = 1, bias = 0 } = {}) {
  const { mean, variance, square } = statistics(x);
  const rstd = 1 / Math.sqrt((rms ? square : variance) + eps);
  const y = Array.from(x, (value) => (value - (rms ? 0 : mean)) * rstd * weight + (rms ? 0 : bias));
  return { y, rstd };
}

function counts(row: ArrayLike<number>, end: number): number[] {
  const found = new Array<number>(101).fill(0);
  for (const value of Array.from(row)) {
    const bin = Math.round(50 + (50 * value) / end);
    found[bin] = (found[bin] as number) + 1;
  }
  return found;
}

const START = { cols: 10, mean: 4, spread: 2.5, outlier: 0, eps: -5, weight: 1, bias: 0 };

async function normShows(rms: boolean, positions: Partial<typeof START>) {
  const at = { ...START, ...positions };
  for (const [name, position] of Object.entries(at)) move(`norm-${name}`, position);
  const what = `${rms ? "RMSNorm" : "LayerNorm"} with ${JSON.stringify(positions)}`;
  const numbers = normal(4096, 1).slice(0, 2 ** at.cols);
  const row = numbers.map((value) => value * at.spread + at.mean);
  row[0] = (row[0] as number) + at.outlier;
  const eps = at.eps === -13 ? 0 : 10 ** at.eps;
  const { y, rstd } = norm(row, { rms, eps, weight: at.weight, bias: at.bias });
  near(shown("norm-cols-value"), row.length, `columns, ${what}`);
  near(shown("norm-eps-value"), eps, `eps, ${what}`, 1e-3, 0);
  near(shown("norm-rstd"), rstd, `rstd, ${what}`);
  const [middles, ...bars] = (await table("norm-chart")) as [number[], number[], number[]];
  const largest = Math.max(...[...row, ...y].map(Math.abs));
  const end = middles[100] as number;
  ok([20, 50, 100, 200, 500].find((one) => one >= largest) === end, `the axis ends at ${end}, ${what}`);
  for (const [i, [when, values]] of (
    [
      ["before", row],
      ["after", y],
    ] as const
  ).entries()) {
    // A float32 has an error of up to 2^-24 of the largest number, and its square of twice that.
    const largest = Math.max(1, ...Array.from(values, Math.abs));
    for (const [name, value] of Object.entries(statistics(values))) {
      near(shown(`norm-${name}-${when}`), value, `${name} ${when}, ${what}`, 1e-3, 2 ** -22 * largest ** 2);
    }
    const expected = counts(values, end);
    // Numbers at the edge of a bin may fall to either side once they are rounded to float32.
    const strays = bars[i]?.reduce((sum, count, bin) => sum + Math.abs(count - (expected[bin] as number)), 0) as number;
    ok(strays <= (when === "before" ? 0 : 4), `${strays} numbers of ${row.length} in other bins ${when}, ${what}`);
  }
  await drawnBars("norm-chart", middles, [
    { color: "--before", counts: bars[0] as number[] },
    { color: "--after", counts: bars[1] as number[] },
  ]);
  const sentence = $("#norm-chart figcaption").textContent as string;
  ok(sentence.includes(`${row.length} numbers`), `the sentence, ${what}`);
  ok(sentence.includes("The lines are at the outlier.") === (at.outlier !== 0), `what it says of lines, ${what}`);
}

const TOKENS = 8;

function drift(layers: number, cols: number): number[][] {
  const next = uniform(30);
  const { fround } = Math;
  const draw = (count: number, bound: number) => Array.from({ length: count }, () => fround((2 * next() - 1) * bound));
  const rows = (x: number[]) => Array.from({ length: TOKENS }, (_, i) => x.slice(i * cols, (i + 1) * cols));
  const normalized = (x: number[]) => rows(x).flatMap((row) => norm(row).y);
  const gelu = (v: number) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v)));
  const deviation = (x: number[]) => Math.sqrt(statistics(x).variance);
  const input = draw(TOKENS * cols, Math.sqrt(3));
  let [none, pre, post] = [input, input, input];
  const lines = [[deviation(none)], [deviation(pre)], [deviation(post)]] as [number[], number[], number[]];
  for (let layer = 0; layer < layers; layer++) {
    const [inner, edge] = [4 * cols, 1 / Math.sqrt(cols)];
    const [up, upBias] = [draw(inner * cols, edge), draw(inner, edge)];
    const [down, downBias] = [draw(inner * cols, edge / 2), draw(cols, edge / 2)];
    const block = (x: number[], added: number[]) =>
      rows(x).flatMap((row, token) => {
        const hidden = upBias.map((bias, o) =>
          gelu(row.reduce((sum, v, i) => sum + v * (up[o * cols + i] as number), bias)),
        );
        return downBias.map(
          (bias, o) =>
            hidden.reduce((sum, v, i) => sum + v * (down[o * inner + i] as number), bias) +
            (added[token * cols + o] as number),
        );
      });
    none = block(none, none);
    pre = block(normalized(pre), pre);
    post = normalized(block(post, post));
    lines[0].push(deviation(none));
    lines[1].push(deviation(pre));
    lines[2].push(deviation(post));
  }
  return lines;
}

/** Errors in units at a position of the slider: of the package, and of two passes in float32. */
function errorsAt(position: number): [number, number] {
  const offset = position === 0 ? 0 : 10 ** ((position - 1) / 8);
  const x = normal(768, 2).map((value) => value + offset);
  // Less its first number, which is exact in float64, the row is near zero.
  const { y } = norm(Array.from(x, (value) => value - (x[0] as number)));
  const f = new Float32Array(4); // sum, mean, squares, rstd
  const rounded = (value: number) => Math.fround(value);
  for (const value of x) f[0] = (f[0] as number) + value;
  f[1] = (f[0] as number) / 768;
  for (const value of x) {
    const difference = rounded(value - (f[1] as number));
    f[2] = (f[2] as number) + rounded(difference * difference);
  }
  f[3] = 1 / rounded(Math.sqrt(rounded(rounded((f[2] as number) / 768) + rounded(1e-5))));
  const usual = x.map((value) => rounded(value - (f[1] as number)) * (f[3] as number));
  const unit = 2 ** -23 * Math.max(...y.map(Math.abs));
  const worst = (got: Float32Array) => Math.max(...y.map((value, i) => Math.abs((got[i] as number) - value))) / unit;
  return [worst(layerNorm(x, 768)), worst(usual)];
}

/** The losses of a student in float64. */
function learning(rate: number): number[] {
  const [rows, cols] = [32, 64];
  const teacher = {
    weight: Float32Array.from({ length: cols }, (_, i) => 1 + 0.5 * Math.sin(i / 5)),
    bias: Float32Array.from({ length: cols }, (_, i) => 0.5 * Math.cos(i / 3)),
  };
  const weight = new Array<number>(cols).fill(1);
  const bias = new Array<number>(cols).fill(0);
  return Array.from({ length: 100 }, (_, step) => {
    const x = normal(rows * cols, 100 + step);
    const xhat = Array.from({ length: rows }, (_, row) => norm(x.subarray(row * cols, (row + 1) * cols)).y);
    let loss = 0;
    for (let i = 0; i < cols; i++) {
      const apart = xhat.map(
        (row) =>
          (row[i] as number) * ((weight[i] as number) - (teacher.weight[i] as number)) +
          (bias[i] as number) -
          (teacher.bias[i] as number),
      );
      loss += apart.reduce((sum, value) => sum + value ** 2, 0) / 2 / rows;
      const dweight = apart.reduce((sum, value, row) => sum + value * (xhat[row]?.[i] as number), 0) / rows;
      const dbias = apart.reduce((sum, value) => sum + value, 0) / rows;
      weight[i] = (weight[i] as number) - rate * dweight;
      bias[i] = (bias[i] as number) - rate * dbias;
    }
    return loss;
  });
}

const axeFinds = async (scheme: string) => {
  document.documentElement.style.colorScheme = scheme;
  await sleep(50);
  const { violations } = await axe.run(document);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  ok(found.length === 0, `${scheme}: ${found.join("; ")}`);
  document.documentElement.style.colorScheme = "";
};

async function runBench(tensorflow: boolean) {
  const box = $<HTMLInputElement>("[name=tensorflow]");
  if (box.checked !== tensorflow) click("[name=tensorflow]");
  click("#bench-run");
  await until(() => /^(Done|It failed)/.test($<HTMLOutputElement>("#bench-status").value), "the bench", 60_000);
}

async function sections() {
  await test("each slider has a label, and its value in words", () => {
    for (const input of document.querySelectorAll<HTMLInputElement>("input[type=range]")) {
      ok((input.labels?.length ?? 0) === 1, `${input.id} has no label`);
      ok(
        input.getAttribute("aria-valuetext") === $<HTMLOutputElement>(`#${input.id}-value`).value,
        `${input.id}: its words`,
      );
    }
  });

  await test("what can be operated can be reached by keyboard, and shows it", () => {
    for (const control of document.querySelectorAll<HTMLElement>("a, button, input, select, textarea, summary")) {
      if (!control.checkVisibility()) continue;
      control.focus();
      ok(document.activeElement === control && control.tabIndex === 0, `${control.outerHTML} takes no focus`);
      const { outlineStyle, outlineWidth } = getComputedStyle(control);
      ok(
        outlineStyle === "solid" && Number.parseFloat(outlineWidth) >= 2,
        `${control.outerHTML}: ${outlineWidth} ${outlineStyle}`,
      );
    }
    document.body.focus();
  });

  for (const rms of [false, true]) {
    const name = rms ? "RMSNorm" : "LayerNorm";
    await test(`${name}: histograms and statistics are those of float64, wherever the sliders stand`, async () => {
      click(`[name=norm][value=${rms ? "rmsNorm" : "layerNorm"}]`);
      ok($<HTMLInputElement>("#norm-bias").disabled === rms, "the bias is the other norm's");
      await normShows(rms, {});
      const moves = {
        cols: [2, 7, 12],
        mean: [-10, 0.3],
        spread: [0, 0.1, 10],
        outlier: [-37, 100],
        eps: [-13, 2],
        weight: [-3, 0.5],
        bias: [-5, 2.5],
      };
      for (const [slider, positions] of Object.entries(moves)) {
        for (const position of positions) await normShows(rms, { [slider]: position });
      }
      await normShows(rms, { cols: 3, mean: -2, spread: 7, outlier: 60, eps: -1, weight: 2, bias: 1 });
      // A row of equal numbers, and no eps: 0 / 0.
      for (const [slider, position] of Object.entries({ mean: 0, spread: 0, outlier: 0, eps: -13 })) {
        move(`norm-${slider}`, position);
      }
      ok($("#norm-chart figcaption").textContent?.includes("After: no numbers") ?? false, "the sentence of 0 / 0");
      for (const [slider, position] of Object.entries(START)) move(`norm-${slider}`, position);
    });
  }
  click("[name=norm][value=layerNorm]");

  await test("drift: three lines as in float64, at any depth and width", async () => {
    for (const [depth, width] of [
      [1, 3],
      [60, 5],
      [7, 6],
      [30, 4],
    ] as const) {
      move("drift-depth", depth);
      move("drift-width", width);
      const lines = drift(depth, 2 ** width);
      const [layers, ...found] = (await table("drift-chart")) as [number[], number[], number[], number[]];
      ok(layers.length === depth + 1, `${layers.length} layers`);
      found.forEach((line, i) => {
        line.forEach((value, layer) => {
          near(
            value,
            lines[i]?.[layer] as number,
            `line ${i} at layer ${layer} of ${depth} with ${2 ** width} columns`,
          );
        });
      });
      const [none, pre, post] = lines as [number[], number[], number[]];
      await drawn("drift-chart", layers, [
        { color: "--rival", ys: none },
        { color: "--ours", ys: pre },
        { color: "--third", dashed: true, ys: post },
      ]);
    }
    ok($("#drift-chart figcaption").textContent?.startsWith("After 30 layers of 16 columns") ?? false, "the sentence");
  });

  await test("exactness: units against float64 at any offset, ours below 4", async () => {
    const all = Array.from({ length: 58 }, (_, position) => errorsAt(position));
    const [ours, usual] = [all.map(([own]) => own), all.map(([, other]) => other)];
    for (const position of [0, 1, 20, 57, 33]) {
      move("exact-offset", position);
      near(shown("exact-offset-value"), position === 0 ? 0 : 10 ** ((position - 1) / 8), "the offset");
      near(shown("exact-ours"), ours[position] as number, `ours at ${position}`, 0.01);
      near(shown("exact-usual"), usual[position] as number, `the usual formula at ${position}`, 0.01);
    }
    ok(Math.max(...ours) < 4 && (usual[57] as number) > 1e5, `${Math.max(...ours)} and ${usual[57]} units`);
    const [offsets, first, second] = (await table("exact-chart")) as [number[], number[], number[]];
    first.forEach((value, i) => {
      near(value, ours[i] as number, `ours in the table, row ${i}`, 0.01);
    });
    second.forEach((value, i) => {
      near(value, usual[i] as number, `the usual formula in the table, row ${i}`, 0.01);
    });
    const lines = [
      { color: "--ours", ys: ours },
      { color: "--rival", dashed: true, ys: usual },
    ];
    await drawn("exact-chart", offsets, lines, Math.asinh, Math.log);
  });
}

async function learningAndBench() {
  await test("learning: the loss falls as in float64, and the student becomes the teacher", async () => {
    if (isolated) {
      click("#learning-run");
      await until(() => !$("#learning-loss figcaption").textContent?.startsWith("No step"), "the first step");
      click("#learning-run"); // pauses
      await sleep(50);
      const paused = $("#learning-loss figcaption").textContent;
      await sleep(100);
      ok($("#learning-loss figcaption").textContent === paused, "it goes on when it is paused");
      ok($("#learning-run").textContent === "Go on", "the button");
    }
    for (const rate of [1.5, 0.5]) {
      click("#learning-reset");
      ok($("#learning-loss figcaption").textContent === "No step yet.", "it isn't reset");
      await sleep(0);
      const labels = hooks.labels.get($<HTMLCanvasElement>("#learning-loss canvas")) ?? [];
      ok(labels.includes("100") && labels.includes("10⁻¹⁴"), `the axes without a step: ${labels}`);
      move("learning-rate", rate);
      click("#learning-run");
      await until(() => $("#learning-run").textContent === "Start again", "the last step");
      const expected = learning(rate);
      const [steps, losses] = (await table("learning-loss")) as [number[], number[]];
      ok(losses.length === 100, `${losses.length} steps`);
      losses.forEach((loss, i) => {
        // Where the student is the teacher but for roundings, the loss is that of the roundings.
        near(loss, expected[i] as number, `the loss of step ${i + 1} at ${rate}`, 0.01, 1e-9);
      });
      const some = steps.filter((_, i) => (losses[i] as number) > 0); // a loss of 0 is on no logarithmic axis
      const ys = losses.filter((loss) => loss > 0);
      await drawn("learning-loss", some, [{ color: "--ours", ys }], undefined, Math.log);
    }
    const columns = (await table("learning-parameters")) as number[][];
    const [at, , weight, , bias] = columns as [number[], number[], number[], number[], number[]];
    const truth = [at.map((i) => 1 + 0.5 * Math.sin(i / 5)), at.map((i) => 0.5 * Math.cos(i / 3))] as const;
    at.forEach((i) => {
      near(weight[i] as number, truth[0][i] as number, `weight ${i}`);
      near(bias[i] as number, truth[1][i] as number, `bias ${i}`);
    });
    await drawn("learning-parameters", at, [
      { color: "--ours-soft", ys: truth[0] },
      { color: "--ours", ys: truth[0] },
      { color: "--rival-soft", ys: truth[1] },
      { color: "--rival", ys: truth[1] },
    ]);
  });

  await test("the bench can be cancelled midway", async () => {
    ok(crossOriginIsolated === isolated, `isolated: ${crossOriginIsolated}`);
    const says = isolated ? "is cross-origin isolated" : "is not cross-origin isolated";
    ok($("#bench-isolation").textContent?.includes(says) ?? false, "what the page says of it");
    click("#bench-run");
    await until(() => $<HTMLProgressElement>("#bench-progress").value > 0.2, "the bench to time");
    ok($("#bench-run").textContent === "Cancel" && !$("#bench-progress").hidden, "the button and the bar");
    click("#bench-run");
    await sleep(200);
    ok($<HTMLOutputElement>("#bench-status").value === "Cancelled.", $<HTMLOutputElement>("#bench-status").value);
    ok($("#bench-results").hidden === true && $("#bench-progress").hidden === true, "something of it is still there");
    ok($("#bench-run").textContent === "Run", "the button");
  });

  await test("the bench times all contenders, and the golden digest agrees", async () => {
    const shape = $<HTMLSelectElement>("[name=shape]");
    shape.value = "128x768";
    used.add(shape);
    await runBench(isolated);
    const status = $<HTMLOutputElement>("#bench-status").value;
    ok(status === "Done.", status);
    const rows = [...document.querySelectorAll<HTMLElement>("#bench-rows tr")];
    const names = rows.map((row) => row.querySelector("th")?.textContent);
    const threads = isolated ? [`ours, ${navigator.hardwareConcurrency} threads`] : [];
    const rivals = isolated ? ["TensorFlow.js, its layer", "TensorFlow.js, tf.moments by hand"] : [];
    const expected = ["ours, one thread", ...threads, "ours, Float32Arrays", "plain JavaScript", ...rivals];
    ok(names.join() === expected.join(), names.join());
    const times = rows.map((row) => {
      const [, number, unit] = /^([\d.]+) (µs|ms)$/.exec(row.querySelector("td")?.textContent ?? "") ?? [];
      return Number(number) * (unit === "ms" ? 1000 : 1);
    });
    const fastest = Math.min(...times);
    rows.forEach((row, i) => {
      const time = times[i] as number;
      ok(row.querySelectorAll("td")[1]?.textContent?.endsWith(" × as long") ?? false, `the words of ${names[i]}`);
      near(
        Number.parseFloat(row.querySelectorAll("td")[1]?.textContent ?? ""),
        time / (times[0] as number),
        `the ratio of ${names[i]}`,
        0.01,
      );
      near(
        Number.parseFloat(row.querySelector<HTMLElement>(".bar")?.style.width ?? ""),
        (100 * fastest) / time,
        `the bar of ${names[i]}`,
        0.01,
      );
    });
    ok($<HTMLOutputElement>("#bench-digest").value.includes(`${GOLDEN.slice(0, 16)}…, agrees`), "the digest");
    const line = $<HTMLTextAreaElement>("#bench-line").value;
    for (const part of [...names, `digest ${GOLDEN.slice(0, 16)} agrees`, navigator.userAgent]) {
      ok(line.includes(part as string), `the line lacks ${part}: ${line}`);
    }
    click("#bench-copy");
    await until(() => $<HTMLOutputElement>("#bench-copied").value !== "", "the copy");
  });
}

async function withoutTensorFlow() {
  await test("TensorFlow.js is loaded only when asked for: where it is missing, only that says so", async () => {
    await runBench(true);
    const status = $<HTMLOutputElement>("#bench-status").value;
    ok(status.startsWith("It failed: "), status);
    hooks.problems.length = 0; // its absence
  });
}

async function whole() {
  await test("every control was used", () => {
    const all = [...document.querySelectorAll("main :is(a, button, input, select)")];
    const unused = all.filter((control) => !used.has(control));
    ok(unused.length === 0, unused.map((control) => control.outerHTML).join());
  });

  await test("axe finds nothing, light and dark", async () => {
    for (const details of document.querySelectorAll("details")) details.open = details.closest("#drift") !== null;
    await axeFinds("light");
    await axeFinds("dark");
  });

  await test("at 320 pixels nothing is scrolled sideways, and charts follow the width", async () => {
    const frame = document.createElement("iframe");
    frame.style.cssText = "width: 320px; height: 640px; border: 0";
    frame.src = "index.html";
    document.body.append(frame);
    const inside = (selector: string) => frame.contentDocument?.querySelector<HTMLElement>(selector);
    await until(() => (inside("#learning-parameters canvas")?.clientWidth ?? 0) > 0, "the page at 320 pixels");
    const copy = frame.contentDocument?.importNode($("#bench-results"), true) as HTMLElement;
    inside("#bench-results")?.replaceWith(copy);
    for (const width of [320, 600, 320]) {
      frame.style.width = `${width}px`;
      await sleep(200);
      const page = frame.contentDocument?.documentElement as HTMLElement;
      const stray = [...page.querySelectorAll("*")].filter(
        (one) => one.getBoundingClientRect().right > page.clientWidth,
      );
      const names = stray.map((one) => one.outerHTML.slice(0, 80)).join("\n");
      ok(page.scrollWidth <= page.clientWidth, `${page.scrollWidth} of ${page.clientWidth}: ${names}`);
      for (const section of page.querySelectorAll("section")) {
        ok(
          section.scrollWidth <= section.clientWidth,
          `${section.id} is ${section.scrollWidth} of ${section.clientWidth} wide`,
        );
      }
      const [canvas, plot] = [inside("#drift-chart canvas"), inside("#drift-chart .plot")];
      near(canvas?.clientWidth ?? 0, plot?.clientWidth ?? 1, `the chart at ${width}`, 0, 1);
    }
    frame.remove();
  });

  await test("on a phone each chart comes before its sliders, and stays in view while they are scrolled", async () => {
    const frame = document.createElement("iframe");
    frame.style.cssText = "width: 390px; height: 844px; border: 0";
    frame.src = "index.html";
    document.body.append(frame);
    const inside = (selector: string) => frame.contentDocument?.querySelector<HTMLElement>(selector);
    await until(() => (inside("#learning-parameters canvas")?.clientWidth ?? 0) > 0, "the page at 390 pixels");
    await sleep(200);
    for (const name of ["norm", "drift", "exact"]) {
      const chart = inside(`#${name}-chart`) as HTMLElement;
      const sliders = [...(inside(`#${name}-form`)?.querySelectorAll("input[type=range]") ?? [])];
      ok(sliders.length > 0, `${name} has no sliders`);
      for (const slider of sliders) {
        slider.scrollIntoView({ block: "nearest", behavior: "instant" });
        const [plot, at] = [chart.querySelector(".plot")?.getBoundingClientRect(), slider.getBoundingClientRect()];
        ok(
          plot !== undefined && plot.top >= 0 && plot.bottom <= at.top && at.bottom < 845,
          `${slider.id} at ${at.top}`,
        );
      }
    }
    frame.remove();
  });

  await test("charts are drawn anew in the colors of the other scheme", async () => {
    const canvas = $<HTMLCanvasElement>("#drift-chart canvas");
    for (const scheme of ["light", "dark", "light"]) {
      document.documentElement.style.colorScheme = scheme;
      hooks.queries.get("(prefers-color-scheme: dark)")?.dispatchEvent(new Event("change"));
      await sleep(0);
      const colors = hooks.drawings.get(canvas)?.map(({ color }) => color);
      ok(colors?.includes(colorOf("--rival")) ?? false, `${scheme}: ${colors}`);
    }
  });
}

async function run() {
  await until(() => document.querySelector("#learning-loss canvas") !== null, "the charts");

  if (isolated) await sections();
  await learningAndBench();
  await (isolated ? whole() : withoutTensorFlow());
  await test("the console stayed empty", () => {
    ok(hooks.problems.length === 0, hooks.problems.join("; "));
  });
}

await run().catch((error) => failures.push(`${error} ${error.stack}; ${hooks.problems.join("; ")}`));
const report = parameters.get("report") as string;
await fetch(report, { method: "POST", body: JSON.stringify({ passed, failures }) });
