// The images that match the filter, as one grid.

import { filterOf, go } from "./address.js";
import { canDecide, DONE } from "./decisions.js";
import { announce, choice, el, number, percent, plural } from "./elements.js";
import { Grid } from "./grid.js";
import { Selection } from "./selection.js";

export const TILES = { s: "Small", m: "Medium", l: "Large" };
const LAYERS = { labels: "Labels", asked: "Requested layout", none: "None" };

export const tileOf = (parameters, usual = "m") => (parameters.get("tile") in TILES ? parameters.get("tile") : usual);
export const layerOf = (parameters) => (parameters.get("boxes") in LAYERS ? parameters.get("boxes") : "labels");

// Controls of every grid: the size of the tiles, and which boxes are shown.
export function gridChoices(parameters, withAsked, usual = "m") {
  const [tile, layer] = [tileOf(parameters, usual), layerOf(parameters)];
  return [
    el("div", { class: "choices", role: "group", "aria-label": "Boxes" }, el("span", { class: "choices-name" }, "Boxes"),
      Object.entries(LAYERS).filter(([name]) => withAsked || name !== "asked").map(([name, label]) =>
        choice(label, name === layer, () => go({ boxes: name === "labels" ? null : name }, { replace: true })))),
    el("div", { class: "choices", role: "group", "aria-label": "Size of the images" }, el("span", { class: "choices-name" }, "Size"),
      Object.entries(TILES).map(([name, label]) =>
        choice(label, name === tile, () => go({ tile: name === usual ? null : name }, { replace: true })))),
  ];
}

// What there is to know about a run or data set, such as lines of its manifest that are damaged.
function notes(lines) {
  return el("details", { class: "notes" }, el("summary", {}, `${number.format(lines.length)} ${plural(lines.length, "note")}`), el("ul", {}, lines.map((line) => el("li", {}, line))));
}

export function failure(error) {
  return el("p", { class: "error", role: "alert" }, error.message);
}

export function showPictures(main, site, parameters) {
  const of = site[parameters.get("side")] && parameters.get("side") !== "studio" ? parameters.get("side") : site.made ? "made" : "real";
  const summary = site[of];
  const counter = el("p", { class: "counter", "aria-live": "polite" }, "…");
  const root = el("div", { class: "pane" });
  main.append(el("div", { class: "bar" }, counter, summary.notes.length ? notes(summary.notes) : null, gridChoices(parameters, summary.kind === "run")), root);
  const counted = (total) => {
    counter.replaceChildren(el("strong", {}, number.format(total)), total === summary.pictures ? ` ${plural(total, "image")}` : ` of ${number.format(summary.pictures)} ${plural(summary.pictures, "image")}`,
      total === summary.pictures && summary.judged ? el("span", { class: "aside" }, ` ${number.format(summary.kept)} kept (${percent(summary.kept, summary.pictures)})`) : "");
    announce(`${total} ${plural(total, "image")}`);
    if (!total) root.replaceChildren(el("p", { class: "empty" }, "No image matches. ", el("a", { href: "/" }, "Show all")));
  };
  const failed = (error) => root.replaceChildren(failure(error));
  const query = filterOf(parameters);
  const leaving = new AbortController();
  let grid = null;
  const selection = canDecide(site, of) ? new Selection({ site, filter: query, total: () => grid?.total ?? 0, changed: () => grid?.redraw() }) : null;
  if (selection) {
    main.append(selection.root);
    addEventListener(DONE, () => selection.show(), { signal: leaving.signal });
  }
  const counting = (total) => {
    counted(total);
    selection?.show();
  };
  grid = new Grid(root, {
    site, of, query, tile: tileOf(parameters), layer: layerOf(parameters), at: Number(parameters.get("at")) || 0, counted: counting, failed, selection, reasons: parameters.get("verdict") === "dropped",
  });
  return () => {
    leaving.abort();
    grid.close();
  };
}
