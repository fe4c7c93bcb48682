// A chart in a <figure>: the plot, a key with the values under the pointer, a sentence and a table that say the same.

import uPlot from "uplot";
import { words } from "./controls.js";

export interface Axis {
  label: string;
  /** "log", or "asinh": logarithmic with a zero. */
  scale?: "log" | "asinh";
  /** The ends of the axis; by default they fit the data. */
  ends?: (least: number, most: number) => [number, number];
  /** Only whole numbers are written on it. */
  whole?: boolean;
}

export interface Series {
  label: string;
  /** A custom property of style.css. */
  color: `--${string}`;
  /** In place of a thin line; bars go from zero up, with their x in the middle. */
  style?: "dashed" | "wide" | "bars";
}

/** A place on the x axis, and a custom property of style.css. */
export type Mark = [at: number, color: `--${string}`];

export interface Chart {
  /**
   * @param x ascending
   * @param ys as many series of the same length
   * @param summary what the chart shows, in a sentence
   * @param marks where to draw vertical lines
   */
  draw(x: number[], ys: number[][], summary: string, ...marks: Mark[]): void;
}

const DISTRIBUTIONS = { linear: 1, log: 3, asinh: 4 } as const;
const FONT = "13px system-ui, sans-serif";

const dark = matchMedia("(prefers-color-scheme: dark)");
const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

/** What a custom property stands for now, light or dark. */
function colorOf(name: string): string {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

export function chart(figure: HTMLElement, xAxis: Axis, yAxis: Axis, series: Series[]): Chart {
  const caption = figure.querySelector("figcaption") as HTMLElement;
  caption.id ||= `${figure.id}-caption`;

  const key = document.createElement("ul");
  key.className = "key";
  const title = document.createElement("li");
  title.textContent = `${yAxis.label}:`;
  key.append(title);
  const readings = series.map(({ label, color, style = "" }) => {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = `swatch ${style}`;
    swatch.style.color = `var(${color})`;
    const reading = document.createElement("span");
    reading.className = "reading";
    reading.ariaHidden = "true";
    item.append(swatch, label, reading);
    key.append(item);
    return reading;
  });

  const plot = document.createElement("div");
  plot.className = "plot";
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-labelledby", caption.id);

  const details = document.createElement("details");
  details.innerHTML = `<summary>As a table</summary><div class="scroll" tabindex="0" role="group" aria-label="Table"><table></table></div>`;
  figure.append(key, plot, caption, details);

  let data: [x: number[], ...ys: number[][]] = [[]];
  let marks: Mark[] = [];
  const axis = ({ scale, whole }: Axis, size: number): uPlot.Axis => ({
    font: FONT,
    size,
    gap: 6,
    stroke: () => colorOf("--muted"),
    grid: { stroke: () => colorOf("--grid"), width: 1 },
    ticks: { show: false },
    ...(whole && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] }),
    ...(scale && {
      filter: (_: uPlot, splits: number[]) => splits,
      splits: (_: uPlot, __: number, least: number, most: number) => decades(least, most, scale),
      values: (_: uPlot, splits: number[]) => splits.map(powerOfTen),
    }),
  });
  const scaleOf = ({ scale, ends }: Axis): uPlot.Scale => ({
    time: false,
    distr: DISTRIBUTIONS[scale ?? "linear"],
    ...(ends && { range: (_: uPlot, least: number, most: number) => ends(least, most) }),
  });
  const bars = series[0]?.style === "bars";
  /** With room for half a bar at both ends. */
  const endsOfBars = (least: number, most: number): [number, number] => {
    const half = (most - least) / (data[0].length - 1) / 2;
    return [least - half, most + half];
  };
  const size = () => ({ width: plot.clientWidth, height: plot.clientHeight });
  const view = new uPlot(
    {
      ...size(),
      scales: { x: scaleOf(bars ? { ...xAxis, ends: endsOfBars } : xAxis), y: scaleOf(yAxis) },
      axes: [{ ...axis(xAxis, 30), label: xAxis.label, labelSize: 20, labelGap: 0, labelFont: FONT }, axis(yAxis, 44)],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { show: !bars } },
      series: [
        {},
        ...series.map(
          ({ label, color, style }): uPlot.Series => ({
            label,
            stroke: () => colorOf(color),
            width: style === "bars" ? 0 : style === "wide" ? 8 : 2,
            points: { show: false },
            ...(style === "dashed" && { dash: [6, 4] }),
            ...(style === "bars" && {
              fill: () => colorOf(color),
              paths: uPlot.paths.bars?.({ size: [1, 100] }),
            }),
          }),
        ),
      ],
      hooks: {
        setCursor: [
          ({ cursor: { idx }, data }) => {
            for (const [i, reading] of readings.entries()) {
              const value = idx == null ? null : data[i + 1]?.[idx];
              reading.textContent = value == null ? "" : words(value, 3);
            }
          },
        ],
        draw: [
          ({ ctx, bbox, valToPos }) => {
            ctx.save();
            ctx.lineWidth = devicePixelRatio;
            ctx.setLineDash([]);
            for (const [at, color] of marks) {
              const left = Math.round(valToPos(at, "x", true));
              ctx.strokeStyle = colorOf(color);
              ctx.beginPath();
              ctx.moveTo(left, bbox.top);
              ctx.lineTo(left, bbox.top + bbox.height);
              ctx.stroke();
            }
            ctx.restore();
          },
        ],
      },
    },
    [[], ...series.map(() => [])],
    plot,
  );
  new ResizeObserver(() => view.setSize(size())).observe(plot);
  dark.addEventListener("change", () => view.redraw());

  const table = () => {
    if (!details.open) return;
    const row = (tag: string, cells: string[]) =>
      `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
    const [x, ...ys] = data;
    const head = row('th scope="col"', [xAxis.label, ...series.map(({ label }) => label)]);
    const body = x.map((at, i) =>
      row(
        "td",
        [at, ...ys.map((y) => y[i])].map((v) => words(v as number)),
      ),
    );
    (details.querySelector("table") as HTMLElement).innerHTML = `<thead>${head}</thead><tbody>${body.join("")}</tbody>`;
  };
  details.addEventListener("toggle", table);

  return {
    draw(x, ys, summary, ...at) {
      marks = at;
      data = [x, ...ys];
      // A zero is on no logarithmic axis.
      view.setData([x, ...ys.map((y) => (yAxis.scale === "log" ? y.map((value) => value || null) : y))]);
      caption.textContent = summary;
      table();
    },
  };
}

/** At most seven powers of ten, with a zero on an axis that has one. */
function decades(least: number, most: number, scale: "log" | "asinh"): number[] {
  const first = scale === "log" ? Math.floor(Math.log10(least)) : 0;
  const last = Math.floor(Math.log10(most));
  const step = Math.ceil((last - first + 1) / 7);
  const powers = scale === "log" ? [] : [0];
  for (let exponent = first; exponent <= last; exponent += step) powers.push(10 ** exponent);
  return powers;
}

function powerOfTen(value: number): string {
  const exponent = Math.round(Math.log10(value));
  return Math.abs(exponent) < 4 || value === 0 ? words(value) : `10${[...String(exponent)].map(raised).join("")}`;
}

const raised = (digit: string) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]);
