// Two grids side by side with the same filter: kept and dropped images, or synthetic and real ones.

import { changed, filterOf, go } from "./address.js";
import { get } from "./api.js";
import { choice, el, number, percent, plural } from "./elements.js";
import { GAP, Grid } from "./grid.js";
import { failure, gridChoices, layerOf, tileOf } from "./pictures.js";

const NO_VERDICT = { verdict: null, reason: null, score: null, decision: null, tag: null };

export function showCompare(main, site, parameters) {
  if (parameters.get("pair") === "other" && site.other) return showPairs(main, site, parameters);
  const withReal = parameters.get("pair") === "real" && site.real;
  // real images have no verdict and no score: these filters apply to synthetic images only
  const both = NO_VERDICT;
  const sides = withReal
    ? [[site.made.title, "made", { verdict: site.made.judged ? "kept" : null, reason: null }], [site.real.title, "real", both]]
    : [["Kept", "made", { verdict: "kept", reason: null }], ["Dropped", "made", { verdict: "dropped" }]];
  const grids = [];
  const columns = sides.map(([title, of, changes]) => {
    const query = filterOf(parameters, changes);
    if (of === "real" && /score/.test(query.get("sort") ?? "")) query.delete("sort");
    const counter = el("span", { class: "aside" });
    const root = el("div", { class: "pane" });
    const counted = (total) => {
      counter.textContent = ` ${number.format(total)}`;
      if (!total) root.replaceChildren(el("p", { class: "empty" }, "No image matches."));
    };
    const view = Object.fromEntries(["verdict", "reason"].map((name) => [name, query.get(name)]));
    queueMicrotask(() => grids.push(new Grid(root, {
      site, of, query, tile: tileOf(parameters, "s"), reasons: !withReal, layer: layerOf(parameters), counted, view,
      failed: (error) => root.replaceChildren(failure(error)),
    })));
    const href = changed({ view: null, pair: null, side: of === "real" ? "real" : null, ...view });
    return el("section", { class: "column", "aria-label": title }, el("h2", {}, el("a", { href }, title), counter), root);
  });
  main.append(el("div", { class: "bar" }, el("p", { class: "counter" }, withReal ? "The same filter on both sides" : "The reason is shown below each dropped image"), gridChoices(parameters, !withReal, "s")),
    el("div", { class: "columns" }, columns));
  return () => grids.forEach((grid) => grid.close());
}

// A run or data set beside another one: images of the same name as pairs, else two lists under one filter.
function showPairs(main, site, parameters) {
  const byName = parameters.get("order") !== "apart";
  const state = el("p", { class: "counter", "aria-live": "polite" }, "…");
  const choices = el("div", { class: "choices", role: "group", "aria-label": "Comparison" }, [["pairs", "Images of the same name"], ["apart", "Two lists"], ["figures", "Figures"]].map(([value, label]) =>
    choice(label, value === (parameters.get("order") ?? "pairs"), () => go({ order: value === "pairs" ? null : value }, { replace: true }))));
  main.append(el("div", { class: "bar" }, state, choices, parameters.get("order") === "figures" ? null : gridChoices(parameters, site.made.kind === "run", "m")));
  if (parameters.get("order") === "figures") return showFigures(main, site, parameters, state);
  const grids = [];
  const columns = el("div", { class: byName ? "" : "columns" });
  const common = { site, tile: tileOf(parameters), layer: layerOf(parameters) };
  const place = (title, of, Kind, changes) => {
    const root = el("div", { class: "pane" });
    const counter = el("span", { class: "aside" });
    const query = filterOf(parameters, changes);
    if (of === "other" && /score/.test(query.get("sort") ?? "") && !site.other.judged) query.delete("sort");
    queueMicrotask(() => grids.push(new Kind(root, {
      ...common, of, query,
      counted: (total) => {
        counter.textContent = ` ${number.format(total)}`;
        if (!total) root.replaceChildren(el("p", { class: "empty" }, byName ? `No image has the same name in ${site.made.title} and ${site.other.title}.` : "No image matches."));
      },
      fetched: ({ total, alone }) => { if (alone !== undefined) state.replaceChildren(el("strong", {}, number.format(total)), ` ${plural(total, "pair")}: ${site.made.title}, then ${site.other.title}`, alone ? el("span", { class: "aside" }, ` ${number.format(alone)} without a partner`) : ""); },
      failed: (error) => root.replaceChildren(failure(error)),
    })));
    return title ? el("section", { class: "column", "aria-label": title }, el("h2", {}, title, counter), root) : root;
  };
  if (byName) main.append(place(null, "made", PairGrid, {}));
  else {
    state.textContent = "The same filter on both sides";
    columns.append(place(site.made.title, "made", Grid, {}), place(site.other.title, "other", Grid, site.other.judged ? { decision: null, tag: null } : NO_VERDICT));
    main.append(columns);
  }
  return () => grids.forEach((grid) => grid.close());
}

// Each tile holds two images of one name.
class PairGrid extends Grid {
  address(query) {
    return `/api/pairs?${query}`;
  }

  measure() {
    super.measure();
    if (this.columns < 2) return;
    const columns = Math.max(1, Math.floor(this.columns / 2));
    const whole = (this.side + GAP) * this.columns - GAP;
    this.columns = columns;
    this.side = Math.floor((whole + GAP) / columns - GAP);
    this.step = this.side / 2 + this.caption + GAP;
    this.canvas.style.height = `${(Math.ceil((this.total ?? 0) / columns) * this.step) / this.shrink}px`;
  }

  get height() {
    return this.side / 2 + this.caption;
  }

  tileOf(item, position) {
    const [of, side] = [this.of, this.side];
    const halves = ["made", "other"].map((where) => {
      this.of = where;
      const tile = super.tileOf(item[where], position);
      this.of = of;
      return tile.querySelector("a");
    });
    this.side = side;
    halves[1].tabIndex = -1;
    return el("div", { class: "tile pair", role: "listitem", "aria-setsize": this.total, "aria-posinset": position + 1, "data-position": position }, halves);
  }
}

// The figures of both, each under its own name.
function showFigures(main, site, parameters, state) {
  const leaving = new AbortController();
  const sides = ["made", "other"];
  state.textContent = "Figures of the images that match";
  Promise.all(sides.map((of) => get(`/api/${of}/statistics?${filterOf(parameters, of === "other" && !site.other.judged ? NO_VERDICT : {})}`, leaving.signal))).then((found) => {
    const names = [...new Set(found.flatMap(({ classes }) => classes.map(({ name }) => name)))];
    const of = (one, name) => one.classes.find((row) => row.name === name);
    const kept = (one) => one.acceptance.reduce((sum, part) => sum + part.kept, 0);
    const tried = (one) => one.acceptance.reduce((sum, part) => sum + part.tried, 0);
    const median = ({ edges, counts }) => {
      const sums = edges.slice(1).map((_, i) => counts.reduce((sum, row) => sum + row[i], 0));
      const half = sums.reduce((a, b) => a + b, 0) / 2;
      let [seen, i] = [0, 0];
      while (i < sums.length - 1 && seen + sums[i] < half) seen += sums[i++];
      return half ? `${edges[i]} to ${edges[i + 1] ?? "more"}` : "–";
    };
    const rows = [
      ["Images", ...found.map((one) => number.format(one.pictures))], ["Objects", ...found.map((one) => number.format(one.objects))],
      ["Objects per image", ...found.map((one) => (one.pictures ? (one.objects / one.pictures).toFixed(2) : "–"))],
      ["Kept by the filter", ...found.map((one) => (tried(one) ? percent(kept(one), tried(one)) : "–"))],
      ["Median of the longer side, pixels", ...found.map((one) => median(one.sizes))], ["Median of the score", ...found.map((one) => median(one.scores))],
      ...names.flatMap((name) => [[`${name}: objects`, ...found.map((one) => number.format(of(one, name)?.objects ?? 0))], [`${name}: share of images kept`, ...found.map((one) => (of(one, name)?.tried ? percent(of(one, name).kept, of(one, name).tried) : "–"))]]),
    ];
    main.append(el("div", { class: "plots" }, el("div", { class: "plot wide scrolls" }, el("table", {}, el("caption", { class: "unseen" }, "Figures of both"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Figure"), sides.map((side) => el("th", { scope: "col" }, site[side].title)))),
      el("tbody", {}, rows.map(([name, ...values]) => el("tr", {}, el("th", { scope: "row" }, name), values.map((value) => el("td", {}, value)))))))));
  }).catch((error) => error.name !== "AbortError" && main.append(failure(error)));
  return () => leaving.abort();
}
