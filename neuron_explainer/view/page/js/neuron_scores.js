// The scores of one explanation: a row a simulator, each figure with its interval on one axis.

import { drawing, element } from "./dom.js";
import { scrolling } from "./fold.js";
import { figure, interval, metricName, readable } from "./text.js";

const LEADING = ["correlation_top_and_random", "auroc_top_and_random"];
const BESIDE = { correlation_top_and_random: ["correlation_random_only", "random only"], auroc_top_and_random: ["balanced_accuracy_top_and_random", "balanced accuracy"] };

// The metric that a simulator's row shows as a bar: its leading one, else the first that it has.
export function leading({ values }) {
  return LEADING.find((metric) => metric in values) ?? Object.keys(values)[0] ?? null;
}

// One axis for all explanations of a page, so that bars can be compared: [lowest, highest].
export function axisOf(explanations) {
  const ends = explanations.flatMap(({ scores }) => scores.flatMap((score) => {
    const shown = score.values[leading(score)];
    return shown && shown.value !== null ? [shown.value, ...(shown.interval ?? [])] : [];
  }));
  return [Math.min(0, ...ends) < -0.25 ? -1 : Math.min(0, ...ends) < 0 ? -0.25 : 0, 1];
}

export function scoresOf(scores, axis, chosen) {
  return element(
    "table",
    { class: "scores" },
    element("caption", { class: "visually-hidden" }, "Scores by simulator"),
    element("thead", {}, element("tr", {}, ["simulator", metricsOf(scores), ["score", element("span", { class: "ends" }, "95 % interval")], besideName(scores)].map((name, at) => element("th", { scope: "col", class: at > 1 ? "number" : null }, name)))),
    element("tbody", {}, [...scores].sort((a, b) => a.null - b.null).map((score) => row(score, axis, chosen === score.simulator))),
  );
}

function metricsOf(scores) {
  return [...new Set(scores.map(leading).filter(Boolean).map(metricName))].join("; ") || "score";
}

function besideName(scores) {
  return [...new Set(scores.map((score) => BESIDE[leading(score)]?.[1]).filter(Boolean))].join("; ");
}

function row(score, axis, chosen) {
  const metric = leading(score);
  const shown = metric ? score.values[metric] : null;
  const beside = score.values[BESIDE[metric]?.[0]];
  const name = element("th", { scope: "row", class: score.null ? "null" : null }, element("bdi", {}, readable(score.simulator)), score.null ? element("span", { class: "tag" }, "null") : null);
  const attributes = { class: [score.null ? "null" : "", chosen ? "chosen" : ""].join(" ").trim() || null };
  if (score.failure) return element("tr", attributes, name, element("td", { colspan: 3, class: "failed" }, `failed: ${readable(score.failure.cause)}`, said(score.failure.message)));
  if (!shown) return element("tr", attributes, name, element("td", { colspan: 3, class: "quiet" }, "not scored"));
  if (shown.value === null) return element("tr", attributes, name, element("td", { colspan: 3, class: "quiet" }, `undefined: ${readable(shown.undefined ?? "no reason was kept")}`));
  return element(
    "tr",
    attributes,
    name,
    element("td", { class: "score-bar" }, bar(shown, axis, metric)),
    element("td", { class: "number" }, figure(shown.value, 2), element("span", { class: "ends quiet" }, shown.interval ? `${figure(shown.interval[0], 2)} … ${figure(shown.interval[1], 2)}` : "–")),
    element("td", { class: "number" }, beside ? (beside.value === null ? "undefined" : figure(beside.value, 2)) : ""),
  );
}

function said(message) {
  return message ? element("span", { class: "quiet" }, ` – ${readable(message).slice(0, 400)}`) : null;
}

// Bar from the axis' reference (0, or 0.5 for AUROC) to the value, a whisker for the interval.
function bar({ value, interval: ends }, [low, high], metric) {
  const at = (number) => `${((100 * (Math.max(low, Math.min(high, number)) - low)) / (high - low)).toFixed(2)}%`;
  const from = metric.startsWith("auroc") || metric.startsWith("balanced") ? 0.5 : 0;
  const left = Math.min(from, value);
  const right = Math.max(from, value);
  return drawing(
    "svg",
    { class: "bar", role: "img", "aria-label": `${figure(value, 2)} ${interval(ends)}` },
    drawing("line", { class: "ground", x1: 0, x2: "100%", y1: "50%", y2: "50%" }),
    drawing("rect", { x: at(left), width: `${(100 * (Math.min(high, right) - Math.max(low, left))) / (high - low)}%`, y: 3, height: 8 }),
    drawing("line", { class: "reference", x1: at(from), x2: at(from), y1: 0, y2: "100%" }),
    ends ? drawing("line", { class: "whisker", x1: at(ends[0]), x2: at(ends[1]), y1: "50%", y2: "50%" }) : null,
    ends ? ends.map((end) => drawing("line", { class: "whisker", x1: at(end), x2: at(end), y1: 4, y2: 10 })) : null,
  );
}

// Every metric of every simulator, for those who want all.
export function allScores(scores) {
  const metrics = [...new Set(scores.flatMap(({ values }) => Object.keys(values)))];
  const cell = (shown) => {
    if (!shown) return element("td", { class: "number" }, "");
    if (shown.value === null) return element("td", { class: "number quiet", title: shown.undefined }, shown.undefined ? readable(shown.undefined) : "undefined");
    return element("td", { class: "number" }, figure(shown.value, 3), shown.interval ? element("span", { class: "quiet" }, ` ${interval(shown.interval)}`) : null);
  };
  return scrolling("All scores", element("table", { class: "figures-table" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "metric"), scores.map(({ simulator }) => element("th", { scope: "col", class: "number" }, element("bdi", {}, readable(simulator)))))),
    element("tbody", {}, metrics.map((metric) => element("tr", {}, element("th", { scope: "row" }, metricName(metric)), scores.map(({ values }) => cell(values[metric])))))));
}
