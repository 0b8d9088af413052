// Two grids side by side with the same filter: kept and dropped images, or synthetic and real ones.

import { changed, filterOf } from "./address.js";
import { el, number } from "./elements.js";
import { Grid } from "./grid.js";
import { failure, gridChoices, layerOf, tileOf } from "./pictures.js";

export function showCompare(main, site, parameters) {
  const withReal = parameters.get("pair") === "real" && site.real;
  // real images have no verdict and no score: these filters apply to synthetic images only
  const both = { verdict: null, reason: null, score: null };
  const sides = withReal
    ? [["Synthetic", "made", { verdict: site.made.judged ? "kept" : null, reason: null }], ["Real", "real", both]]
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
