// Pictures of a run that was saved, drawn by `npm run bench -- --save NAME` and from its JSON alone by `npm run bench:chart`:
//
//   results/NAME.svg     GB/s of every contender at every shape, a table with a color for each power of two
//   results/readme.svg   ours beside others (SHOWN in contenders.ts) at two shapes, for the project's README; of README_RUN only
//
// `npm run bench:chart` also prints the tables of that run, for the README and bench/README.md. So picture and tables have
// the same figures, all of them ratios of times. Pictures follow the reader's color scheme.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ON_ARRAYS, OURS, SHOWN } from "./contenders.js";
import { type Goal, goals, type Result, reached } from "./goals.js";
import { PASSES, type Pass } from "./problem.js";

/** What is saved of a run. */
export interface Report {
  date: string;
  node: string;
  cpu: string | undefined;
  /** Of the contenders that have one. */
  versions: Record<string, string>;
  results: Result[];
  goals: Goal[];
}

const README_RUN = "node24-x64";
const README_SHAPES = [
  [1024, 768],
  [1, 768],
] as const;

const fileOf = (name: string) => new URL(`results/${name}`, import.meta.url);
const read = (name: string) => JSON.parse(readFileSync(fileOf(`${name}.json`), "utf8")) as Report;

/** Saves a run and its pictures. */
export function save(name: string, report: Report): void {
  writeFileSync(fileOf(`${name}.json`), `${JSON.stringify(report, null, 2)}\n`);
  draw(name);
}

/** Finds a result on a shape. */
const finder =
  (results: Result[], [rows, cols]: readonly [number, number]) =>
  (name: string, pass: Pass) =>
    results.find((r) => r.rows === rows && r.cols === cols && r.pass === pass && r.name === name);

/** The pictures of what bench/results/NAME.json holds, by the names of their files. */
export function pictures(name: string): Record<string, string> {
  const report = read(name);
  return { [`${name}.svg`]: table(report), ...(name === README_RUN && { "readme.svg": bars(report) }) };
}

function draw(name: string): void {
  for (const [file, svg] of Object.entries(pictures(name))) writeFileSync(fileOf(file), svg);
}

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const text = (x: number, y: number, content: string, attributes = "") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;

const rect = (x: number, y: number, width: number, height: number, attributes: string) =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" ${attributes}/>`;

/** @param light, dark the rules of the two color schemes, beside those of the page and its text */
function picture(width: number, height: number, title: string, light: string, dark: string, parts: string[]): string {
  const page = (back: string, ink: string, faint: string) =>
    `.back { fill: ${back} } text { fill: ${ink} } .faint { fill: ${faint} }`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" role="img">
<title>${escaped(title)}</title>
<style>
${page("#fff", "#1f2328", "#59636e")} ${light}
.end { text-anchor: end } .middle { text-anchor: middle } .bold { font-weight: bold }
@media (prefers-color-scheme: dark) { ${page("#0d1117", "#f0f6fc", "#9198a1")} ${dark} }
</style>
<rect class="back" width="${width}" height="${height}"/>
${parts.join("\n")}
</svg>
`;
}

/** Times of calls as bars, longer for faster ones. */
function bars({ results, versions, node, cpu, date }: Report): string {
  const [width, left, column, bar, line, head, top] = [640, 186, 226, 118, 22, 52, 34];
  const group = head + SHOWN.length * line + 8;
  const height = top + README_SHAPES.length * group + 26;
  const title = "Time of a call of layer normalization, forward and backward";
  const heading = "Time of a call of LayerNorm, float32, on one thread. Longer bars are faster.";
  const parts = [text(10, 22, heading, 'font-size="14"')];
  for (const [i, shape] of README_SHAPES.entries()) {
    const start = top + i * group;
    const find = finder(results, shape);
    parts.push(text(10, start + 38, shape.join(" × "), 'class="bold" font-size="14"'));
    for (const [j, pass] of PASSES.entries()) {
      const x = left + j * column;
      parts.push(text(x, start + 38, pass, 'class="bold" font-size="14"'));
      const fastest = Math.min(...SHOWN.map(({ name }) => find(name, pass)?.best ?? Infinity));
      const ours = find(OURS, pass)?.best;
      for (const [k, { name, label = name, missing = "not measured" }] of SHOWN.entries()) {
        const y = start + head + k * line;
        const style = name === OURS ? "bold" : "";
        const named = withVersion(label, versions[name]);
        if (j === 0) parts.push(text(left - 8, y + 12, named, `class="end ${style}" font-size="12.5"`));
        const time = find(name, pass)?.best;
        if (time === undefined) {
          parts.push(text(x, y + 12, missing, 'class="faint" font-size="12"'));
          continue;
        }
        const length = Math.max(1.5, (bar * fastest) / time);
        const times = ours && name !== OURS ? `, ${significant(time / ours)} ×` : "";
        const color = name === OURS ? "ours" : name === ON_ARRAYS ? "arrays" : "other";
        parts.push(rect(x, y, length, line - 7, `class="${color}" rx="1.5"`));
        parts.push(text(x + length + 5, y + 12, duration(time) + times, `class="${style}" font-size="12"`));
      }
    }
  }
  const caption = `n × is n × as long as ours. ${origin(node, cpu, date)}`;
  parts.push(text(10, height - 10, caption, 'class="faint" font-size="12"'));
  const colors = (ours: string, arrays: string, other: string) =>
    `.ours { fill: ${ours} } .arrays { fill: ${arrays} } .other { fill: ${other} }`;
  const [light, dark] = [colors("#6f42e8", "#a58bff", "#b6bec8"), colors("#a58bff", "#6f42e8", "#545d68")];
  return picture(width, height, title, light, dark, parts);
}

const origin = (node: string, cpu: string | undefined, date: string) =>
  `Node ${node.slice(1)}, ${cpu}, ${date.slice(0, 10)}.`;

/** A label with the version of the library, major and minor, before the comma that a label may have. */
function withVersion(label: string, version = ""): string {
  const [name, ...rest] = label.split(", ");
  const number = /^\d+\.\d+/.exec(version);
  return [number ? `${name} ${number}` : name, ...rest].join(", ");
}

/** The tables of a run in Markdown: of the README, of the first of its shapes, and the goals, of bench/README.md. */
export function tables(name = README_RUN): { calls: string; goals: string } {
  const { results, versions } = read(name);
  const find = finder(results, README_SHAPES[0]);
  const calls = SHOWN.map(({ name, label = name, code = label }) => {
    const cells = PASSES.flatMap((pass) => {
      const [time, ours] = [find(name, pass)?.best, find(OURS, pass)?.best];
      return time && ours ? [duration(time), significant(time / ours)] : ["", ""];
    });
    return [withVersion(code, versions[name]), ...cells];
  });
  const met = goals(results);
  const got = [...new Set(met.map(({ goal }) => goal))].map((goal) => {
    const cells = PASSES.map((pass) => {
      const found = met.find((each) => each.goal === goal && each.pass === pass);
      return found ? `${found.got.toFixed(2)}, ${found.bound} ${found.limit}${reached(found) ? "" : ": missed"}` : "";
    });
    return [goal.replaceAll(/(\d)x(?=\d)/g, "$1 × "), ...cells];
  });
  const head = [README_SHAPES[0].join(" × "), ...PASSES.flatMap((pass) => [pass, "× as long"])];
  return { calls: aligned([head, ...calls]), goals: aligned([["× as long", ...PASSES], ...got]) };
}

/** A table in Markdown, whose columns are as wide as their widest cells. */
function aligned([head = [], ...lines]: string[][]): string {
  const widths = head.map((_, i) => Math.max(...[head, ...lines].map((cells) => (cells[i] as string).length)));
  const row = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i] as number)).join(" | ")} |`;
  return [row(head), row(widths.map((width) => "-".repeat(width))), ...lines.map(row)].join("\n");
}

const significant = (value: number) => (value < 9.95 ? value.toPrecision(2) : value.toFixed(0));

/** Milliseconds, in words. */
const duration = (ms: number) => (ms < 0.0995 ? `${significant(1000 * ms)} µs` : `${significant(ms)} ms`);

/** What a color stands for: up to so many GB/s. */
const STEPS = [1, 2, 4, 8, 16, 32, 64, Infinity];
const BLUES = ["#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#084594"];
/** From which of them on the figures are white. */
const WHITE = 5;

/** GB/s of every contender at every shape. */
function table({ results, node, cpu, date }: Report): string {
  const [left, cell, line, head] = [356, 38, 18, 62];
  const shapes = new Map(results.map(({ rows, cols }) => [`${rows}x${cols}`, { rows, cols }]));
  const columns = [...shapes.values()].sort((a, b) => a.cols - b.cols || a.rows - b.rows);
  const width = left + columns.length * cell + 10;
  const parts: string[] = [];
  let y = 10;
  for (const pass of PASSES) {
    parts.push(text(10, y + 20, `${pass}, GB/s`, 'class="bold" font-size="15"'));
    parts.push(text(left - 8, y + 38, "rows", 'class="end faint" font-size="11"'));
    parts.push(text(left - 8, y + 52, "columns", 'class="end faint" font-size="11"'));
    for (const [i, { rows, cols }] of columns.entries()) {
      const x = left + (i + 0.5) * cell;
      parts.push(text(x, y + 38, `${rows}`, 'class="middle" font-size="11"'));
      parts.push(text(x, y + 52, `${cols}`, 'class="middle" font-size="11"'));
    }
    y += head;
    for (const name of new Set(results.flatMap((result) => (result.pass === pass ? [result.name] : [])))) {
      const style = name === "kernel" ? "bold" : "";
      parts.push(text(left - 8, y + 13, name, `class="end ${style}" font-size="11.5"`));
      for (const [i, { rows, cols }] of columns.entries()) {
        const result = finder(results, [rows, cols])(name, pass);
        // The kernel of a rival is a difference of two times, which on small shapes may be negative.
        if (!result || result.best <= 0) continue;
        const step = STEPS.findIndex((most) => result.gigabytes < most);
        const x = left + i * cell;
        parts.push(rect(x, y, cell - 1, line - 1, `fill="${BLUES[step]}"`));
        const ink = step < WHITE ? "black" : "white";
        const figure = result.gigabytes < 0.1 ? result.gigabytes.toPrecision(1) : significant(result.gigabytes);
        parts.push(text(x + cell / 2, y + 13, figure, `class="middle ${ink}" font-size="11"`));
      }
      y += line;
    }
    y += 16;
  }
  const what = "One thread unless said otherwise, float32, fastest rounds; empty where not measured.";
  parts.push(text(10, y + 8, `${what} ${origin(node, cpu, date)}`, 'class="faint" font-size="12"'));
  const title = "Speed of layer normalization, forward and backward, by contender and shape";
  // Two classes, to outweigh the color of text.
  return picture(width, y + 20, title, "text.black { fill: #111 } text.white { fill: #fff }", "", parts);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  draw(process.argv[2] ?? README_RUN);
  for (const table of Object.values(tables(process.argv[2]))) console.log(`${table}\n`);
}
