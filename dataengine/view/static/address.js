// What is shown is in the page's address and nowhere else: every view can be sent as a link, and "back" goes back.

export const FILTERS = [
  "class", "verdict", "reason", "score", "size", "count", "altitude", "gsd", "camera_angle", "taken", "q", "sort",
];

export function read() {
  return new URLSearchParams(location.search);
}

// The filter part of an address, as the server takes it; `changes` are laid over it.
export function filterOf(parameters, changes = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of parameters) if (FILTERS.includes(name) && value !== "" && !(name in changes)) found.append(name, value);
  for (const [name, value] of Object.entries(changes)) if (value !== null) found.set(name, value);
  return found;
}

// The present address with changes: null takes a parameter out, an array repeats it.
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

// Links of this page change the address without loading it anew; with Ctrl or the middle button they do as links do.
export function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='?'], a[href='/']");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.defaultPrevented) return;
    event.preventDefault();
    if (link.getAttribute("href") !== location.search) history.pushState(null, "", link.getAttribute("href"));
    dispatchEvent(new Event("address"));
  });
}
