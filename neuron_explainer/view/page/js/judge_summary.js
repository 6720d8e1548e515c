// What was preferred, pair of runs by pair of runs, and whether the scores say the same.

import { element } from "./dom.js";
import { link } from "./route.js";
import { trouble } from "./live_parts.js";
import { runName } from "./sites.js";
import { count, figure, metricName, percent, readable } from "./text.js";

export function summaries(pairs, workspace, only = null) {
  const some = pairs.filter(({ first, second }) => !only || [first, second].sort().join() === [...only].sort().join());
  if (!some.length) return element("p", { class: "quiet" }, "Nothing was judged yet.");
  return some.map((pair) => summary(pair, workspace));
}

function summary(pair, workspace) {
  const [first, second] = [pair.first, pair.second].map((run) => element("bdi", {}, runName(workspace, run)));
  const title = element("h3", {}, element("a", { href: link({ page: "compare", a: pair.first, b: pair.second }) }, first, " and ", second));
  if (pair.error) return element("article", { class: "preferences" }, title, trouble({ message: pair.error, run: pair.run }));
  return element("article", { class: "preferences" }, title, tally(pair, workspace), share(pair, workspace), agreement(pair.scores), stale(pair), file(pair));
}

function tally({ counts, first, second }, workspace) {
  const parts = [[runName(workspace, first), counts.first, "first"], ["tie", counts.tie, "tie"], ["neither", counts.neither, "neither"], [runName(workspace, second), counts.second, "second"]];
  return element(
    "ul",
    { class: "tally" },
    parts.map(([name, number, kind]) => element("li", { class: kind, style: { "flex-grow": number } }, element("span", { class: "strong" }, count(number)), " ", element("bdi", {}, name))),
  );
}

function share({ share: value, interval: ends, counts, first }, workspace) {
  const decided = counts.first + counts.second;
  if (value === null) return element("p", {}, "No judgement prefers one of the two.");
  return element("p", {}, element("bdi", {}, runName(workspace, first)), ` was preferred in ${percent(value)} of ${count(decided)} decided judgements, 95 % interval ${between(ends)}; ties and “neither” are not in it.`);
}

function between([low, high]) {
  return `${Math.round(100 * low)} to ${percent(high)}`;
}

function agreement(scores) {
  if (!scores) return element("p", { class: "quiet" }, "The runs have no score in common, so there is nothing to hold the preferences against.");
  const { simulator, metric, n, decided, agreeing, share: value, interval: ends, correlation, undefined: why } = scores;
  const by = `${metricName(metric)}, ${readable(simulator)}`;
  const agrees = value === null ? "No decided judgement has two different scores." : `The preferred explanation scores higher in ${agreeing} of ${decided}: ${percent(value)}, 95 % interval ${between(ends)}.`;
  const ranks = correlation === null ? `Rank correlation undefined: ${why}.` : `Rank correlation of preference and difference of scores ${figure(correlation, 2)}, n = ${count(n)}.`;
  return element("p", {}, element("span", { class: "quiet" }, `Against the score (${by}): `), `${agrees} ${ranks}`);
}

function stale({ stale: number }) {
  return number ? element("p", { class: "quiet" }, `${count(number)} more are of explanations that were written anew since, and do not count.`) : null;
}

function file({ file: path }) {
  return element("p", { class: "quiet" }, "Paired statistics: ", element("code", {}, `neuron-explainer compare ${path}`));
}
