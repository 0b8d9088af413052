// Detections against labels: a confusion matrix, and the lists of what was found, confused, missed or not there.

import { changed, filterOf, go } from "./address.js";
import { get } from "./api.js";
import { choice, el, number, percent } from "./elements.js";
import { ObjectGrid, scales, sizes } from "./objects.js";
import { failure, tileOf } from "./pictures.js";

const KINDS = { true: "Found", confused: "Another class", false: "No label there", missed: "Missed" };
const LEAST = 0.3; // score of detections that count
const WAIT_MS = 2000;

export function showOutcomes(main, site, parameters) {
  const asked = parameters.get("side");
  const of = asked && site[asked] ? asked : site.made ? "made" : "real";
  const leaving = new AbortController();
  const least = Number(parameters.get("least") ?? LEAST) || LEAST;
  const filter = filterOf(parameters);
  filter.delete("sort");
  filter.set("least", least);
  const state = el("p", { class: "counter", role: "status" }, "starting the detector …");
  const matrix = el("section", { class: "matrix" });
  const root = el("div", { class: "pane" });
  const chosen = Object.fromEntries(["kind", "true", "seen"].map((name) => [name, parameters.get(name)]));
  const sides = Object.keys(site).filter((name) => ["made", "real", "other"].includes(name) && site[name]);
  main.append(el("div", { class: "bar" }, state,
    sides.length > 1 ? el("div", { class: "choices", role: "group", "aria-label": "Images" }, sides.map((name) => choice(site[name].title, name === of, () => go({ side: name === "made" ? null : name, kind: null, true: null, seen: null }, { replace: true })))) : null,
    el("label", { class: "threshold" }, "from score", el("input", { type: "number", id: "least", min: 0.05, max: 1, step: 0.05, value: String(least), onchange: (event) => go({ least: event.target.value === String(LEAST) ? null : event.target.value }, { replace: true }) })),
    scales(parameters), sizes(parameters)),
    el("div", { class: "outcomes" }, matrix, root));
  let grid = null;
  const list = () => {
    if (grid) return grid.reload();
    const query = new URLSearchParams(filter);
    query.set("kind", chosen.kind in KINDS ? chosen.kind : "all");
    if (chosen.kind === null && chosen.true === null && chosen.seen === null) query.set("kind", "missed");
    for (const name of ["true", "seen"]) if (chosen[name] !== null) query.set(name, chosen[name]);
    grid = new ObjectGrid(root, {
      site, of, query, tile: tileOf(parameters), crops: parameters.get("crops") === "fit" ? "fit" : "same", side_px: site[of].crop, layer: "none",
      from: (part) => `/api/${of}/outcomes/list?${part}`, counted: () => {}, failed: (error) => root.replaceChildren(failure(error)),
    });
  };
  const ask = async () => {
    try {
      while (!leaving.signal.aborted) {
        const found = await get(`/api/${of}/outcomes?${filter}`, leaving.signal);
        state.textContent = found.error || (found.done < found.total ? `${found.detector}: ${number.format(found.done)} of ${number.format(found.total)} images so far …` : `${found.detector} on ${number.format(found.total)} images, IoU from 0.5`);
        matrix.replaceChildren(kinds(found.kinds, chosen), table(found, chosen));
        list();
        if (found.error || (found.total && found.done === found.total)) return;
        await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
    } catch (error) {
      if (error.name !== "AbortError") main.replaceChildren(failure(error));
    }
  };
  ask();
  return () => {
    leaving.abort();
    grid?.close();
  };
}

function kinds(counts, chosen) {
  const all = Object.values(counts).reduce((sum, n) => sum + n, 0);
  const nothing = chosen.kind === null && chosen.true === null && chosen.seen === null;
  return el("ul", { class: "kinds" }, Object.entries(KINDS).map(([kind, name]) => el("li", {},
    el("a", { href: changed({ kind, true: null, seen: null }), "aria-current": chosen.kind === kind || (nothing && kind === "missed") ? "true" : null }, el("strong", {}, number.format(counts[kind])), ` ${name.toLowerCase()} `, el("span", { class: "aside" }, percent(counts[kind], all))))));
}

// Rows: classes of labels. Columns: classes that the detector saw. Each number opens its list.
function table({ classes, matrix }, chosen) {
  const names = [...classes, "nothing"];
  const most = Math.max(1, ...matrix.flat());
  const cell = (n, row, column) => {
    const share = n / most;
    const here = chosen.true === String(row) && chosen.seen === String(column);
    if (!n) return el("td", { class: "zero" }, row === classes.length && column === classes.length ? "" : "0");
    const look = row === column ? "right" : "wrong";
    return el("td", { class: look, style: { "--share": `${Math.round(8 + 62 * Math.sqrt(share))}%` } }, el("a", { href: changed({ kind: null, true: row, seen: column }), "aria-label": `${n}: ${names[row] === "nothing" ? "no label" : names[row]}, seen as ${names[column]}`, "aria-current": here ? "true" : null }, number.format(n)));
  };
  return el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, el("table", { class: "confusion" }, el("caption", {}, "Rows: labels. Columns: what the detector saw."),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "unseen" }, "Label")), names.map((name) => el("th", { scope: "col" }, name === "nothing" ? "missed" : name)))),
    el("tbody", {}, matrix.map((row, i) => el("tr", {}, el("th", { scope: "row" }, names[i] === "nothing" ? "no label" : names[i]), row.map((n, j) => cell(n, i, j)))))));
}
