// Which two runs are compared, where and by which measure, read from the URL; and what follows of the numbers.

import { readFilters, readSort } from "./columns.js";
import { metricName, readable } from "./text.js";

export const DIFFERENCE = "b-minus-a"; // keys of the two computed columns
export const SIZE = "size-of-difference";

// {a, b, sites}: two runs that share sites, as asked for if possible; null where no two runs do.
export function readRuns(state, workspace) {
  const runs = Object.values(workspace.runs);
  const shared = (a, b) => a.sites.filter((site) => b.sites.includes(site) && Object.hasOwn(workspace.sites, site));
  const at = (key) => runs.find((run) => run.key === key);
  const here = (run) => !state.site || run.sites.includes(state.site);
  const firsts = [at(state.a), ...runs.filter(here), ...runs].filter(Boolean);
  for (const a of state.a && at(state.a) ? [at(state.a)] : firsts) {
    const partners = [at(state.b), ...runs.filter(here), ...runs].filter((run) => run && run.key !== a.key);
    const b = at(state.b) && at(state.b).key !== a.key ? at(state.b) : partners.find((run) => shared(a, run).length);
    if (b) return { a, b, sites: shared(a, b) };
  }
  return null;
}

// The measures that both runs have on a site: [{key, name, a, b}], `a` and `b` being columns. Those of the
// same simulator come first; of two simulators only what stands for the runs is compared.
export function measures(columns, a, b) {
  const of = (run) => columns.known.filter((column) => column.kind === "score" && column.run === run.key);
  const others = of(b);
  const same = of(a).flatMap((one) => {
    const other = others.find(({ simulator, metric }) => simulator === one.simulator && metric === one.metric);
    return other ? [measure(one, other)] : [];
  });
  const main = (run) => of(run).find(({ simulator, metric }) => simulator === run.main?.simulator && metric === run.main?.metric);
  const [one, other] = [main(a), main(b)];
  const mixed = one && other && one.metric === other.metric && one.simulator !== other.simulator ? [measure(one, other)] : [];
  return [...same, ...mixed];
}

function measure(a, b) {
  const simulators = a.simulator === b.simulator ? a.simulator : `${a.simulator} and ${b.simulator}`;
  return { key: a.simulator === b.simulator ? `${a.simulator}.${a.metric}` : `main.${a.metric}`, name: `${metricName(a.metric)} (${readable(simulators)})`, a, b, mixed: a.simulator !== b.simulator };
}

export function chooseMeasure(found, asked, run) {
  const usual = found.find(({ a }) => a.simulator === run.main?.simulator && a.metric === run.main?.metric) ?? found[0];
  return found.find(({ key }) => key === asked) ?? usual;
}

export function readList(state, chosen) {
  const known = ["neuron", DIFFERENCE, SIZE, chosen.a.key, chosen.b.key];
  const sort = readSort(state.sort, `-${SIZE}`);
  return {
    sort: known.includes(sort.key) ? sort : readSort("", `-${SIZE}`),
    filters: new Map([...readFilters(state.f)].filter(([key]) => known.includes(key))),
    neuron: /^\d+$/.test(state.neuron ?? "") ? Number(state.neuron) : null,
    all: state.all === "1",
  };
}

// B − A a neuron, NaN where either is undefined.
export function differences(a, b) {
  return a.map((value, place) => b[place] - value);
}

// Paired over the neurons that both scored: {n, mean, interval, higher, lower, equal, onlyA, onlyB, meanA,
// meanB}. The interval is mean ± 1.96 standard errors over neurons; null below two.
export function paired(a, b) {
  const told = { n: 0, mean: null, interval: null, higher: 0, lower: 0, equal: 0, onlyA: 0, onlyB: 0, meanA: null, meanB: null };
  const [both, onlyA, onlyB] = [[], [], []];
  a.forEach((value, place) => {
    const other = b[place];
    if (!Number.isNaN(value) && !Number.isNaN(other)) both.push(place);
    else if (!Number.isNaN(value)) onlyA.push(place);
    else if (!Number.isNaN(other)) onlyB.push(place);
  });
  Object.assign(told, { n: both.length, onlyA: onlyA.length, onlyB: onlyB.length });
  if (!both.length) return told;
  const apart = both.map((place) => b[place] - a[place]);
  const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  told.mean = average(apart);
  told.meanA = average(both.map((place) => a[place]));
  told.meanB = average(both.map((place) => b[place]));
  told.higher = apart.filter((value) => value > 0).length;
  told.lower = apart.filter((value) => value < 0).length;
  told.equal = told.n - told.higher - told.lower;
  if (told.n > 1) {
    const error = Math.sqrt(apart.reduce((sum, value) => sum + (value - told.mean) ** 2, 0) / (told.n - 1) / told.n);
    told.interval = [told.mean - 1.96 * error, told.mean + 1.96 * error];
  }
  return told;
}
