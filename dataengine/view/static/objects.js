// Objects one by one: crops in an order, synthetic beside real ones at the same scale, and those similar to one.

import { changed, filterOf, go } from "./address.js";
import { get } from "./api.js";
import { outline } from "./boxes.js";
import { choice, el, number, plural, svg, swatch } from "./elements.js";
import { Grid } from "./grid.js";
import { failure, tileOf, TILES } from "./pictures.js";

const ORDERS = [["", "Order of images"], ["score", "Lowest score first"], ["-score", "Highest score first"], ["size", "Smallest first"], ["-size", "Largest first"], ["class", "Class"], ["near", "Nearest to a real one first"], ["-near", "Farthest from real ones first"]];
const ROOM = 1.6; // side of a fitted crop over the longer side of its box
const LEAST_PX = 16; // side of the smallest crop
const WAIT_MS = 1500;

// The crop of an object: `side` pixels of its image around the middle of its box.
export function cropOf(site, of, item, side, out) {
  const [cx, cy] = item.box;
  const values = { x: cx.toFixed(2), y: cy.toFixed(2), w: side.toFixed(2), out, v: site[of].fingerprint };
  const lines = svg("svg", { class: "overlay", viewBox: `${cx - side / 2} ${cy - side / 2} ${side} ${side}`, "aria-hidden": "true" },
    svg("path", { class: `box ${item.difficult ? "difficult" : "label"}`, d: outline(item.box), stroke: item.colour, "vector-effect": "non-scaling-stroke" }),
    item.seen ? svg("path", { class: "box seen", d: outline(item.seen), stroke: "#fff", "vector-effect": "non-scaling-stroke" }) : null);
  return [el("img", { src: `/image/crop/${of}/${item.id}?${new URLSearchParams(values)}`, alt: "", decoding: "async", draggable: "false", loading: "lazy" }), lines];
}

export const fitted = (box) => Math.max(LEAST_PX, ROOM * Math.max(box[2], box[3]));

export class ObjectGrid extends Grid {
  // More options: crops ("same": `side` pixels for all, or "fit"), side, from(query): the address of a part of the list.
  address(query) {
    return this.from?.(query) ?? `/api/${this.of}/objects?${query}`;
  }

  tileOf(item, position) {
    const summary = this.site[this.of];
    const colour = summary.classes.find(({ name }) => name === item.class)?.colour ?? "#fff";
    const side = this.crops === "fit" ? fitted(item.box) : this.side_px;
    const figure = item.near !== undefined ? `${item.near.toFixed(2)} apart` : item.distance !== undefined ? `${item.distance.toFixed(2)} apart` : item.score != null ? item.score.toFixed(2) : "";
    const words = item.words ?? `${item.class}${item.kept === false ? ", in a dropped image" : ""}`;
    const label = `${words}, ${Math.round(Math.max(item.box[2], item.box[3]))} pixels${figure ? `, ${figure}` : ""}, in ${item.name}`;
    const href = changed({ view: "picture", side: this.of === "made" ? null : this.of, id: item.id, object: item.k >= 0 ? item.k : null, at: null, crops: null, order: null, kind: null, true: null, seen: null });
    return el("div", { class: `tile object ${item.kept === false ? "dropped" : ""}`, role: "listitem", "aria-setsize": this.total, "aria-posinset": position + 1, "data-position": position },
      el("a", { href, "aria-label": label, title: label, tabindex: position === this.at ? "0" : "-1" },
        el("span", { class: "picture" }, cropOf(this.site, this.of, { ...item, colour }, side, this.tile === "l" ? 320 : 160)),
        el("span", { class: "caption" }, swatch(colour), el("span", { class: "name" }, words), el("span", { class: "figures" }, figure))),
      item.object >= 0 ? el("a", { class: "similar", href: changed({ view: "objects", like: item.object, side: this.of === "made" ? null : this.of, at: null, kind: null, true: null, seen: null }), "aria-label": `Objects similar to this ${item.class}`, title: "Similar objects", tabindex: "-1" }, "≈") : null);
  }
}

export function sizes(parameters, usual = "m") {
  const tile = tileOf(parameters, usual);
  return el("div", { class: "choices", role: "group", "aria-label": "Size of the crops" }, el("span", { class: "choices-name" }, "Size"),
    Object.entries(TILES).map(([name, label]) => choice(label, name === tile, () => go({ tile: name === usual ? null : name }, { replace: true }))));
}

export function scales(parameters) {
  const crops = parameters.get("crops") === "fit" ? "fit" : "same";
  return el("div", { class: "choices", role: "group", "aria-label": "Scale of the crops" }, el("span", { class: "choices-name" }, "Scale"),
    choice("Same for all", crops === "same", () => go({ crops: null }, { replace: true })), choice("Fit the object", crops === "fit", () => go({ crops: "fit" }, { replace: true })));
}

export function showObjects(main, site, parameters) {
  if (parameters.get("like") !== null) return showSimilar(main, site, parameters);
  const asked = parameters.get("side");
  const of = asked && site[asked] ? asked : site.made ? "made" : "real";
  const beside = of === "made" && site.real && parameters.get("pair") !== "alone";
  const order = ORDERS.some(([value]) => value === parameters.get("order")) ? parameters.get("order") : "";
  const orders = el("label", { class: "inline" }, "Order ", el("select", { id: "order", onchange: (event) => go({ order: event.target.value, at: null }, { replace: true }) },
    ORDERS.filter(([value]) => (site.real || !value.endsWith("near")) && (site[of].judged || !value.endsWith("score"))).map(([value, label]) => el("option", { value, selected: value === order }, label))));
  const state = el("p", { class: "counter", "aria-live": "polite" }, "…");
  main.append(el("div", { class: "bar" }, state, orders, scales(parameters), sizes(parameters),
    of === "made" && site.real ? choice("Beside real ones", beside, () => go({ pair: beside ? "alone" : null }, { replace: true })) : null));
  const grids = [];
  const side = site[of].crop;
  const column = (where, title) => {
    const root = el("div", { class: "pane" });
    const counter = el("span", { class: "aside" });
    const filter = filterOf(parameters, where === "real" && of === "made" ? { verdict: null, reason: null, score: null, decision: null, tag: null } : { sort: null });
    filter.delete("sort");
    const own = where === "real" && (order.endsWith("near") || order.endsWith("score")) ? "" : order;
    if (own) filter.set("order", own);
    queueMicrotask(() => grids.push(new ObjectGrid(root, {
      site, of: where, query: filter, tile: tileOf(parameters), crops: parameters.get("crops") === "fit" ? "fit" : "same", side_px: side, layer: "none", at: where === of ? Number(parameters.get("at")) || 0 : 0,
      counted: (total) => {
        counter.textContent = ` ${number.format(total)}`;
        if (where === of) state.replaceChildren(el("strong", {}, number.format(total)), ` ${plural(total, "object")}`, parameters.get("crops") === "fit" ? "" : el("span", { class: "aside" }, ` each crop is ${side} pixels wide`));
        if (!total) root.replaceChildren(el("p", { class: "empty" }, "No object matches."));
      },
      fetched: ({ progress }) => progress && where === of && progress.done < progress.total && later(progress),
      failed: (error) => root.replaceChildren(failure(error)),
    })));
    return title ? el("section", { class: "column", "aria-label": title }, el("h2", {}, title, counter), root) : root;
  };
  let waiting = 0;
  // The distances are computed in the background: the order is fetched again from time to time.
  const later = ({ done, total, error }) => {
    clearTimeout(waiting);
    state.replaceChildren(error || `comparing with real objects: ${number.format(done)} of ${number.format(total)} …`);
    if (!error) waiting = setTimeout(() => grids.forEach((grid) => grid.of === of && grid.reload()), WAIT_MS);
  };
  main.append(beside ? el("div", { class: "columns" }, column("made", site.made.title), column("real", site.real.title)) : column(of, null));
  return () => {
    clearTimeout(waiting);
    grids.forEach((grid) => grid.close());
  };
}

function showSimilar(main, site, parameters) {
  const asked = parameters.get("side");
  const of = asked && site[asked] ? asked : site.made ? "made" : "real";
  const leaving = new AbortController();
  const state = el("p", { class: "counter", role: "status" }, "…");
  const list = el("div", { class: "similar-lists" });
  main.append(el("div", { class: "bar" }, el("a", { class: "back", href: changed({ like: null }) }, "← All objects"), state, scales(parameters)), list);
  const tile = (item, where) => {
    const colour = site[where].classes.find(({ name }) => name === item.class)?.colour ?? "#fff";
    const side = parameters.get("crops") === "fit" ? fitted(item.box) : site[of].crop;
    const href = changed({ view: "picture", side: where === "made" ? null : where, id: item.id, object: item.k, like: null, crops: null });
    return el("li", {}, el("a", { href, "aria-label": `${item.class} in ${item.name}${item.distance === undefined ? "" : `, distance ${item.distance}`}` }, el("span", { class: "picture" }, cropOf(site, where, { ...item, colour }, side, 160)),
      el("span", { class: "caption" }, swatch(colour), el("span", { class: "name" }, item.class), el("span", { class: "figures" }, item.distance?.toFixed(2) ?? ""))));
  };
  let shown = "";
  const ask = async () => {
    try {
      while (!leaving.signal.aborted) {
        const found = await get(`/api/${of}/objects/${Number(parameters.get("like"))}/similar`, leaving.signal);
        const now = JSON.stringify(found.items);
        if (now !== shown) {
          const sides = Object.keys(site).filter((where) => found.items.some((item) => item.side === where));
          list.replaceChildren(el("section", {}, el("h2", {}, "This object"), el("ul", { class: "crops" }, tile(found.asked, of))),
            ...sides.map((where) => el("section", {}, el("h2", {}, `Similar in ${site[where].title}`), el("ul", { class: "crops" }, found.items.filter((item) => item.side === where).map((item) => tile(item, where))))));
          shown = now;
        }
        state.textContent = found.error || (found.done < found.total ? `among ${number.format(found.done)} of ${number.format(found.total)} objects so far …` : `among ${number.format(found.total)} objects; distance between features of the packaged encoder`);
        if (found.error || found.done === found.total) return;
        await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(failure(error));
    }
  };
  ask();
  return () => leaving.abort();
}
