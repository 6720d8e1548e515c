// Two columns against each other, a point a row, with a brush over both.

import { element } from "./dom.js";
import { linear, scaleOf } from "./plots.js";
import { brush } from "./plots_brush.js";
import { axis } from "./plots_histogram.js";

// `x` and `y` are {label, values}; `changed({x, y}, done)` as of the brush. `square`: both axes have one
// scale, and a diagonal. Returns {node, kept(places), set(ranges)}.
export function scatter({ x, y, changed, square = false, signal }) {
  const scales = square ? sameScale(x.values, y.values) : { x: scaleOf(x.values), y: scaleOf(y.values) };
  const canvas = element("canvas", { "aria-hidden": "true" });
  const area = element("div", { class: "area" }, canvas);
  const node = element("div", { class: "plot scatter" }, axis(scales.y, "y", square ? 4 : 3), area, axis(scales.x));
  const points = { x: shares(x.values, scales.x), y: shares(y.values, scales.y) };
  let places = null;
  let ground = null;
  const paint = () => {
    const size = resize(canvas);
    if (!size) return;
    ground = ground && ground.width === canvas.width && ground.height === canvas.height ? ground : background(canvas, points, size, square);
    paintKept(canvas, ground, points, places, size);
  };
  const made = brush({ host: area, axes: [{ name: "x", label: x.label, scale: scales.x }, { name: "y", label: y.label, scale: scales.y }], changed });
  repaint(area, signal, () => ((ground = null), paint()));
  return { node, kept: (kept) => ((places = kept), paint()), set: made.set };
}

function repaint(area, signal, paint) {
  const watched = new ResizeObserver(paint);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  watched.observe(area);
  scheme.addEventListener("change", paint, { signal });
  signal.addEventListener("abort", () => watched.disconnect());
}

function sameScale(...columns) {
  const known = columns.flatMap((values) => [...values]).filter((value) => !Number.isNaN(value));
  const ends = known.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const scale = known.length ? linear(...ends) : linear(0, 1);
  return { x: scale, y: scale };
}

function shares(values, scale) {
  return Float32Array.from(values, (value) => (Number.isNaN(value) ? NaN : scale.to(value)));
}

function resize(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const dense = devicePixelRatio || 1;
  if (!width || !height) return null;
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  return { width: canvas.width, height: canvas.height, dot: dense * Math.min(3, Math.max(1.2, 60 / Math.sqrt(1 + width))) };
}

function background(canvas, points, size, square) {
  const made = element("canvas", { width: canvas.width, height: canvas.height });
  const pen = made.getContext("2d");
  pen.strokeStyle = colour(canvas, "--line");
  if (square) {
    pen.beginPath();
    pen.moveTo(0, size.height);
    pen.lineTo(size.width, 0);
    pen.stroke();
  }
  pen.fillStyle = colour(canvas, "--all");
  for (let place = 0; place < points.x.length; place++) dot(pen, points, place, size);
  return made;
}

function paintKept(canvas, ground, points, places, size) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, size.width, size.height);
  pen.drawImage(ground, 0, 0);
  pen.fillStyle = colour(canvas, "--accent");
  pen.globalAlpha = Math.min(0.6, Math.max(0.08, 40 / Math.sqrt(1 + points.x.length)));
  for (const place of places ?? []) dot(pen, points, place, size);
  pen.globalAlpha = 1;
}

function dot(pen, { x, y }, place, size) {
  const [across, up] = [x[place], y[place]];
  if (across === across && up === up) pen.fillRect(across * (size.width - size.dot), (1 - up) * (size.height - size.dot), size.dot, size.dot);
}

function colour(node, name) {
  return getComputedStyle(node).getPropertyValue(name);
}
