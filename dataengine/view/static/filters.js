// The filter panel, synchronised with the address.

import { changed, go, FILTERS } from "./address.js";
import { choice, el, number, swatch } from "./elements.js";

const RANGES = {
  score: ["Detector's score", "of an object", 0.01], size: ["Longer side", "of an object, pixels", 1], count: ["Objects", "in the image", 1],
  altitude: ["Altitude", "metres", 1], gsd: ["Ground sample distance", "metres per pixel", 0.01], camera_angle: ["Camera angle", "degrees; 90 looks down", 1],
};
const LIMITS = { count: "objects" };
const SORTS = [["", "Original order"], ["score", "Lowest score first"], ["-score", "Highest score first"], ["-objects", "Most objects first"], ["objects", "Fewest objects first"], ["name", "Name"]];

export function showFilters(root, site, parameters, view) {
  const side = parameters.get("side");
  const of = ["pictures", "objects", "outcomes"].includes(view) && site[side] ? side : site.made ? "made" : "real";
  const real = of !== "made";
  const summary = site[of];
  const set = FILTERS.filter((name) => parameters.has(name) && name !== "sort").length;
  const focus = document.activeElement?.id; // the panel is rebuilt; the focused field keeps the focus
  const panel = el("details", { id: "filter-panel", open: matchMedia("(min-width: 800px)").matches || root.querySelector("details")?.open },
    el("summary", {}, "Filters", set ? el("span", { class: "badge" }, set) : null),
    el("div", { class: "fields" },
      search(parameters),
      classes(summary, parameters),
      view === "compare" ? null : verdicts(summary, parameters),
      !real && summary.decisions ? decisions(summary, parameters) : null,
      Object.entries(RANGES).filter(([name]) => name === "size" || (LIMITS[name] ?? name) in summary.limits).map(([name, words]) => range(name, words, summary, parameters)),
      summary.taken.length > 1 ? taken(parameters) : null,
      ["statistics", "objects", "outcomes"].includes(view) ? null : sorts(summary, parameters),
      set ? el("a", { class: "clear", href: changed(Object.fromEntries(FILTERS.map((name) => [name, null]))) }, "Clear all filters") : null));
  root.replaceChildren(panel);
  if (focus) document.getElementById(focus)?.focus();
}

function search(parameters) {
  return el("div", { class: "field" }, el("label", { for: "search" }, "Search"),
    el("input", { id: "search", type: "search", placeholder: "name, scene or seed", value: parameters.get("q") ?? "", spellcheck: "false", autocomplete: "off", onchange: (event) => go({ q: event.target.value, at: null }) }));
}

function classes(summary, parameters) {
  const chosen = new Set(parameters.getAll("class"));
  const toggle = (name) => {
    const now = new Set(chosen);
    if (!now.delete(name)) now.add(name);
    go({ class: [...now], at: null });
  };
  return el("fieldset", { class: "field" }, el("legend", {}, "Class"), summary.classes.map(({ name, colour, objects }, i) =>
    el("label", { class: "check" }, el("input", { id: `class-${i}`, type: "checkbox", checked: chosen.has(name), onchange: () => toggle(name) }), swatch(colour), el("span", { class: "grows" }, name), el("span", { class: "aside" }, number.format(objects)))));
}

function verdicts(summary, parameters) {
  if (!summary.judged) return null;
  const now = parameters.get("verdict") ?? "";
  const buttons = [["", "All"], ["kept", "Kept"], ["dropped", "Dropped"]].map(([value, label]) =>
    choice(label, value === now, () => go({ verdict: value, reason: null, at: null }), { id: `verdict-${value}` }));
  const reasons = summary.reasons.length > 1 && now === "dropped" ? el("select", { id: "reason", "aria-label": "Reason for dropping", onchange: (event) => go({ reason: event.target.value, at: null }) },
    el("option", { value: "" }, "any reason"), summary.reasons.map((reason) => el("option", { value: reason, selected: reason === parameters.get("reason") }, reason))) : null;
  return el("fieldset", { class: "field" }, el("legend", {}, "Verdict"), el("div", { class: "choices" }, buttons), reasons);
}

const DECISIONS = [["", "any"], ["used", "in the data set"], ["accepted", "accepted by hand"], ["rejected", "rejected by hand"], ["corrected", "labels corrected"], ["decided", "any decision"], ["undecided", "no decision yet"]];

function decisions(summary, parameters) {
  const now = parameters.get("decision") ?? "";
  const chosen = new Set(parameters.getAll("tag"));
  const tags = Object.entries(summary.decisions.tags);
  for (const tag of chosen) if (!tags.some(([name]) => name === tag)) tags.push([tag, 0]);
  const toggle = (tag) => {
    if (!chosen.delete(tag)) chosen.add(tag);
    go({ tag: [...chosen], at: null });
  };
  return el("fieldset", { class: "field" }, el("legend", {}, "Decision"),
    el("select", { id: "decision", "aria-label": "Decision by hand", onchange: (event) => go({ decision: event.target.value, at: null }) }, DECISIONS.map(([value, label]) => el("option", { value, selected: value === now }, label))),
    tags.map(([tag, n], i) => el("label", { class: "check" }, el("input", { id: `tag-${i}`, type: "checkbox", checked: chosen.has(tag), onchange: () => toggle(tag) }), el("span", { class: "grows" }, tag), el("span", { class: "aside" }, number.format(n)))));
}

function range(name, [label, unit, step], summary, parameters) {
  const [low, high] = (parameters.get(name) ?? "..").split("..");
  const [least, most] = summary.limits[LIMITS[name] ?? name] ?? ["", ""];
  const fields = [["low", low, least, "from"], ["high", high, most, "to"]].map(([end, value, limit, word]) =>
    el("input", { id: `${name}-${end}`, type: "number", step, inputmode: "decimal", value: value ?? "", placeholder: limit === "" ? word : String(Math.round(limit * 100) / 100), "aria-label": `${label} ${word}`, onchange: apply }));
  function apply() {
    const [from, to] = fields.map((field) => field.value);
    go({ [name]: from === "" && to === "" ? null : `${from}..${to}`, at: null });
  }
  return el("fieldset", { class: "field" }, el("legend", {}, label, el("span", { class: "aside" }, ` ${unit}`)), el("div", { class: "range" }, fields[0], el("span", { "aria-hidden": "true" }, "–"), fields[1]));
}

function taken(parameters) {
  const now = parameters.get("taken") ?? "";
  return el("fieldset", { class: "field" }, el("legend", {}, "Time of day"), el("div", { class: "choices" }, [["", "Any"], ["day", "Day"], ["night", "Night"]].map(([value, label]) =>
    choice(label, value === now, () => go({ taken: value, at: null }), { id: `taken-${value}` }))));
}

function sorts(summary, parameters) {
  const shown = SORTS.filter(([value]) => summary.judged || !value.includes("score"));
  return el("div", { class: "field" }, el("label", { for: "sort" }, "Order"), el("select", { id: "sort", onchange: (event) => go({ sort: event.target.value, at: null }) },
    shown.map(([value, label]) => el("option", { value, selected: value === (parameters.get("sort") ?? "") }, value === "" && summary.kind === "run" ? "Order of generation" : label))));
}
