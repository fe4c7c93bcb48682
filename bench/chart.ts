// The picture of a run: GB/s over the shapes, a line for each contender, on a logarithmic scale; the copy is the roofline.

import type { Result } from "./bench.js";

const COLORS = [
  "#d62728",
  "#ff9896",
  "#1f77b4",
  "#2ca02c",
  "#9467bd",
  "#8c564b",
  "#e377c2",
  "#17becf",
  "#bcbd22",
  "#393b79",
];
const WIDTH = 900;
const HEIGHT = 360;
const LEFT = 60;
const RIGHT = 250;
const TOP = 40;
const BOTTOM = 70;

export function chart(results: Result[], caption: string): string {
  const panels = (["forward", "backward"] as const).map((pass, i) => panel(results, pass, i * (HEIGHT + 10)));
  const height = panels.length * (HEIGHT + 10) + 20;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">
<title>Speed of layer normalization, forward and backward</title>
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
${panels.join("\n")}
<text x="${LEFT}" y="${height - 8}" fill="#555">${caption.replace(/[<&]/g, " ")}; one thread, float32, fastest rounds</text>
</svg>
`;
}

function panel(results: Result[], pass: string, top: number): string {
  const own = results.filter((result) => result.pass === pass && result.name !== "read");
  const shapes = [...new Set(own.map(({ rows, cols }) => `${rows}x${cols}`))].sort((a, b) => sizeOf(a) - sizeOf(b));
  const names = [...new Set(own.map(({ name }) => name))];
  const speeds = own.map(({ gigabytes }) => gigabytes).filter((speed) => speed > 0);
  const low = Math.floor(Math.log10(Math.min(...speeds)));
  const high = Math.log10(Math.max(...speeds)) + 0.1;
  const x = (i: number) => LEFT + (i * (WIDTH - LEFT - RIGHT)) / Math.max(1, shapes.length - 1);
  const y = (speed: number) => top + TOP + ((high - Math.log10(speed)) * (HEIGHT - TOP - BOTTOM)) / (high - low);
  const parts = [
    `<text x="${LEFT}" y="${top + 22}" font-size="14" font-weight="bold">${pass}, GB/s over rows x columns</text>`,
  ];
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power).toFixed(1);
    parts.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}" stroke="#ddd"/>`);
    parts.push(`<text x="${LEFT - 6}" y="${at}" text-anchor="end" dominant-baseline="middle">${10 ** power}</text>`);
  }
  for (const [i, shape] of shapes.entries()) {
    const [at, base] = [x(i).toFixed(1), top + HEIGHT - BOTTOM + 12];
    parts.push(`<text x="${at}" y="${base}" text-anchor="end" transform="rotate(-40 ${at} ${base})">${shape}</text>`);
  }
  for (const [k, name] of names.entries()) {
    const color = name === "copy" ? "#999" : COLORS[k % COLORS.length];
    const points = shapes.flatMap((shape, i) => {
      const result = own.find((r) => r.name === name && `${r.rows}x${r.cols}` === shape);
      return result && result.gigabytes > 0 ? [`${x(i).toFixed(1)},${y(result.gigabytes).toFixed(1)}`] : [];
    });
    const style =
      name === "kernel"
        ? 'stroke-width="3"'
        : name === "copy"
          ? 'stroke-width="2" stroke-dasharray="5 3"'
          : 'stroke-width="1.3"';
    parts.push(`<polyline points="${points.join(" ")}" fill="none" stroke="${color}" ${style}/>`);
    const at = top + TOP + k * 17;
    parts.push(
      `<line x1="${WIDTH - RIGHT + 15}" x2="${WIDTH - RIGHT + 40}" y1="${at}" y2="${at}" stroke="${color}" ${style}/>`,
    );
    const label =
      name === "kernel" ? "layernorm-wasm, the kernel" : name === "copy" ? "copy in wasm, the roofline" : name;
    parts.push(`<text x="${WIDTH - RIGHT + 46}" y="${at}" dominant-baseline="middle">${label}</text>`);
  }
  return parts.join("\n");
}

function sizeOf(shape: string): number {
  const [rows = 0, cols = 0] = shape.split("x").map(Number);
  return cols * 1e6 + rows;
}
