// The one tooltip of all heat maps, and the arrow keys inside them. A record is one stop of the
// Tab key, at its strongest token; from there arrows lead from token to token.

import { element } from "./dom.js";

const told = new WeakMap(); // heat map → what is said of the token at a place
let tip = null;

// `say(place)` gives the lines of the tooltip.
export function explainTokens(map, say) {
  told.set(map, say);
  if (tip) return;
  tip = element("div", { id: "heat-tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  document.addEventListener("pointerover", (event) => onto(event.target));
  document.addEventListener("focusin", (event) => onto(event.target));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", keys);
  addEventListener("scroll", hide, { passive: true, capture: true });
}

function tokenOf(target) {
  return target.closest?.(".heat [data-place]") ?? null;
}

function onto(target) {
  const token = tokenOf(target);
  const say = token && told.get(token.closest(".heat"));
  if (!say) return hide();
  tip.replaceChildren(...say(Number(token.dataset.place)).map((line) => element("div", {}, line)));
  tip.hidden = false;
  if (document.activeElement === token) token.setAttribute("aria-describedby", tip.id);
  put(token);
}

function put(token) {
  const [box] = token.getClientRects();
  if (!box) return hide();
  const width = document.documentElement.clientWidth;
  const left = Math.max(6, Math.min(box.left, width - tip.offsetWidth - 6));
  const above = box.top - tip.offsetHeight - 6;
  tip.style.setProperty("left", `${left}px`);
  tip.style.setProperty("top", `${above > 4 ? above : box.bottom + 6}px`);
}

function hide() {
  if (tip) tip.hidden = true;
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };

function keys(event) {
  if (event.key === "Escape") return hide();
  const token = tokenOf(event.target);
  if (!token || event.altKey || event.ctrlKey || event.metaKey) return;
  const tokens = [...token.closest(".heat").querySelectorAll("[data-place]")];
  const at = tokens.indexOf(token);
  const reading = getComputedStyle(token).direction === "rtl" && event.key.match(/Left|Right/) ? -1 : 1;
  const to = { Home: 0, End: tokens.length - 1 }[event.key] ?? at + reading * STEPS[event.key];
  if (Number.isNaN(to)) return;
  event.preventDefault();
  focus(tokens[Math.max(0, Math.min(tokens.length - 1, to))], token);
}

function focus(token, before) {
  before.setAttribute("tabindex", "-1");
  before.removeAttribute("aria-describedby");
  token.setAttribute("tabindex", "0");
  token.focus();
}
