// HTML and SVG elements from a tag, properties and children; text is never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open") element[name] = value;
    else if (name === "style") for (const [key, one] of Object.entries(value)) key.startsWith("--") ? element.style.setProperty(key, one) : (element.style[key] = one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

// A toggle button for one of several choices.
export function choice(label, pressed, onclick, properties = {}) {
  return el("button", { type: "button", "aria-pressed": String(pressed), onclick, ...properties }, label);
}

export function swatch(colour) {
  return el("span", { class: "swatch", "aria-hidden": "true", style: { background: colour } });
}

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

export const number = new Intl.NumberFormat("en");
export const plural = (n, noun) => (n === 1 ? noun : `${noun}s`);
export const percent = (part, whole) => (whole ? `${Math.round((1000 * part) / whole) / 10} %` : "–");
