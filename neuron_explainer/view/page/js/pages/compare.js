// Two runs over the same neurons: where they differ most, by how much on average, and both side by side.

import { Unavailable } from "../api.js";
import { Columns, passing, readSort, writeFilters, writeSort } from "../columns.js";
import { fillDetail } from "../compare_neuron.js";
import { chooseMeasure, DIFFERENCE, differences, measures, paired, readList, readRuns, SIZE } from "../compare_view.js";
import { element, show } from "../dom.js";
import { scatter } from "../plots_scatter.js";
import { change, go } from "../route.js";
import { layerName, siteAt, units } from "../sites.js";
import { explanationColumn, narrower, neuronColumn, numberColumn } from "../table_columns.js";
import { filterChips } from "../table_filters.js";
import { Rows } from "../table_rows.js";
import { Table } from "../table.js";
import { count, figure, interval, readable } from "../text.js";

export function title(state, workspace) {
  const runs = readRuns(state, workspace);
  return runs ? `${readable(runs.a.name)} and ${readable(runs.b.name)}` : "Compare";
}

export async function draw(main, { state, workspace, signal }) {
  const runs = readRuns(state, workspace);
  if (!runs) throw new Unavailable("Comparing needs two runs over the same neurons.", "neuron-explainer explain --run NAME", 404);
  const chooser = (rest) => {
    const focused = document.activeElement?.getAttribute("aria-label");
    show(main, element("h1", {}, "Compare two runs"), selects(state, workspace, runs, rest), rest.node);
    if (focused) main.querySelector(`.selects [aria-label="${CSS.escape(focused)}"]`)?.focus();
  };
  if (!runs.sites.length) return chooser({ node: element("p", { class: "notice" }, "These two runs have no site in common.") });
  const site = siteAt(workspace, runs.sites.includes(state.site) ? state.site : runs.sites[0]);
  const columns = await Columns.of(site.key, signal);
  const found = measures(columns, runs.a, runs.b);
  const chosen = chooseMeasure(found, state.metric, runs.a);
  if (!chosen) return chooser({ site, node: unscored(runs) });
  await columns.load(["neuron", chosen.a.key, chosen.b.key], signal);
  if (signal.aborted) return undefined;
  const page = new ComparePage({ ...runs, site, workspace, columns, chosen, state, signal });
  chooser({ site, found, chosen, node: page.node });
  return page.start();
}

function unscored({ a, b }) {
  const missing = [a, b].filter((run) => !run.main);
  const what = missing.length ? missing : [a, b];
  return element("p", { class: "notice" }, "They share no score on this site. Run ", what.map((run, place) => [place ? " and " : "", element("code", {}, `neuron-explainer simulate ${readable(run.name)}`), ", ", element("code", {}, `neuron-explainer score ${readable(run.name)}`)]));
}

function selects(state, workspace, { a, b, sites }, { site, found = [], chosen }) {
  const runs = Object.values(workspace.runs).map((run) => ({ key: run.key, name: readable(run.name) }));
  const to = (patch) => go({ page: "compare", a: a.key, b: b.key, site: state.site, metric: state.metric, ...patch });
  return element(
    "div",
    { class: "selects" },
    select("Run A", runs, a.key, (key) => to(key === b.key ? { a: b.key, b: a.key } : { a: key })),
    select("Run B", runs, b.key, (key) => to(key === a.key ? { a: b.key, b: a.key } : { b: key })),
    element("button", { type: "button", onclick: () => to({ a: b.key, b: a.key }) }, "Swap"),
    site ? select("Site", sites.map((key) => ({ key, name: nameOf(siteAt(workspace, key)) })), site.key, (key) => to({ site: key })) : null,
    chosen ? select("Measure", found, chosen.key, (key) => to({ metric: key })) : null,
  );
}

function nameOf(site) {
  return `${layerName(site)} ${readable(site.name)}`;
}

function select(label, options, value, changed) {
  return element(
    "label",
    {},
    element("span", {}, label),
    element("select", { "aria-label": label, onchange: (event) => changed(event.target.value) }, options.map(({ key, name }) => element("option", { value: key, selected: key === value }, name))),
  );
}

class ComparePage {
  #frame = 0;
  #timer = 0;
  #detail = new AbortController();

  constructor(parts) {
    Object.assign(this, parts);
    const { columns, chosen, state, signal } = this;
    this.view = readList(state, chosen);
    this.narrow = matchMedia("(max-width: 44rem)");
    const apart = differences(columns.values(chosen.a.key), columns.values(chosen.b.key));
    columns.add(DIFFERENCE, apart);
    columns.add(SIZE, apart.map(Math.abs));
    this.rows = new Rows(this.site.key, columns.told, () => this.table.arrived(), signal);
    this.table = this.#table();
    this.plot = this.#plot();
    this.detail = element("section", { class: "detail", "aria-label": "The neuron chosen" });
    this.node = this.#layout();
    this.narrow.addEventListener("change", () => this.table.redraw(), { signal });
    signal.addEventListener("abort", () => (clearTimeout(this.#timer), this.#detail.abort()));
  }

  #table() {
    return new Table({
      label: "Neurons by difference",
      columns: () => this.#tableColumns(),
      pending: (place) => this.rows.at(place) === null,
      wanted: (places) => this.rows.want(places),
      opened: (place) => this.#choose(place, 0),
      moved: (place, pointed) => this.#choose(place, pointed ? 0 : 300),
      sort: () => this.view.sort,
      sorted: (sort) => this.#set({ sort }),
      signal: this.signal,
    });
  }

  #tableColumns() {
    const { columns, chosen, a, b, rows } = this;
    const score = (key, label, hint = null) => numberColumn({ key, kind: "score" }, columns, { label, hint });
    const made = [neuronColumn(columns, this.site), score(chosen.a.key, "A"), score(chosen.b.key, "B"), score(DIFFERENCE, "B − A"), score(SIZE, "|B − A|")];
    const texts = [explanationColumn(rows, a.key, { key: "a", label: "A explains" }), explanationColumn(rows, b.key, { key: "b", label: "B explains" })];
    return this.narrow.matches ? [made[0], made[1], made[2], made[3]].map(narrower) : [...made.map((column) => ({ ...column, least: Math.min(column.least, 4.2) })), ...texts];
  }

  #plot() {
    const { a, b } = this.chosen;
    const side = (column, name) => ({ label: `score of ${name}`, values: this.columns.values(column.key) });
    const changed = (ranges, done) => this.#limit(new Map([[a.key, ranges.x], [b.key, ranges.y]]), done);
    return scatter({ x: side(a, "A"), y: side(b, "B"), square: true, changed, signal: this.signal });
  }

  #layout() {
    this.count = element("p", { class: "count", role: "status" });
    this.chips = element("p", { class: "chips" });
    const figureNode = element("figure", { class: "plots" }, element("figcaption", {}, "B (upright) against A (level): a point a neuron; above the line B is higher"), this.plot.node);
    return element(
      "div",
      { class: "compare" },
      this.chosen.mixed ? element("p", { class: "notice" }, "The two were scored by different simulators: what differs is not the explanations alone.") : null,
      element(
        "div",
        { class: "versus" },
        element("div", {}, this.#summary(), figureNode),
        element("div", {}, element("div", { class: "tools" }, this.count, this.chips), this.table.node),
      ),
      this.detail,
    );
  }

  #summary() {
    const { columns, chosen, a, b, site } = this;
    const told = paired(columns.values(chosen.a.key), columns.values(chosen.b.key));
    const alone = [told.onlyA ? `${count(told.onlyA)} by A alone` : null, told.onlyB ? `${count(told.onlyB)} by B alone` : null].filter(Boolean);
    return element(
      "section",
      { class: "paired", "aria-label": "Paired difference" },
      element("p", { class: "quiet" }, "Mean difference, B − A"),
      element("p", { class: "large" }, signed(told.mean)),
      element("p", { title: "mean ± 1.96 standard errors over neurons" }, told.interval ? `95 % interval ${interval(told.interval)}, ` : "", `n = ${count(told.n)}`),
      element("p", {}, `mean of A ${figure(told.meanA)}, of B ${figure(told.meanB)}`),
      element("p", {}, `B higher in ${count(told.higher)}, A in ${count(told.lower)}, equal in ${count(told.equal)} ${units(site)}`),
      alone.length ? element("p", { class: "quiet" }, `Scored ${alone.join(", ")}: not counted`) : null,
      element("p", { class: "quiet" }, "With null baselines and bootstrap: ", element("code", {}, `neuron-explainer compare ${readable(a.name)} ${readable(b.name)}`)),
    );
  }

  start() {
    this.#apply({ keep: false });
    const place = this.view.neuron === null ? this.table.first : this.columns.place(this.view.neuron);
    if (this.view.neuron !== null && place >= 0) this.table.show(place);
    if (this.view.neuron !== null && place < 0) return void show(this.detail, element("p", { class: "notice" }, `There is no ${units(this.site, 1)} ${this.view.neuron} here.`));
    if (place !== undefined) return this.#fill(this.columns.neuron(place));
    return undefined;
  }

  #set(patch, { step = true } = {}) {
    Object.assign(this.view, patch);
    const sort = writeSort(this.view.sort);
    change({ sort: sort === writeSort(readSort("", `-${SIZE}`)) ? null : sort, f: writeFilters(this.view.filters), neuron: this.view.neuron, all: this.view.all ? "1" : null }, { step });
    this.#apply();
  }

  #limit(ranges, done) {
    const filters = new Map(this.view.filters);
    for (const [key, range] of ranges) {
      if (range) filters.set(key, range);
      else filters.delete(key);
    }
    if (done) return this.#set({ filters });
    this.view.filters = filters;
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#apply());
    return undefined;
  }

  // Only neurons that both scored are listed.
  #apply({ keep = true } = {}) {
    const { filters, sort } = this.view;
    const both = new Map([[SIZE, [null, null]], ...filters]);
    const kept = passing(this.columns, this.columns.order(sort), both);
    this.table.fill(kept, { keep });
    this.plot.kept(kept);
    this.plot.set({ x: filters.get(this.chosen.a.key) ?? null, y: filters.get(this.chosen.b.key) ?? null });
    const says = `${count(kept.length)} of ${count(this.columns.rows)} ${units(this.site, this.columns.rows)}`;
    if (this.count.textContent !== says) show(this.count, says);
    const names = (key) => (key === this.chosen.a.key ? "A" : key === this.chosen.b.key ? "B" : key);
    show(this.chips, filterChips(filters, names, (key) => {
      this.table.node.focus(); // the button is about to go
      this.#limit(new Map([[key, null]]), true);
    }));
  }

  #choose(place, pause) {
    clearTimeout(this.#timer);
    const index = this.columns.neuron(place);
    const act = () => {
      if (this.view.neuron === index && this.detail.dataset.neuron === String(index)) return;
      this.view.neuron = index;
      change({ neuron: index });
      this.#fill(index);
    };
    if (pause) this.#timer = setTimeout(act, pause);
    else act();
  }

  #fill(index) {
    this.#detail.abort();
    this.#detail = new AbortController();
    this.detail.dataset.neuron = index;
    const more = () => {
      this.view.all = true;
      change({ all: "1" });
      this.#fill(index);
    };
    const { site, a, b, chosen, view } = this;
    return fillDetail(this.detail, { site, index, a, b, chosen, all: view.all, more, signal: this.#detail.signal });
  }
}

function signed(value) {
  return value === null ? "–" : `${value > 0 ? "+" : ""}${figure(value)}`;
}
