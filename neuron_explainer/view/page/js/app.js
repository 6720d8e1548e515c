// Draws the page that the URL names.

import { get, Unavailable } from "./api.js";
import { announce, element, show } from "./dom.js";
import { head } from "./head.js";
import { go, state } from "./route.js";

const PAGES = ["home", "layer", "neuron", "compare", "try", "judge"];
let drawing = new AbortController();

// Every module in pages/ exports `title(state, workspace)` and
// `async draw(main, {state, workspace, signal})`, which fills <main>; `signal` is aborted when
// another page is drawn.
async function draw() {
  drawing.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "true");
  const asked = state();
  try {
    const workspace = await get("workspace.json", { fresh: !asked.page || asked.page === "home" });
    if (signal.aborted) return;
    head(workspace, asked);
    const name = PAGES.includes(asked.page) ? asked.page : "home";
    const page = await import(`./pages/${name}.js`);
    if (signal.aborted) return;
    document.title = `${page.title(asked, workspace)} · neuron-explainer`;
    await page.draw(main, { state: asked, workspace, signal });
    if (signal.aborted) return;
    announce(document.title);
    scrollTo(0, history.state?.scroll ?? 0);
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    show(main, problem(error));
    if (!(error instanceof Unavailable)) throw error;
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
}

// What is missing, and the command that makes it.
export function problem(error) {
  return element(
    "section",
    { class: "problem", role: "alert" },
    element("h1", {}, error instanceof Unavailable ? "This cannot be shown" : "Something broke"),
    element("p", {}, error.message),
    error.run ? element("p", {}, "Run ", element("code", {}, error.run)) : null,
  );
}

// Links within the page do not load it anew.
document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='?']");
  if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(Object.fromEntries(new URLSearchParams(anchor.getAttribute("href"))));
  document.getElementById("main").focus({ preventScroll: true });
});
// A page is drawn after "back", so only we know when it is long enough to scroll.
history.scrollRestoration = "manual";
addEventListener("popstate", draw);
addEventListener("route", draw);
draw();
