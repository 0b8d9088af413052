// Rotated boxes as SVG over an image: cx, cy, w, h in pixels, theta in radians, clockwise, y down.

import { svg } from "./elements.js";

export function corners([cx, cy, w, h, theta]) {
  const [cos, sin] = [Math.cos(theta), Math.sin(theta)];
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([a, b]) => {
    const [x, y] = [(a * w) / 2, (b * h) / 2];
    return [cx + x * cos - y * sin, cy + x * sin + y * cos];
  });
}

export function outline(box) {
  return `M${corners(box).map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join("L")}Z`;
}

// groups: [{boxes, colour, kind}], each rendered as one path. kind: "label", "difficult", "asked", "seen" or "ignored".
export function overlay([width, height], groups, properties = {}) {
  const paths = groups.filter((group) => group.boxes.length).map(({ boxes, colour, kind }) =>
    svg("path", { class: `box ${kind}`, d: boxes.map(outline).join(""), stroke: colour, "vector-effect": "non-scaling-stroke" }));
  return svg("svg", { class: "overlay", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", ...properties }, paths);
}

// Rows [label, cx, cy, w, h, theta, difficult] as groups of one colour each.
export function groupsOf(rows, colours, kind) {
  const groups = new Map();
  for (const [label, cx, cy, w, h, theta, difficult] of rows) {
    const of = kind === "label" && difficult ? "difficult" : kind;
    const key = `${label} ${of}`;
    if (!groups.has(key)) groups.set(key, { boxes: [], colour: colours[label], kind: of });
    groups.get(key).boxes.push([cx, cy, w, h, theta]);
  }
  return [...groups.values()];
}

export function rowsOf(layout) {
  return layout.boxes.map((box, i) => [layout.labels[i], ...box, layout.difficult[i]]);
}
