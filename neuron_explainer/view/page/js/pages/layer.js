// The neurons of a site: a table to sort, search and filter, and the distributions of their figures.

import { Unavailable } from "../api.js";
import { Columns, passing } from "../columns.js";
import { announce, element, show } from "../dom.js";
import { needed, readView, writeView } from "../layer_view.js";
import { plotsPanel } from "../plots_panel.js";
import { change, go } from "../route.js";
import { search } from "../search.js";
import { layerName, runsOf, siteAt, units } from "../sites.js";
import { called, explanationColumn, fullName, narrower, neuronColumn, numberColumn, ordered, tokensColumn } from "../table_columns.js";
import { columnPanel, filterChips } from "../table_filters.js";
import { Rows } from "../table_rows.js";
import { Table } from "../table.js";
import { count, readable } from "../text.js";

const TYPING = 250; // milliseconds after the last key before a search
const NARROW = "(max-width: 44rem)";

export function title(state, workspace) {
  const site = siteAt(workspace, state.site);
  return site ? `${layerName(site)} ${readable(site.name)}` : "No such site";
}

export async function draw(main, { state, workspace, signal }) {
  const site = siteAt(workspace, state.site);
  if (!site) throw new Unavailable(`There is no site “${readable(state.site ?? "")}” in this workspace.`, null, 404);
  const columns = await Columns.of(site.key, signal);
  const page = new LayerPage({ site, workspace, columns, state, signal });
  await page.load();
  if (signal.aborted) return;
  show(main, page.node);
  page.start();
}

class LayerPage {
  #frame = 0;
  #found = { rows: null, common: [] };
  #asked = 0; // of several searches under way, the last one counts
  #timers = {};

  constructor({ site, workspace, columns, state, signal }) {
    Object.assign(this, { site, workspace, columns, signal });
    this.narrow = matchMedia(NARROW);
    this.runs = runsOf(workspace, site);
    this.view = readView(state, this.#context());
    this.entries = [{ key: "neuron", name: site.unit }, ...ordered(columns, this.view.run).map((column) => ({ key: column.key, name: fullName(column, workspace) }))];
    this.rows = new Rows(site.key, columns.told, () => this.table.arrived(), signal);
    this.#parts();
    this.node = this.#layout();
    signal.addEventListener("abort", () => Object.values(this.#timers).forEach(clearTimeout));
    this.narrow.addEventListener("change", () => this.#usualColumns(), { signal });
  }

  #context() {
    return { site: this.site, workspace: this.workspace, columns: this.columns, narrow: this.narrow.matches };
  }

  #parts() {
    const { signal } = this;
    this.table = new Table({
      label: `${units(this.site)} of ${readable(this.site.name)}`,
      columns: () => this.#tableColumns(),
      pending: (place) => this.rows.at(place) === null,
      wanted: (places) => this.rows.want(places),
      opened: (place) => this.#open(place),
      moved: (place, pointed) => this.#moved(place, pointed),
      sort: () => this.view.sort,
      sorted: (sort) => this.set({ sort, at: null }, { keep: false }),
      signal,
    });
    this.panel = columnPanel({
      entries: [this.entries[0], { key: "explanation", name: "explanation" }, ...this.entries.slice(1), { key: "tokens", name: "strongest tokens" }].map((entry) => ({ ...entry, ranged: !["explanation", "tokens"].includes(entry.key) })),
      showing: (keys) => this.set({ shown: new Set(["neuron", ...keys]), chosen: true }),
      limited: (key, range) => this.#limit(new Map([[key, range]])),
      toggled: (open) => open !== this.view.panel && this.set({ panel: open }, { step: false }),
    });
    this.plots = plotsPanel({
      entries: this.entries,
      picked: (patch) => this.set(patch),
      brushed: (ranges, done) => this.#limit(ranges, done),
      toggled: (open) => open !== this.view.plots && this.set({ plots: open }, { step: false }),
      signal,
    });
  }

  #layout() {
    this.count = element("p", { class: "count", role: "status" });
    this.chips = element("p", { class: "chips" });
    this.note = element("div", { class: "notes" });
    this.none = element("p", { class: "none", hidden: true }, "No row passes the filters.");
    this.panel.node.open = this.view.panel;
    this.plots.node.open = this.view.plots;
    return element(
      "div",
      { class: "layer" },
      element("h1", {}, layerName(this.site), " ", element("bdi", { class: "mono quiet" }, readable(this.site.name))),
      this.note,
      this.columns.known.length ? this.plots.node : null,
      element("div", { class: "tools" }, this.#searchBox(), this.#runBox(), this.count, this.chips),
      this.panel.node,
      this.table.node,
      this.none,
    );
  }

  #searchBox() {
    this.box = element("input", { type: "search", value: this.view.q, placeholder: "words, or their beginnings", spellcheck: "false", dir: "auto" });
    this.box.addEventListener("input", () => this.#later("search", TYPING, () => this.set({ q: this.box.value.trim(), at: null }, { step: false, keep: false })));
    return element("label", {}, element("span", {}, "Search explanations and tokens"), this.box);
  }

  #runBox() {
    if (this.runs.length < 2) return null;
    const options = this.runs.map((run) => element("option", { value: run.key, selected: run.key === this.view.run.key }, readable(run.name)));
    const choose = (event) => this.#chooseRun(this.runs.find(({ key }) => key === event.target.value));
    return element("label", {}, element("span", {}, "Explanations of"), element("select", { onchange: choose }, options));
  }

  #chooseRun(run) {
    const usual = readView({ run: run.key }, this.#context());
    const { histograms, x, y } = usual;
    this.set({ run, histograms, x, y, ...(this.view.chosen ? {} : { shown: usual.shown }) });
  }

  #usualColumns() {
    if (this.view.chosen) return this.table.redraw();
    const { shown } = readView({ run: this.view.run?.key }, this.#context());
    return this.set({ shown }, { step: false });
  }

  #tableColumns() {
    const { shown, run } = this.view;
    const numbers = ordered(this.columns, run).filter(({ key }) => shown.has(key));
    const made = [neuronColumn(this.columns, this.site)];
    if (shown.has("explanation")) made.push(explanationColumn(this.rows, run?.key, { tokens: this.narrow.matches && !shown.has("tokens") }));
    made.push(...numbers.map((column) => numberColumn(column, this.columns, called(column, this.workspace, column.run !== run?.key))));
    if (shown.has("tokens")) made.push(tokensColumn(this.rows));
    return this.narrow.matches ? made.map(narrower) : made;
  }

  #later(name, pause, act) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(act, pause);
  }

  // All that is needed before the page can be drawn.
  async load() {
    const asked = ++this.#asked;
    await this.columns.load(needed(this.view), this.signal);
    const found = await this.#search();
    if (asked === this.#asked) this.#found = found;
  }

  async #search() {
    if (!this.view.q) return { rows: null, common: [] };
    try {
      return await search(this.site.key, this.columns.told.search, this.view.q, this.signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return { rows: null, common: [], broken: error };
    }
  }

  start() {
    this.#apply({ keep: false });
    const place = this.view.at === null ? -1 : this.columns.place(this.view.at);
    if (place >= 0) this.table.show(place);
  }

  // Change the view, the URL and what is drawn. `step`: "back" undoes it; `keep`: the current row stays.
  async set(patch, { step = true, keep = true } = {}) {
    Object.assign(this.view, patch);
    const usual = readView({ run: this.view.run?.key }, this.#context());
    usual.run = this.runs[0];
    change(writeView(this.view, usual), { step });
    try {
      await this.load();
    } catch (error) {
      if (error.name === "AbortError") return;
      throw error;
    }
    if (!this.signal.aborted) this.#apply({ keep });
  }

  #limit(ranges, done = true) {
    const filters = new Map(this.view.filters);
    for (const [key, range] of ranges) {
      if (range) filters.set(key, range);
      else filters.delete(key);
    }
    if (done) return void this.set({ filters });
    this.view.filters = filters;
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#apply());
  }

  #apply({ keep = true } = {}) {
    const { filters, sort } = this.view;
    const kept = passing(this.columns, this.columns.order(sort), filters, this.#found.rows);
    this.table.fill(kept, { keep });
    if (this.view.plots && this.columns.known.length) this.plots.update(this.view, this.columns, kept);
    this.panel.update(this.view, this.columns);
    this.none.hidden = kept.length > 0 || !this.columns.rows;
    this.#tell(kept.length);
  }

  #tell(number) {
    const all = this.columns.rows;
    const says = `${count(number)} of ${count(all)} ${units(this.site, all)}`;
    if (this.count.textContent !== says) show(this.count, says);
    const on = this.view.filters.size || this.view.q;
    const names = (key) => this.entries.find((entry) => entry.key === key)?.name ?? key;
    const clear = () => {
      this.box.value = "";
      this.table.node.focus();
      this.set({ filters: new Map(), q: "" });
      announce("Filters cleared");
    };
    show(
      this.chips,
      filterChips(this.view.filters, names, (key) => {
        this.table.node.focus(); // the button is about to go
        this.#limit(new Map([[key, null]]));
      }),
      on ? element("button", { type: "button", class: "clear", onclick: clear }, "Clear filters") : null,
    );
    show(this.note, this.#notes());
  }

  #notes() {
    const { common, broken } = this.#found;
    const { run } = this.view;
    const said = [
      this.site.complete ? null : [`Collecting is not complete: ${count(this.site.neurons)} of ${count(this.site.width)} ${units(this.site)} are here. Run the same `, element("code", {}, "neuron-explainer collect"), " again to go on."],
      run ? null : ["No run explains this site. Run ", element("code", {}, `neuron-explainer explain --layer ${this.site.layer ?? "N"}`)],
      run && !run.complete ? [`The run ${readable(run.name)} is not complete: what is missing is not here yet.`] : null,
      run && !run.main ? [`The run ${readable(run.name)} has no scores. Run `, element("code", {}, `neuron-explainer simulate ${readable(run.name)}`), " and then ", element("code", {}, `neuron-explainer score ${readable(run.name)}`)] : null,
      ...common.map((word) => `“${word}” stands in more than 20,000 ${units(this.site)} and narrows nothing.`),
      broken ? [`The search index cannot be read: ${readable(broken.message)}`] : null,
      ...this.#broken(),
    ];
    return said.filter(Boolean).map((what) => element("p", { class: "notice" }, what));
  }

  // One damaged file may hold several columns.
  #broken() {
    const byCause = new Map();
    for (const [key, error] of this.columns.broken) {
      const known = byCause.get(error.message) ?? { error, names: [] };
      known.names.push(this.entries.find((entry) => entry.key === key)?.name ?? key);
      byCause.set(error.message, known);
    }
    return [...byCause.values()].map(({ error, names }) => [
      element("b", {}, names.join(", ")),
      ` cannot be read: ${readable(error.message)}`,
      error.run ? [". Run ", element("code", {}, readable(error.run))] : null,
    ]);
  }

  // The URL follows at once where a link may lead away, else when the keys rest.
  #moved(place, pointed) {
    this.view.at = this.columns.neuron(place);
    this.#later("at", 300, () => change({ at: this.view.at }));
    if (pointed) change({ at: this.view.at });
  }

  #open(place) {
    clearTimeout(this.#timers.at);
    change({ at: this.columns.neuron(place) });
    go({ page: "neuron", site: this.site.key, neuron: this.columns.neuron(place) });
  }
}
