// Plots of classes, sizes, angles, scores and acceptance of the matching images, with real images for comparison.

import { changed, filterOf, NOTHING } from "./address.js";
import { get } from "./api.js";
import { el, number, percent, plural, swatch } from "./elements.js";
import { bars, columns, line } from "./plots.js";
import { failure } from "./pictures.js";

export function showStatistics(main, site, parameters) {
  const leaving = new AbortController();
  const of = site.made ? "made" : "real";
  const query = filterOf(parameters);
  const real = filterOf(parameters, { verdict: null, reason: null, score: null, sort: null });
  const asked = [get(`/api/${of}/statistics?${query}`, leaving.signal), of === "made" && site.real ? get(`/api/real/statistics?${real}`, leaving.signal) : null];
  Promise.all(asked)
    .then(([made, reference]) => main.replaceChildren(...figures(site, of, made, reference)))
    .catch((error) => error.name !== "AbortError" && main.replaceChildren(failure(error)));
  return () => leaving.abort();
}

function figures(site, of, made, reference) {
  const summary = site[of];
  const colours = summary.classes.map(({ colour }) => colour);
  const judged = summary.judged;
  const kept = made.acceptance.reduce((sum, part) => sum + part.kept, 0);
  const tried = made.acceptance.reduce((sum, part) => sum + part.tried, 0);
  const series = (counts) => counts.map((row, k) => ({ name: summary.classes[k].name, colour: colours[k], counts: row }));
  // class numbers of the real images differ, so only sums over classes are compared
  const together = (of) => of && of.counts.reduce((sum, row) => row.map((n, i) => n + (sum[i] ?? 0)), []);
  const plot = (title, note, ...content) => el("figure", { class: "plot" }, el("figcaption", {}, el("h2", { class: "minor" }, title), note ? el("p", { class: "aside" }, note) : null), content);
  const show = (changes) => changed({ ...NOTHING, view: null, ...changes });
  const range = (low, high) => `${low ?? ""}..${high ?? ""}`;
  // bins of a histogram end before the next one begins, save whole numbers, which a filter includes
  const below = (value, step) => (value === null ? null : Math.round((value - step) * 1e4) / 1e4);
  const within = (key, step) => (low, high, name) => show({ [key]: range(low, below(high, step)), ...(name && name !== "images" ? { class: name } : {}) });
  const lineOfReal = reference ? "Line: real images, scaled to the same sum." : "";
  return [
    el("div", { class: "bar" }, el("p", { class: "counter" }, el("strong", {}, number.format(made.pictures)), ` ${plural(made.pictures, "image")}, `, el("strong", {}, number.format(made.objects)), ` ${plural(made.objects, "object")}`,
      judged && tried ? el("span", { class: "aside" }, ` ${number.format(kept)} of ${number.format(tried)} kept (${percent(kept, tried)})`) : null),
      el("div", { class: "legend" }, summary.classes.map(({ name, colour }) => el("span", {}, swatch(colour), name)))),
    el("div", { class: "plots" },
      plot("Classes", "Objects of each class.", bars(made.classes.map((row, k) => ({ name: row.name, value: row.objects, colour: colours[k], label: `${number.format(row.objects)} in ${number.format(row.pictures)} ${plural(row.pictures, "image")}`, href: show({ class: row.name }) })))),
      judged ? plot("Acceptance by class", "Share of images with the class that were kept.", bars(made.classes.filter((row) => row.tried).map((row) => ({ name: row.name, value: row.kept / row.tried, most: 1, colour: colours[summary.classes.findIndex(({ name }) => name === row.name)], label: `${percent(row.kept, row.tried)}: ${number.format(row.kept)} of ${number.format(row.tried)}`, href: show({ class: row.name, verdict: "dropped" }) })))) : null,
      plot("Size", `Longer side of the box in pixels. ${lineOfReal}`, columns(made.sizes.edges, series(made.sizes.counts), together(reference?.sizes), within("size", 0.001))),
      plot("Angle", `Direction of the longer side in degrees, clockwise from the right; without nearly square boxes. ${lineOfReal}`, columns(made.angles.edges, series(made.angles.counts), together(reference?.angles))),
      plot("Objects per image", "Number of images by their number of matching objects.", columns(made.counts.edges, [{ name: "images", colour: "var(--accent)", counts: made.counts.counts[0] }], null, within("count", 1))),
      judged && made.scores.counts.some((row) => row.some(Boolean)) ? plot("Score", "Score of each object by the filter's detector; 0 if it was not found.", columns(made.scores.edges, series(made.scores.counts), null, within("score", 0.00001))) : null,
      made.acceptance.length > 1 ? plot("Acceptance along the run", "Share of kept images, in parts with equal numbers of attempts.", line(made.acceptance.map((part) => ({ x: (part.first + part.last) / 2, y: part.kept / part.tried, label: `${part.first} to ${part.last}: ${percent(part.kept, part.tried)}` })))) : null,
      made.reasons.length ? plot("Reasons for dropping", "Images by reason.", bars(made.reasons.map((row) => ({ name: row.reason, value: row.pictures, colour: "var(--bad)", label: number.format(row.pictures), href: show({ verdict: "dropped", reason: row.reason }) })), true)) : null),
  ];
}
