// Runs in the page before anything else: notes what goes wrong, and what is drawn on each canvas.

export interface Drawn {
  color: string;
  dashed: boolean;
  /** The points of a line, or the corners of bars with their sizes. */
  points: [x: number, y: number, width?: number, height?: number][];
}

export const problems: string[] = [];
/** What each canvas shows: all since it was last cleared. */
export const drawings = new WeakMap<HTMLCanvasElement, Drawn[]>();
/** What is written on each canvas since it was last cleared. */
export const labels = new WeakMap<HTMLCanvasElement, string[]>();
/** What the page asked of its media, the last time. */
export const queries = new Map<string, MediaQueryList>();
Object.assign(window, { hooks: { problems, drawings, labels, queries } });

addEventListener(
  "error",
  (event) => problems.push(event.message ?? `${(event.target as HTMLElement).outerHTML} failed`),
  true,
);
addEventListener("unhandledrejection", ({ reason }) => problems.push(`unhandled: ${reason}`));
for (const level of ["error", "warn"] as const) {
  console[level] = (...words: unknown[]) => problems.push(`console.${level}: ${words.join(" ")}`);
}

const paths = new WeakMap<Path2D, Drawn["points"]>();
const pointsOf = (path: Path2D) => {
  const points = paths.get(path) ?? [];
  paths.set(path, points);
  return points;
};
for (const name of ["moveTo", "lineTo", "rect"] as const) {
  const original = Path2D.prototype[name] as (...numbers: number[]) => void;
  Path2D.prototype[name] = function (this: Path2D, ...numbers: [number, number]) {
    pointsOf(this).push(numbers);
    original.apply(this, numbers);
  };
}

const context = CanvasRenderingContext2D.prototype;
const { clearRect, fillText } = context;
context.fillText = function (text, ...place) {
  labels.get(this.canvas)?.push(text);
  fillText.call(this, text, ...place);
};
context.clearRect = function (...box) {
  drawings.set(this.canvas, []);
  labels.set(this.canvas, []);
  clearRect.apply(this, box);
};
for (const name of ["stroke", "fill"] as const) {
  const original = context[name] as (...args: unknown[]) => void;
  context[name] = function (this: CanvasRenderingContext2D, ...args: unknown[]) {
    if (args[0] instanceof Path2D) {
      const color = String(name === "stroke" ? this.strokeStyle : this.fillStyle);
      drawings.get(this.canvas)?.push({ color, dashed: this.getLineDash().length > 0, points: pointsOf(args[0]) });
    }
    original.apply(this, args);
  };
}

// Who asks for it gets no motion.
const still = new URL(location.href).searchParams.has("still");
const { matchMedia } = window;
window.matchMedia = (query) => {
  const media = matchMedia.call(window, query);
  queries.set(query, media);
  const reduced = still && query === "(prefers-reduced-motion: reduce)";
  return reduced ? Object.defineProperty(media, "matches", { value: true }) : media;
};
