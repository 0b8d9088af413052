// Plots as SVG, each with its figures as an accessible table.

import { el, number, svg } from "./elements.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [420, 180, 44, 24, 8];

function table(caption, head, rows) {
  return el("details", { class: "table" }, el("summary", {}, "Figures"), el("div", { class: "scrolls" }, el("table", {}, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first), rest.map((value) => el("td", {}, value))))))));
}

// rows: [{name, value, colour, label, most?, href?}] as horizontal bars; href: of the images that a bar counts.
export function bars(rows, long = false) {
  const most = rows[0]?.most ?? Math.max(1, ...rows.map((row) => row.value));
  if (!rows.length) return el("p", { class: "aside" }, "Nothing to show.");
  return el("ul", { class: long ? "bars long" : "bars" }, rows.map(({ name, value, colour, label, href }) => el("li", {}, href ? el("a", { class: "bar-name", title: `Show ${name}`, href }, name) : el("span", { class: "bar-name", title: name }, name),
    el("span", { class: "bar-track", "aria-hidden": "true" }, el("span", { class: "bar-fill", style: { width: `${(100 * value) / most}%`, background: colour } })), el("span", { class: "bar-label" }, label))));
}

// Ticks at round values from 0 to most.
function ticks(most) {
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1e-9)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw) ?? raw;
  const found = [];
  for (let value = 0; value <= most * 1.001; value += step) found.push(value);
  return found;
}

function frame(most, format) {
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
  const marks = ticks(most).map((value) => [svg("line", { class: "tick", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }), svg("text", { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, format(value))]);
  return [y, marks.flat()];
}

const short = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : String(Math.round(value * 100) / 100));

// edges: n + 1 values, null for infinity; series: [{name, colour, counts (n)}], stacked; reference: counts (n) as a line;
// link(low, high, name): the address of the images that a part counts, low and high null for infinity.
export function columns(edges, series, reference = null, link = null) {
  const drawn = series.filter(({ counts }) => counts.some(Boolean));
  const sums = edges.slice(1).map((_, i) => drawn.reduce((sum, { counts }) => sum + counts[i], 0));
  const total = sums.reduce((a, b) => a + b, 0);
  if (!total) return el("p", { class: "aside" }, "Nothing to show.");
  const all = reference?.reduce((a, b) => a + b, 0);
  const scaled = all ? reference.map((value) => (value * total) / all) : null;
  let [first, last] = [0, sums.length - 1]; // empty ends are omitted
  const empty = (i) => !sums[i] && !scaled?.[i];
  while (empty(last)) last--;
  while (edges[0] >= 0 && empty(first)) first++;
  const most = Math.max(...sums, ...(scaled ?? [])) * 1.05;
  const [y, marks] = frame(most, short);
  const step = (WIDTH - LEFT) / (last - first + 1);
  const name = (i) => (edges[i] === null ? "" : String(edges[i]));
  const parts = [];
  for (let i = first; i <= last; i++) {
    let below = 0;
    const x = LEFT + (i - first) * step;
    for (const { name: of, colour, counts } of drawn) {
      if (!counts[i]) continue;
      const part = svg("rect", { x: x + 1, width: Math.max(1, step - 2), y: y(below + counts[i]), height: y(below) - y(below + counts[i]), fill: colour }, svg("title", {}, `${of}, ${name(i)} to ${name(i + 1) || "more"}: ${number.format(counts[i])}`));
      parts.push(link ? svg("a", { href: link(edges[i], edges[i + 1], of), tabindex: "-1" }, part) : part);
      below += counts[i];
    }
  }
  const every = Math.ceil((last - first + 2) / 10);
  for (let i = first; i <= last + 1; i++) if ((i - first) % every === 0) parts.push(svg("text", { x: LEFT + (i - first) * step, y: HEIGHT - 8, "text-anchor": i === first ? "start" : "middle" }, name(i)));
  if (scaled) parts.push(svg("path", { class: "reference", d: scaled.slice(first, last + 1).map((value, i) => `${i ? "H" : "M"}${LEFT + i * step}${i ? "" : `,${y(value)}`}V${y(value)}H${LEFT + (i + 1) * step}`).join("") }));
  const rows = sums.slice(first, last + 1).map((_, k) => [link ? el("a", { href: link(edges[first + k], edges[first + k + 1], null) }, `${name(first + k)} – ${name(first + k + 1)}`) : `${name(first + k)} – ${name(first + k + 1)}`, ...drawn.map(({ counts }) => number.format(counts[first + k])), ...(reference ? [number.format(reference[first + k])] : [])]);
  return [svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" }, marks, parts), table("Counts", ["", ...drawn.map(({ name }) => name), ...(reference ? ["real"] : [])], rows)];
}

// points: [{x, y (0 to 1), label}] as a line.
export function line(points) {
  const [low, high] = [points[0].x, points.at(-1).x];
  const [y, marks] = frame(1, (value) => `${Math.round(value * 100)} %`);
  const x = (value) => LEFT + 6 + ((value - low) / Math.max(1, high - low)) * (WIDTH - LEFT - 12);
  const path = points.map((point, i) => `${i ? "L" : "M"}${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`).join("");
  const ends = [svg("text", { x: LEFT, y: HEIGHT - 8 }, number.format(Math.round(low))), svg("text", { x: WIDTH, y: HEIGHT - 8, "text-anchor": "end" }, number.format(Math.round(high)))];
  return [svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" }, marks, svg("path", { class: "line", d: path }), points.map((point) => svg("circle", { class: "point", cx: x(point.x), cy: y(point.y), r: 2.5 }, svg("title", {}, point.label))), ends),
    table("Acceptance", ["attempts", "kept"], points.map((point) => point.label.split(": ")))];
}
