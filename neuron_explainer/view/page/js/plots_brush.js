// Choosing a range in a plot: by dragging across it, or by moving the edges with the keyboard.

import { element } from "./dom.js";
import { short } from "./text.js";

const NEAR = 5; // pixels: a shorter drag is a click, which clears
const STEPS = 40; // of a key, across the plot

// Lays a selection over `host`, which is positioned. `axes` are [{name: "x" or "y", label, scale}];
// `changed(ranges, done)` gets {x: [low, high] or null, y: …}, null ends being open, and whether the
// gesture is over. Returns {set(ranges)}, which draws a selection.
export function brush({ host, axes, changed }) {
  const box = element("div", { class: "selection", hidden: true });
  const area = element("div", { class: "brush" }, box);
  const ranges = Object.fromEntries(axes.map(({ name }) => [name, null]));
  const edges = axes.flatMap((axis) => [0, 1].map((end) => edge({ axis, end, ranges, tell })));
  function tell(done) {
    paint(box, edges, axes, ranges);
    changed({ ...ranges }, done);
  }
  area.append(...edges.map(({ node }) => node));
  host.append(area);
  drag(area, axes, ranges, tell);
  const set = (given) => {
    Object.assign(ranges, Object.fromEntries(axes.map(({ name }) => [name, given[name] ?? null])));
    paint(box, edges, axes, ranges);
  };
  set({});
  return { set };
}

function round(value) {
  return Number(value.toPrecision(3));
}

// Shares 0 … 1 as a range of the axis: an end at the edge of the plot is open.
function rangeOf({ scale }, from, to) {
  const low = from <= 0 ? null : round(scale.from(from));
  const high = to >= 1 ? null : round(scale.from(to));
  return low === null && high === null ? null : [low, high];
}

function sharesOf({ scale }, range) {
  const [low, high] = range ?? [null, null];
  return [low === null ? 0 : scale.to(low), high === null ? 1 : scale.to(high)];
}

function paint(box, edges, axes, ranges) {
  box.hidden = axes.every(({ name }) => !ranges[name]);
  for (const axis of axes) {
    const [from, to] = sharesOf(axis, ranges[axis.name]);
    const [start, end] = axis.name === "x" ? ["left", "right"] : ["bottom", "top"];
    box.style.setProperty(start, `${100 * from}%`);
    box.style.setProperty(end, `${100 * (1 - to)}%`);
  }
  edges.forEach((one) => one.paint());
}

function edge({ axis, end, ranges, tell }) {
  const { scale, name, label } = axis;
  const node = element("div", { class: `edge ${name}`, role: "slider", tabindex: "0", "aria-label": `${end ? "Highest" : "Lowest"} ${label}`, "aria-orientation": name === "x" ? "horizontal" : "vertical", "aria-valuemin": round(scale.low), "aria-valuemax": round(scale.high) });
  const paintEdge = () => {
    const share = sharesOf(axis, ranges[name])[end];
    const open = !ranges[name] || ranges[name][end] === null;
    const value = open ? round(end ? scale.high : scale.low) : ranges[name][end];
    node.style.setProperty(name === "x" ? "left" : "bottom", `${100 * share}%`);
    node.setAttribute("aria-valuenow", value);
    node.setAttribute("aria-valuetext", open ? "open" : short(value));
  };
  node.addEventListener("keydown", (event) => {
    const shares = sharesOf(axis, ranges[name]);
    const moved = keyed(event, shares[end], end);
    if (moved === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    shares[end] = end ? Math.max(moved, shares[0]) : Math.min(moved, shares[1]);
    ranges[name] = rangeOf(axis, ...shares);
    tell(true);
  });
  return { node, paint: paintEdge };
}

function keyed({ key, shiftKey }, share, end) {
  const step = (shiftKey ? 5 : 1) / STEPS;
  const to = { ArrowLeft: share - step, ArrowDown: share - step, ArrowRight: share + step, ArrowUp: share + step, Home: 0, End: 1, Escape: end, Delete: end }[key];
  return to === undefined ? undefined : Math.min(1, Math.max(0, Math.round(to * 1e6) / 1e6));
}

function drag(area, axes, ranges, tell) {
  let start = null;
  const at = (event) => {
    const { left, top, width, height } = area.getBoundingClientRect();
    return { x: (event.clientX - left) / width, y: 1 - (event.clientY - top) / height, px: event.clientX, py: event.clientY };
  };
  const select = (event, done) => {
    const now = at(event);
    const clicked = Math.max(Math.abs(now.px - start.px), Math.abs(now.py - start.py)) < NEAR;
    if (clicked && !done) return;
    for (const axis of axes) {
      const ends = [start[axis.name], now[axis.name]].sort((a, b) => a - b);
      ranges[axis.name] = clicked ? null : rangeOf(axis, ...ends);
    }
    tell(done);
  };
  area.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = at(event);
    area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => start && select(event, false));
  area.addEventListener("pointerup", (event) => {
    if (start) select(event, true);
    start = null;
  });
  area.addEventListener("pointercancel", () => (start = null));
}
