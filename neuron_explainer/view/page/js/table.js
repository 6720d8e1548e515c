// A table of any number of rows, of which only those in view are in the document (an ARIA grid).

import { announce, element, show } from "./dom.js";

const TALLEST = 8e6; // pixels; browsers place nothing beyond some 16 million
const SPARE = 6; // rows drawn beyond each edge of the view

// `columns()` are [{key, label, hint, kind: "number" or "text", width, sortable, cell(place) → node}];
// `pending(place)` tells rows that are drawn anew when `arrived` is called; `wanted(places)` hears what is
// in view, `opened(place)` of Enter or a double click, `moved(place, pointed)` of the row that is current, and whether it was clicked.
export class Table {
  #order = new Uint32Array();
  #shown = []; // columns, as of the last time they were asked for
  #drawn = new Map();
  #current = -1; // position in the order
  #frame = 0;

  constructor({ label, columns, pending, wanted, opened, moved, sort, sorted, signal }) {
    Object.assign(this, { columns, pending, wanted, opened, moved, sort, sorted });
    this.id = `table-${label.replace(/\W+/g, "-")}`;
    this.head = element("div", { role: "row", "aria-rowindex": 1, class: "table-head" });
    this.body = element("div", { role: "rowgroup", class: "table-body" });
    this.node = element(
      "div",
      { role: "grid", class: "table", tabindex: "0", "aria-label": label, id: this.id },
      element("div", { role: "rowgroup", class: "table-heads" }, this.head),
      this.body,
    );
    this.#listen(signal);
  }

  #listen(signal) {
    this.node.addEventListener("scroll", () => this.#later(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    this.body.addEventListener("dblclick", (event) => this.#click(event, true));
    const watched = new ResizeObserver(() => this.#later());
    watched.observe(this.node);
    signal.addEventListener("abort", () => watched.disconnect());
  }

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#render());
  }

  // Show these places, in this order; the current row stays current where it is still among them.
  fill(order, { keep = true } = {}) {
    const place = this.#order[this.#current];
    this.#order = order;
    this.#current = keep && place !== undefined ? order.indexOf(place) : -1;
    this.redraw();
    if (!keep) this.node.scrollTop = 0;
  }

  // The place of the first row, or undefined.
  get first() {
    return this.#order[0];
  }

  // Columns or texts changed.
  redraw() {
    this.#drawn.forEach((row) => row.remove());
    this.#drawn.clear();
    const columns = (this.#shown = this.columns());
    this.node.style.setProperty("--columns", columns.map(({ least, share }) => `minmax(${least}rem, ${share}fr)`).join(" "));
    this.node.style.setProperty("--least", `${columns.reduce((sum, { least }) => sum + least + 1, 1)}rem`);
    this.node.setAttribute("aria-rowcount", this.#order.length + 1);
    this.node.setAttribute("aria-colcount", columns.length);
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    show(this.head, columns.map((column, place) => this.#heading(column, place)));
    if (focused) this.head.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    this.#render();
  }

  // Rows that were awaited are there.
  arrived() {
    for (const [position, row] of this.#drawn) {
      if (!row.hasAttribute("data-pending")) continue;
      row.remove();
      this.#drawn.delete(position);
    }
    this.#render();
  }

  get #row() {
    return parseFloat(getComputedStyle(this.node).getPropertyValue("--row")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
  }

  // Where the view is, in a table as tall as all rows: beyond TALLEST the scroll bar is scaled down.
  #view() {
    const row = this.#row;
    const full = this.#order.length * row;
    const tall = Math.min(full, TALLEST);
    const high = Math.max(row, this.node.clientHeight - this.head.offsetHeight);
    const factor = full > tall ? (full - high) / (tall - high) : 1;
    const scrolled = this.node.scrollTop;
    return { row, full, tall, high, factor, scrolled, top: scrolled * factor };
  }

  #render() {
    const view = this.#view();
    this.body.style.setProperty("height", `${view.tall}px`);
    const first = Math.max(0, Math.floor(view.top / view.row) - SPARE);
    const last = Math.min(this.#order.length, Math.ceil((view.top + view.high) / view.row) + SPARE);
    for (const [position, row] of this.#drawn) {
      if (position >= first && position < last) continue;
      row.remove();
      this.#drawn.delete(position);
    }
    for (let position = first; position < last; position++) {
      if (!this.#drawn.has(position)) this.#insert(position, this.#shown);
      const y = position * view.row - view.top + view.scrolled;
      this.#drawn.get(position).style.setProperty("transform", `translateY(${y}px)`);
    }
    this.wanted([...this.#order.subarray(first, last)]);
    this.#mark();
  }

  #insert(position, columns) {
    const place = this.#order[position];
    const row = element(
      "div",
      { role: "row", class: "table-row", id: `${this.id}-${position}`, "aria-rowindex": position + 2, "data-pending": this.pending(place) },
      columns.map((column, number) =>
        element("div", { role: "gridcell", class: `cell ${column.kind}`, "aria-colindex": number + 1, "data-column": column.key }, column.cell(place)),
      ),
    );
    this.#drawn.set(position, row);
    // Rows stand in the document as they stand in the table: readers and copying follow the document.
    const after = [...this.#drawn.keys()].filter((other) => other > position).sort((a, b) => a - b)[0];
    this.body.insertBefore(row, after === undefined ? null : this.#drawn.get(after));
  }

  #heading(column, number) {
    const is = this.sort().key === column.key;
    const direction = is ? (this.sort().descending ? "descending" : "ascending") : "none";
    const arrow = is ? element("span", { class: "arrow", "aria-hidden": "true" }, this.sort().descending ? "▼" : "▲") : null;
    const label = [element("span", { class: "name" }, column.label, arrow), column.hint ? element("span", { class: "hint" }, column.hint) : null];
    return element(
      "div",
      { role: "columnheader", class: `cell ${column.kind}`, "aria-colindex": number + 1, "aria-sort": column.sortable ? direction : null },
      column.sortable ? element("button", { type: "button", "data-sort": column.key, onclick: () => this.#sortBy(column) }, label) : label,
    );
  }

  #sortBy(column) {
    const now = this.sort();
    const descending = now.key === column.key ? !now.descending : column.kind === "number" && column.key !== "neuron";
    this.sorted({ key: column.key, descending });
    announce(`Sorted by ${column.label}, ${descending ? "descending" : "ascending"}`);
  }

  #click(event, open = false) {
    const row = event.target.closest(".table-row");
    if (!row) return;
    this.#go(Number(row.id.slice(this.id.length + 1)), { scroll: false, pointed: true });
    if (open) this.opened(this.#order[this.#current]);
  }

  #key(event) {
    if (event.target !== this.node || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#view().high / this.#row) - 1);
    const last = this.#order.length - 1;
    const from = this.#current < 0 ? this.#first() - (event.key === "ArrowDown" ? 1 : 0) : this.#current;
    const target = { ArrowDown: from + 1, ArrowUp: from - 1, PageDown: from + page, PageUp: from - page, Home: 0, End: last }[event.key];
    if (target !== undefined && last >= 0) {
      event.preventDefault();
      this.#go(Math.min(last, Math.max(0, target)));
    } else if (event.key === "Enter" && this.#current >= 0) {
      event.preventDefault();
      this.opened(this.#order[this.#current]);
    }
  }

  #first() {
    const view = this.#view();
    return Math.ceil(view.top / view.row);
  }

  // Make the row of a place current, and bring it into view.
  show(place) {
    const position = this.#order.indexOf(place);
    if (position >= 0) this.#go(position, { tell: false, middle: true });
  }

  #go(position, { scroll = true, tell = true, middle = false, pointed = false } = {}) {
    this.#current = position;
    if (scroll) this.#reveal(position, middle);
    this.#render();
    if (tell) this.moved(this.#order[position], pointed);
  }

  #reveal(position, middle) {
    const { row, tall, high, factor, top } = this.#view();
    this.body.style.setProperty("height", `${tall}px`); // else there is nowhere to scroll to yet
    const y = position * row;
    let to = top;
    if (middle) to = Math.max(0, y - high / 2);
    else if (y < top) to = y;
    else if (y + row > top + high) to = y + row - high;
    if (to !== top) this.node.scrollTop = to / factor;
  }

  #mark() {
    for (const [position, row] of this.#drawn) row.setAttribute("aria-selected", position === this.#current);
    const drawn = this.#drawn.get(this.#current);
    if (drawn) this.node.setAttribute("aria-activedescendant", drawn.id);
    else this.node.removeAttribute("aria-activedescendant");
  }
}
