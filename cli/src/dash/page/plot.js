// Curves over time, drawn as SVG.

import { age } from "./words.js";
import { h } from "./render.js";

const WIDTH = 900;
const HEIGHT = 210;
const LEFT = 58;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;

// Curves of ten minutes at most, the right end being now. `curves` have a `label`, a `tone` (a class of style.css), maybe `set`
// for a dashed one, `points` of time (in milliseconds) and value (null: none), and the `text` of the legend; `unit` makes a
// label of a value, `most` is the top of the scale if it isn't the largest value.
export function plot({ label, curves, unit, most }) {
  const times = curves.flatMap((curve) => curve.points.map(([time]) => time));
  if (times.length < 2) return h("p", { class: "faint" }, "The plot begins with the next answers.");
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const values = curves.flatMap((curve) => curve.points.map(([, value]) => value ?? 0));
  const top = most ?? nice(Math.max(...values));
  const x = (time) => LEFT + ((time - from) / Math.max(1, to - from)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
  return h("figure", {},
    h("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
      [0, 0.25, 0.5, 0.75, 1].map((part) => level(y(part * top), unit(part * top))),
      [0, 0.25, 0.5, 0.75, 1].map((part) => moment(from + part * (to - from), to, x)),
      curves.map((curve) => h("path", { class: classes(curve), d: path(curve.points, x, y, curve.set) }))),
    h("ul", { class: "legend" }, curves.map(legend)));
}

// A curve without anything around it, for a cell of a table.
export function trend(values) {
  if (values.length < 2) return null;
  const top = Math.max(...values) || 1;
  const points = values.map((value, place) => [place, value]);
  const d = path(points, (place) => (place / (values.length - 1)) * 120, (value) => 20 - (value / top) * 18);
  return h("svg", { class: "trend", viewBox: "0 0 120 22", "aria-hidden": "true", preserveAspectRatio: "none" },
    h("path", { class: "curve s0", d }));
}

const classes = (curve) => `curve ${curve.tone}${curve.set ? " set" : ""}`;

function level(y, text) {
  return [
    h("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }),
    h("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text),
  ];
}

function moment(time, to, x) {
  const text = time === to ? "now" : `-${age(to - time)}`;
  const anchor = time === to ? "end" : "middle";
  return h("text", { x: x(time), y: HEIGHT - 6, "text-anchor": anchor }, text);
}

function legend(curve) {
  return h("li", {},
    h("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" }, h("path", { class: classes(curve), d: "M0 5H24" })),
    curve.text ? `${curve.label}: ${curve.text}` : curve.label);
}

// Where there is no value, the curve has a gap. What is set goes in steps: it was what it was until it was changed.
function path(points, x, y, steps) {
  let [d, drawing] = ["", false];
  for (const [time, value] of points) {
    if (value === null || value === undefined) {
      drawing = false;
      continue;
    }
    const [across, up] = [x(time).toFixed(1), y(value).toFixed(1)];
    d += !drawing ? `M${across} ${up}` : steps ? `H${across}V${up}` : `L${across} ${up}`;
    drawing = true;
  }
  return d;
}

// The next of 1, 2, 5, 10, 20 and so on.
function nice(value) {
  if (value <= 0) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= value * 0.999);
}
