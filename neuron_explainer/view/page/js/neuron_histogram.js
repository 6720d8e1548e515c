// How often a neuron is how active: bins of half an octave, whose upper ends are `edges`, so the
// axis of activations is logarithmic by itself; that of counts is so where it is asked for.

import { drawing, element } from "./dom.js";
import { count, percent, short } from "./text.js";

const WIDTH = 320;
const HEIGHT = 130;
const BOTTOM = 20;
const ZERO = 22; // width of the bar of activations of at most 0, which stands apart

export function histogramOf({ edges, counts }, { logarithmic, what }) {
  const filled = counts.map((number, bin) => (bin && number ? bin : 0)).filter(Boolean);
  const [first, last] = filled.length ? [Math.max(1, filled[0]), filled.at(-1)] : [1, 1];
  const most = Math.max(1, ...counts);
  const height = (number) => (number ? Math.max(1, ((HEIGHT - BOTTOM - 8) * (logarithmic ? Math.log1p(number) / Math.log1p(most) : number / most))) : 0);
  const step = (WIDTH - ZERO - 10) / (last - first + 1);
  const bars = [bar(0, ZERO, height(counts[0]), `at most 0: ${count(counts[0])} ${what}`, "zero")];
  for (let bin = first; bin <= last; bin++) {
    bars.push(bar(ZERO + 8 + (bin - first) * step, Math.max(0.5, step - 0.8), height(counts[bin]), `${short(edges[bin - 1])} to ${short(edges[bin])}: ${count(counts[bin])} ${what}`, "some"));
  }
  return drawing(
    "svg",
    { class: "activity", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": summary(edges, counts, what) },
    drawing("path", { class: "ground", d: `M0 ${HEIGHT - BOTTOM}H${ZERO}M${ZERO + 8} ${HEIGHT - BOTTOM}H${WIDTH}` }),
    bars,
    drawing("text", { x: ZERO / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "≤ 0"),
    ticks(edges, first, last, step),
  );
}

function bar(x, width, height, said, kind) {
  return drawing("rect", { class: kind, x: x.toFixed(2), y: (HEIGHT - BOTTOM - height).toFixed(2), width: width.toFixed(2), height: height.toFixed(2) }, drawing("title", {}, said));
}

// Powers of ten, and where there are few of them twice and five times these.
function ticks(edges, first, last, step) {
  const [low, high] = [first > 1 ? edges[first - 1] : edges[1] / 2, edges[last]];
  const tens = [];
  for (let ten = Math.floor(Math.log10(low)); ten <= Math.log10(high); ten++) tens.push(10 ** ten);
  const inside = (values) => values.filter((value) => value >= low && value <= high);
  const few = inside(tens).length < 3;
  return inside(few ? tens.flatMap((ten) => [ten, 2 * ten, 5 * ten]) : tens).map((value) => {
    const bin = Math.max(first, edges.findIndex((edge) => edge >= value));
    const lower = bin > 1 ? edges[bin - 1] : low;
    const x = ZERO + 8 + (bin - first + Math.log(value / lower) / Math.log(edges[bin] / lower)) * step;
    if (x < ZERO + 24) return null; // where “≤ 0” is written
    return [drawing("path", { class: "ground", d: `M${x.toFixed(1)} ${HEIGHT - BOTTOM}v4` }), drawing("text", { x: x.toFixed(1), y: HEIGHT - 6, "text-anchor": "middle" }, short(value))];
  });
}

function summary(edges, counts, what) {
  const all = counts.reduce((sum, number) => sum + number, 0);
  const last = counts.findLastIndex((number) => number > 0);
  return `Histogram of ${count(all)} ${what}: ${percent(all ? counts[0] / all : null, 1)} are at most 0, the largest ${last > 0 ? `at most ${short(edges[last])}` : "too"}`;
}

// The same for those who want figures.
export function histogramTable({ edges, counts }, what) {
  const rows = counts.flatMap((number, bin) => (number ? [[bin ? `${short(edges[bin - 1])} – ${short(edges[bin])}` : "≤ 0", count(number)]] : []));
  return element("div", { class: "wide" }, element("table", { class: "figures-table" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "activation"), element("th", { scope: "col", class: "number" }, what))),
    element("tbody", {}, rows.map(([range, number]) => element("tr", {}, element("td", {}, range), element("td", { class: "number" }, number))))));
}
