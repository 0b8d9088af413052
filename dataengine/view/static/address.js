// The page's address holds its whole state: every view can be shared as a link, and "back" works.

export const FILTERS = [
  "class", "verdict", "reason", "score", "size", "count", "altitude", "gsd", "camera_angle", "taken", "q", "sort",
  "decision", "tag",
];

export function read() {
  return new URLSearchParams(location.search);
}

// What belongs to one view only, to be left out of links to others.
export const OWN = ["at", "id", "side", "layers", "zoom", "least", "edit", "object", "like", "crops", "order", "pair", "kind", "true", "seen", "of", "colour"];
export const NOTHING = Object.fromEntries(OWN.map((name) => [name, null]));

// The filter part of an address for the server, with `changes` applied.
export function filterOf(parameters, changes = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of parameters) if (FILTERS.includes(name) && value !== "" && !(name in changes)) found.append(name, value);
  for (const [name, value] of Object.entries(changes)) if (value !== null) found.set(name, value);
  return found;
}

// The current address with changes: null removes a parameter, an array repeats it.
export function changed(changes) {
  const found = read();
  for (const [name, value] of Object.entries(changes)) {
    found.delete(name);
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") found.append(name, one);
  }
  const text = found.toString();
  return text ? `?${text}` : location.pathname;
}

export function go(changes, { replace = false } = {}) {
  const target = changed(changes);
  if (target === location.search || (target === "/" && location.search === "")) return;
  history[replace ? "replaceState" : "pushState"](null, "", target);
  dispatchEvent(new Event("address"));
}

// Links of this page change the address without reloading it; Ctrl and the middle button work as usual.
export function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='?'], a[href='/']");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.defaultPrevented) return;
    event.preventDefault();
    if (link.getAttribute("href") !== location.search) history.pushState(null, "", link.getAttribute("href"));
    dispatchEvent(new Event("address"));
  });
}
