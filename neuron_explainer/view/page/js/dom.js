// Elements made by name. Text only ever becomes text: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

// element("a", {href: "?", class: "run", onclick: go}, "text", child, …)
// Attributes that are null or false are left out; `on…` are listeners; `style` is set property by
// property, because the page's policy allows no style attributes.
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") {
      for (const [property, text] of Object.entries(value)) made.style.setProperty(property, text);
    } else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Replace what a node holds.
export function show(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Tell those who cannot see it.
export function announce(text) {
  document.getElementById("announce").textContent = text;
}
