// The page: header, filters and one view at a time, all from the address.

import { changed, followLinks, NOTHING, read } from "./address.js";
import { getSite } from "./api.js";
import { el } from "./elements.js";
import { showFilters } from "./filters.js";
import { showHelp } from "./help.js";
import { showCompare } from "./compare.js";
import { showDraw } from "./draw.js";
import { showMap } from "./map.js";
import { showObjects } from "./objects.js";
import { showOutcomes } from "./outcomes.js";
import { showPicture } from "./picture.js";
import { showPictures } from "./pictures.js";
import { showStatistics } from "./statistics.js";

const VIEWS = { pictures: showPictures, picture: showPicture, compare: showCompare, objects: showObjects, map: showMap, outcomes: showOutcomes, statistics: showStatistics, draw: showDraw };
const TITLES = { pictures: "Images", picture: "One image", compare: "Comparison", objects: "Objects", map: "Map", outcomes: "Detections and labels", statistics: "Statistics", draw: "Draw a layout" };
let site = null;
let leave = () => {};

function viewOf(parameters) {
  const asked = parameters.get("view") ?? (site.made || site.real ? "pictures" : "draw");
  return asked in VIEWS ? asked : "pictures";
}

function tabs(view, parameters) {
  const side = site[parameters.get("side")] ? parameters.get("side") : site.made ? "made" : "real";
  const link = (name, here, changes) =>
    el("a", { href: changed({ ...NOTHING, ...changes }), "aria-current": here ? "page" : null }, name);
  const onSide = (of) => ["pictures", "picture"].includes(view) && side === of;
  const pair = parameters.get("pair");
  return [
    site.made && link(site.made.title, onSide("made"), { view: null }),
    site.real && link(site.real.title, onSide("real"), { view: null, side: "real" }),
    site.other && link(site.other.title, onSide("other"), { view: null, side: "other" }),
    site.made?.judged && link("Kept and dropped", view === "compare" && !pair, { view: "compare", verdict: null, reason: null }),
    site.made && site.real && link("Synthetic and real", view === "compare" && pair === "real", { view: "compare", pair: "real" }),
    site.made && site.other && link("Comparison", view === "compare" && pair === "other", { view: "compare", pair: "other" }),
    (site.made || site.real) && link("Objects", view === "objects", { view: "objects" }),
    (site.made || site.real) && link("Map", view === "map", { view: "map" }),
    (site.made || site.real) && link("Found and missed", view === "outcomes", { view: "outcomes" }),
    (site.made || site.real) && link("Statistics", view === "statistics", { view: "statistics" }),
    site.studio && link("Draw", view === "draw", { view: "draw" }),
  ];
}

function head(view, parameters) {
  const shown = site.made ?? site.real;
  const facts = shown ? shown.title : "";
  document.title = `${facts || "draw"} – dataengine`;
  document.getElementById("header").replaceChildren(
    el("a", { class: "brand", href: "/", title: "All images" }, el("img", { src: "/static/icon.svg", alt: "", width: 22, height: 22 }), el("span", {}, facts || "dataengine")),
    el("nav", { "aria-label": "Views" }, tabs(view, parameters)),
    el("button", { type: "button", class: "quiet", onclick: showHelp, "aria-label": "Help: keys", title: "Keys (?)" }, "?"),
  );
  document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
}

function show() {
  const parameters = read();
  const view = viewOf(parameters);
  leave();
  head(view, parameters);
  document.body.dataset.view = view;
  const filters = document.getElementById("filters");
  const filtered = ["pictures", "compare", "statistics", "objects", "outcomes"].includes(view);
  filters.hidden = !filtered;
  if (filtered) showFilters(filters, site, parameters, view);
  const main = document.getElementById("main");
  const root = el("div", { class: "view" });
  main.replaceChildren(el("h1", { class: "unseen" }, `${TITLES[view]} – ${(site.made ?? site.real)?.title ?? "dataengine"}`), root);
  leave = VIEWS[view](root, site, parameters) ?? (() => {});
}

function keys(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.closest?.("input:not([type=checkbox]):not([type=radio]), select, textarea");
  if (event.key === "Escape" && writing) return writing.blur();
  if (writing || document.querySelector("dialog[open]")) return;
  if (event.key === "?") showHelp();
  else if (event.key === "/") {
    const field = document.getElementById("search");
    if (!field) return;
    document.getElementById("filter-panel")?.setAttribute("open", "");
    event.preventDefault();
    field.focus();
    field.select();
  }
}

try {
  site = await getSite();
  followLinks();
  addEventListener("popstate", show);
  addEventListener("address", show);
  document.addEventListener("keydown", keys);
  show();
} catch (error) {
  document.getElementById("main").replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
}
