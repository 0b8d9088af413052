// The boxes of an editor as a list, and the numbers of the selected one.

import { el, plural, swatch } from "./elements.js";

const DEGREES = 180 / Math.PI;

// options: editor, colours (Map), kind; notes(i): [text, class] of a box or undefined; inImage: number of fixed boxes;
// extra(box, i): more fields for the selected box; empty: what to do when there are none.
export function showBoxList(root, { editor, colours, kind, notes = () => undefined, inImage = 0, extra = () => [], empty }) {
  const box = editor.selected === null ? null : editor.boxes[editor.selected];
  const focus = document.activeElement?.id;
  const change = (changes) => editor.change(editor.selected, changes);
  const field = (key, label, value, apply, step = 1) => el("label", { class: "figure" }, el("span", {}, label), el("input", { id: `box-${key}`, type: "number", step, value: String(Math.round(value * 10) / 10), onchange: (event) => Number.isFinite(event.target.valueAsNumber) && apply(event.target.valueAsNumber) }));
  const figures = box && el("div", { class: "figures-grid" },
    field("x", "x", box.cx, (cx) => change({ cx })), field("y", "y", box.cy, (cy) => change({ cy })),
    field("w", "width", box.w, (w) => w >= 1 && change({ w })), field("h", "height", box.h, (h) => h >= 1 && change({ h })),
    kind === "obb" ? field("angle", "angle °", box.theta * DEGREES, (angle) => change({ theta: angle / DEGREES }), 5) : null);
  const rows = editor.boxes.map((one, i) => {
    const [text, look] = notes(i) ?? [`${one.w.toFixed(0)} × ${one.h.toFixed(0)}`, "aside"];
    return el("li", {},
      el("button", { type: "button", id: `box-${i}`, class: "box-row", "aria-pressed": String(i === editor.selected), onclick: () => editor.choose(i, true) }, swatch(colours.get(one.name)), el("span", { class: "grows" }, one.name), el("span", { class: look }, text)),
      el("button", { type: "button", class: "quiet", "aria-label": `Remove box ${i + 1}`, title: "Remove (Delete)", onclick: () => editor.remove(i) }, "×"));
  });
  root.replaceChildren(el("h2", { class: "minor" }, `${rows.length} ${rows.length === 1 ? "box" : "boxes"}`, inImage ? el("span", { class: "aside" }, ` and ${inImage} ${plural(inImage, "label")} in the image`) : null),
    rows.length ? el("ul", { class: "box-rows" }, rows) : el("p", { class: "aside" }, empty), ...(figures ? [figures, ...extra(box, editor.selected)] : []));
  if (focus?.startsWith("box-")) document.getElementById(focus)?.focus();
}

export const undoButtons = (editor) => {
  const act = (label, name, does, disabled) => el("button", { type: "button", "aria-label": name, title: name, onclick: does, disabled }, label);
  return el("div", { class: "choices", role: "group", "aria-label": "Changes" }, act("↶", "Undo (Ctrl+Z)", () => editor.undo(), !editor.canUndo), act("↷", "Redo (Ctrl+Shift+Z)", () => editor.redo(), !editor.canRedo));
};

// Buttons to zoom: the keys are those of `Zoom.key`.
export const zoomButtons = (zoom) => el("div", { class: "choices", role: "group", "aria-label": "Size" },
  el("button", { type: "button", onclick: () => zoom.step(-1), "aria-label": "Smaller", title: "Smaller (−)" }, "−"),
  el("button", { type: "button", onclick: () => zoom.to(null), title: "Fit to the window (0)" }, "Fit"),
  el("button", { type: "button", onclick: () => zoom.step(1), "aria-label": "Larger", title: "Larger (+)" }, "+"));

export const boxesOf = (layout) => layout.boxes.map(([cx, cy, w, h, theta], i) => ({ name: layout.classes[layout.labels[i]], cx, cy, w, h, theta }));
