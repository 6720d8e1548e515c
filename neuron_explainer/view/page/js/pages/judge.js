// Which of two explanations is better? Judged blind: neither side says whose it is.

import { get, resource, Unavailable } from "../api.js";
import { element, show } from "../dom.js";
import { Judging } from "../judge_sides.js";
import { summaries } from "../judge_summary.js";
import { labelled, select, siteName } from "../live_parts.js";
import { go } from "../route.js";
import { runAt, runName, runsOf, siteAt } from "../sites.js";

const USUAL = 30; // neurons

export function title() {
  return "Judge";
}

export async function draw(main, { state: asked, workspace, signal }) {
  if (!workspace.live.judge) throw new Unavailable("These pages are files: to judge, serve the workspace.", "neuron-explainer view", 404);
  const pairs = possible(workspace);
  if (!pairs.length) throw new Unavailable("Judging needs two runs that explain the same site.", "neuron-explainer explain --run NAME", 404);
  const chosen = read(asked, workspace);
  if (!chosen) return begin(main, asked, workspace, pairs, signal);
  const [columns, saved] = await Promise.all([get(resource(chosen.site, "columns")), get("judgements.json", { fresh: true, signal })]);
  if (signal.aborted) return undefined;
  return new Judging({ ...chosen, columns, saved: saved.judgements, main, workspace, signal }).start(chosen.at);
}

// What the URL asks for, or null where it does not name two runs and a site of both.
function read({ a, b, site, seed = "0", n, at = "0", full }, workspace) {
  const known = siteAt(workspace, site);
  if (!known || a === b || ![a, b].every((run) => runAt(workspace, run)?.sites.includes(site))) return null;
  const number = /^[1-9]\d{0,3}$/.test(n ?? "") ? Number(n) : USUAL;
  return { a, b, site, seed, number, at: /^\d{1,4}$/.test(at) ? Math.min(Number(at), number) : 0, full: full === "1" };
}

function possible(workspace) {
  return Object.values(workspace.sites).filter((site) => runsOf(workspace, site).length > 1);
}

async function begin(main, asked, workspace, sites, signal) {
  const site = sites.find(({ key }) => key === asked.site) ?? sites[0];
  const runs = runsOf(workspace, site).map(({ key }) => key);
  const a = runs.includes(asked.a) ? asked.a : runs[0];
  const b = runs.includes(asked.b) && asked.b !== a ? asked.b : runs.find((run) => run !== a);
  const { pairs } = await get("judgements-summary.json", { fresh: true, signal });
  if (signal.aborted) return;
  show(
    main,
    element(
      "div",
      { class: "judge" },
      element("h1", {}, "Which explanation is better?"),
      element("p", { class: "lead" }, "Two runs explain the same neuron; you see both explanations without names, in shuffled order, beside records that neither was shown. Your answers are kept as a table, and held against the scores."),
      chooser({ workspace, sites, site, runs, a, b, asked }),
      element("h2", {}, "What was preferred so far"),
      summaries(pairs, workspace),
    ),
  );
}

function chooser({ workspace, sites, site, runs, a, b, asked }) {
  const to = (patch) => go({ page: "judge", a: null, site: site.key, ...patch });
  const named = runs.map((run) => [run, runName(workspace, run)]);
  const seed = element("input", { type: "text", inputmode: "numeric", pattern: "[0-9]{1,9}", required: true, value: asked.seed ?? "0" });
  const number = element("input", { type: "number", min: 1, max: 9999, required: true, value: asked.n ?? USUAL });
  const first = select(named, a, () => {});
  const second = select(named, b, () => {});
  const wrong = element("output", { class: "bad" });
  const form = element(
    "form",
    { class: "selects" },
    labelled("Site", select(sites.map((one) => [one.key, siteName(one)]), site.key, (key) => to({ site: key }))),
    labelled("One run", first),
    labelled("Another run", second),
    labelled("Neurons", number),
    labelled("Seed", seed),
    element("button", { class: "primary" }, "Begin"),
    wrong,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (first.value === second.value) return void show(wrong, "Choose two different runs.");
    go({ page: "judge", a: first.value, b: second.value, site: site.key, seed: seed.value, n: number.value });
  });
  return form;
}
