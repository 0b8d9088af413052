// Keyboard shortcuts.

import { el } from "./elements.js";

const KEYS = [
  ["Anywhere", [["?", "this help"], ["/", "search"], ["Esc", "back, or leave a field"]]],
  ["Images", [["← ↑ → ↓", "move"], ["Home  End", "first, last"], ["Page Up  Page Down", "one page up, down"], ["Enter", "open"], ["Space", "select"], ["Shift+←  →", "select on the way"], ["Ctrl+A", "select all that match"]]],
  ["Decide", [["g  x  f", "accept, reject, as filtered"], ["t", "tag"], ["c", "correct the labels of one image"], ["Ctrl+Z  Ctrl+Shift+Z", "undo, redo"]]],
  ["One image", [["←  →", "previous, next match"], ["l  a  d", "labels, requested layout, detections"], ["+  −  0", "larger, smaller, fit"], ["Shift+←  →", "move the image"], ["e", "edit its layout (layout draw)"]]],
  ["Draw and correct", [
    ["drag", "a new box; on a box, move it"], ["1 … 9", "class"], ["← ↑ → ↓", "move by a pixel, with Shift by ten"],
    ["[  ]", "rotate by 5 degrees, with Shift by one"], ["Tab", "next box"], ["n", "add a box"], ["c", "copy the box"], ["d", "difficult (correct)"], ["Space+drag", "move the image"], ["Delete", "remove it"],
    ["Ctrl+Z  Ctrl+Shift+Z", "undo, redo"], ["r", "render"], ["k", "keep"],
  ]],
];

export function showHelp() {
  const dialog = document.getElementById("help");
  if (dialog.open) return;
  const close = () => dialog.close();
  dialog.replaceChildren(
    el("header", {}, el("h2", { id: "help-title" }, "Keys"), el("button", { type: "button", class: "quiet", onclick: close, "aria-label": "Close" }, "×")),
    el("div", { class: "keys" }, KEYS.map(([heading, rows]) => el("section", {}, el("h3", {}, heading),
      el("dl", {}, rows.map(([key, what]) => [el("dt", {}, key.split("  ").map((one, i) => [i ? " " : "", el("kbd", {}, one)])), el("dd", {}, what)]))))),
  );
  dialog.onclick = (event) => event.target === dialog && close();
  dialog.showModal();
}
