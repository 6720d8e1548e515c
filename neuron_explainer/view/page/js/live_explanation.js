// A typed explanation, simulated on the records that explainers do not see, beside the runs' own.

import { lines, post, Unavailable } from "./api.js";
import { announce, element, show } from "./dom.js";
import { fold, scrolling } from "./fold.js";
import { heat } from "./heat.js";
import { legend } from "./heat_legend.js";
import { debounced, labelled, LONGEST_IN_URL, select, statusLine, waitingFor } from "./live_parts.js";
import { allScores, axisOf, scoresOf } from "./neuron_scores.js";
import { change } from "./route.js";
import { runName } from "./sites.js";
import { count, figure, readable, short } from "./text.js";

const PAUSE = 400; // milliseconds after the last key
const WRITTEN = "; otherwise for all others. \\n, \\t, \\xNN and \\\\ are written so.";
const NOTATION = `One row a line: "token" and its activation from 0 to 10; "previous" "token" for a token after another${WRITTEN}`;
const PAIRS = `One row a line: "key" "query" and the activation from 0 to 10; "query" alone for any key${WRITTEN}`;

export function explanationSection(page) {
  const { live, site, asked, about } = page;
  const usable = live.simulators.filter(({ heads }) => heads === (site.unit === "head"));
  const form = { ...page, usable, simulator: usable.find(({ name }) => name === asked.simulator) ?? usable[0] };
  form.input = element("textarea", { id: "said", rows: 7, maxlength: live.limits.explanation, dir: "auto", spellcheck: "false", "data-keep": "said", "aria-describedby": "said-help" });
  form.input.value = asked.said ?? "";
  form.help = element("p", { class: "quiet hint", id: "said-help" });
  form.status = statusLine();
  form.offer = element("div", { class: "offer" });
  form.results = element("div", { class: "results" });
  form.due = debounced((signal) => react({ ...form, simulator: form.simulator, signal }), PAUSE, page.signal);
  form.input.addEventListener("input", () => form.due());
  form.run = about.explanations.find(({ run }) => run === asked.run)?.run ?? about.explanations.find(({ text }) => text)?.run ?? null;
  turnTo(form, form.simulator);
  if (form.input.value) form.due(0);
  else if (form.run) begin(form);
  return section(form);
}

function section(form) {
  const { usable, workspace, about } = form;
  const runs = about.explanations.filter(({ text }) => text).map(({ run }) => [run, runName(workspace, run)]);
  const pickRun = (run) => {
    form.run = run;
    change({ run, said: null }, { step: true });
    begin(form);
  };
  const pickSimulator = (name) => {
    const chosen = usable.find((one) => one.name === name);
    const other = chosen.needs_llm !== form.simulator.needs_llm; // prose for one, a table for the other
    change({ simulator: name }, { step: true });
    turnTo(form, chosen);
    if (other && form.run) begin(form);
    else form.due(0);
  };
  return element(
    "section",
    { class: "saying", "aria-labelledby": "saying" },
    element("h2", { id: "saying" }, "An explanation"),
    element(
      "div",
      { class: "selects" },
      labelled("Simulated by", select(usable.map(({ name, needs_llm: asks }) => [name, asks ? `${readable(name)} (asks a language model)` : readable(name)]), form.simulator?.name, pickSimulator, { "data-keep": "simulator" })),
      runs.length ? labelled("Start from", select(runs, form.run, pickRun, { "data-keep": "run" })) : null,
      runs.length ? element("button", { type: "button", onclick: () => begin(form) }, "Put it back") : null,
    ),
    element("label", { class: "visually-hidden", for: "said" }, "Explanation"),
    form.input,
    form.help,
    form.offer,
    form.status.node,
    form.results,
  );
}

function turnTo(form, simulator) {
  form.simulator = simulator;
  form.input.classList.toggle("mono", !simulator.needs_llm);
  show(form.help, simulator.needs_llm ? "One or two sentences on what it fires on." : form.site.unit === "head" ? PAIRS : NOTATION);
  show(form.offer);
}

// Put a run's own explanation, or its table, into the field.
async function begin(form) {
  const { site, neuron, input, simulator, status, run, signal } = form;
  try {
    const own = await post("live/explanation", { site: site.key, neuron, run });
    if (signal.aborted || form.run !== run || form.simulator !== simulator) return;
    input.value = (simulator.needs_llm ? own.text : own.table) ?? "";
    form.start = input.value;
    show(form.results);
    if (own.left_out && !simulator.needs_llm) status.say(`${count(own.left_out)} more rows of its table do not fit and are left out.`);
    else if (!input.value && own.text && !simulator.needs_llm) status.say("This run's explanation is prose: it has no table to look tokens up in. Type one.");
    if (input.value) form.due(0);
  } catch (error) {
    if (!signal.aborted) status.trouble(error);
  }
}

// What is free is computed at once; what asks a model says first what it costs.
async function react(form) {
  const { input, simulator, status, offer, results } = form;
  const typed = input.value;
  const kept = typed !== form.start && typed.length <= LONGEST_IN_URL;
  change({ said: kept ? typed || null : null });
  show(offer);
  if (!typed.trim()) {
    show(results);
    return status.clear();
  }
  if (!simulator.needs_llm) return simulate(form);
  return forecast(form);
}

async function forecast(form) {
  const { live, site, neuron, input, simulator, status, offer, signal } = form;
  if (!live.llm) {
    return status.trouble(new Unavailable(`${simulator.name} needs a language model, and the viewer was started without one.`, "neuron-explainer view --llm openai/MODEL", 409));
  }
  status.say("Counting what it costs…");
  try {
    const found = await post("live/forecast", { site: site.key, neuron, explanation: input.value, simulator: simulator.name });
    if (signal.aborted) return undefined;
    status.clear();
    const button = element("button", { type: "button", class: "primary", "data-keep": "ask", onclick: () => simulate(form) }, "Ask it");
    return show(offer, element("p", {}, costs(found)), button);
  } catch (error) {
    return signal.aborted ? undefined : status.trouble(error);
  }
}

function costs({ requests, tokens, cost, llm }) {
  const price = cost === null ? "no price is known" : cost === 0 ? "which costs nothing" : `at most $${cost < 0.01 ? cost.toPrecision(2) : cost.toFixed(2)}`;
  return ["This asks ", element("bdi", {}, readable(llm)), ` ${count(requests)} ${requests === 1 ? "request" : "requests"}, about ${count(tokens)} tokens: ${price}.`];
}

async function simulate(form) {
  const { site, neuron, input, simulator, status, results, offer, about, signal } = form;
  show(offer);
  status.say("Simulating…");
  const held = new Map(about.records.filter(({ split }) => split === "valid").map((record) => [`${record.kind} ${record.sequence}`, record]));
  const found = new Map();
  let scores = null;
  try {
    for await (const line of lines("live/simulate", { site: site.key, neuron, explanation: input.value, simulator: simulator.name }, signal)) {
      const waiting = waitingFor(line);
      if (waiting) status.say(waiting);
      if (line.sequence !== undefined) {
        found.set(`${line.kind} ${line.sequence}`, line);
        status.say(`${found.size} of ${held.size} records…`);
        if (simulator.needs_llm) show(results, drawn(form, held, found, null));
      }
      scores = line.scores ?? scores;
    }
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    show(results);
    status.trouble(error);
    return;
  }
  status.clear();
  show(results, drawn(form, held, found, scores));
  announce(`Simulated: ${headline(scores)}`);
}

function headline(scores) {
  const [metric, said] = Object.entries(scores)[0] ?? [];
  return metric ? `${metric.replaceAll("_", " ")} ${said.value === null ? "undefined" : figure(said.value, 2)}` : "no score";
}

function drawn(form, held, found, scores) {
  return [scores ? comparison(form, scores) : null, records(form, held, found)];
}

// The typed explanation's scores first, then those that the runs have with the same simulator.
function comparison({ simulator, about, workspace }, scores) {
  const own = about.explanations.flatMap(({ run, scores: all }) =>
    all.filter(({ simulator: name, failure }) => name === simulator.name && !failure).map((score) => ({ ...score, simulator: runName(workspace, run) })));
  const rows = [{ simulator: "typed here", null: false, predicts: simulator.predicts, failure: null, values: scores }, ...own];
  return [
    element("h3", {}, "Scores on the held-out records, simulated by ", readable(simulator.name)),
    scrolling("Scores", scoresOf(rows, axisOf([{ scores: rows }]), "typed here")),
    fold("live-scores", "All scores", () => allScores(rows)),
  ];
}

function records({ scale, simulator }, held, found) {
  const verdicts = simulator.predicts === "sequences";
  const most = Math.max(10, ...[...found.values()].flatMap(({ activations }) => activations));
  const some = [...held].filter(([name]) => found.has(name));
  return [
    some.length ? legend({ scale, mode: verdicts ? "true" : "stacked", simulator: verdicts ? null : readable(simulator.name), simulationScale: most, negative: some.some(([, record]) => record.activations.some((value) => value < -0.02 * scale)), pairs: some.some(([, { pair }]) => pair), undefinedOnes: some.some(([name]) => found.get(name).activations.includes(null)) && !verdicts }) : null,
    element("ol", { class: "record-list flat" }, some.map(([name, record]) => item(record, found.get(name), { scale, most, verdicts }))),
  ];
}

function item(record, { activations, correlation }, { scale, most, verdicts }) {
  const said = verdicts ? activations.find((value) => value !== null) : null;
  const fit = verdicts ? (said === undefined ? "no verdict" : `predicted ${short(said)} of 10`) : correlation === null ? "r undefined" : `r = ${figure(correlation, 2)}`;
  const simulation = verdicts ? null : { activations, scale: most, name: "typed here" };
  return element(
    "li",
    {},
    element("div", { class: "caption" }, element("span", { class: "strong", title: "maximum" }, short(record.maximum)), element("span", { class: "tag" }, record.kind), element("span", { class: verdicts ? "agreement verdict" : "agreement" }, fit), element("span", { class: "quiet" }, `#${record.sequence}`)),
    element("div", { class: "body" }, heat({ ...record, scale, simulation, mode: "stacked", snippet: true })),
  );
}

