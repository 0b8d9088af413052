// Corrections of one image's labels: drag corners, turn, add, remove, another class, difficult; saved on leaving.

import { imageOf } from "./api.js";
import { boxesOf, showBoxList, undoButtons, zoomButtons } from "./boxlist.js";
import { act, decide, failed } from "./decisions.js";
import { Editor } from "./editor.js";
import { choice, el, swatch } from "./elements.js";

const USUAL_PX = [24, 12]; // of an added box where the image has none of its class

export class Correcting {
  // site, found: the opened image; frame: {bar, stage, panel} to fill; colours; left(changed): called at the end.
  constructor({ site, found, frame, colours, signal, left }) {
    Object.assign(this, { site, found, frame, colours, left });
    this.leaving = new AbortController();
    signal.addEventListener("abort", () => this.abandoned());
    const { labels, by_hand: byHand } = found;
    const was = byHand?.was ?? labels.boxes.map((_, i) => i);
    this.boxes = boxesOf(labels).map((box, i) => ({ ...box, of: was[i], difficult: labels.difficult[i] }));
    this.class = this.boxes[0]?.name ?? site.made.classes[0].name;
    this.list = el("section", { class: "box-list" });
    this.editor = new Editor({
      kind: labels.kind, colours, signal: this.leaving.signal, classOf: () => this.class, sideOf: (name) => this.sideOf(name), changed: () => this.show(),
    });
    frame.panel.replaceChildren(this.list, el("section", {},
      el("div", { class: "actions" }, act("Save", "Save (Enter)", () => this.save(), { class: "primary", id: "save" }), act("Discard", "Leave the labels as they were", () => this.end(false)),
        byHand?.was ? act("Restore", "The labels that the filter saw", () => this.restore()) : null),
      el("p", { class: "aside" }, "Drag corners and sides; turn at the yellow handle; n adds a box, d marks it difficult, Delete removes it.")));
    this.editor.placeIn(frame.stage);
    this.editor.setSize(labels.size);
    this.editor.setImage(imageOf(site, "made", found.id));
    this.editor.start(this.boxes);
    this.before = this.said();
    document.addEventListener("keydown", (event) => this.key(event), { signal: this.leaving.signal });
    addEventListener("beforeunload", (event) => this.said() !== this.before && event.preventDefault(), { signal: this.leaving.signal });
    this.show();
    if (this.editor.boxes.length) this.editor.choose(0);
    frame.stage.focus({ preventScroll: true });
  }

  sideOf(name) {
    const alike = this.editor.boxes.filter((box) => box.name === name);
    return alike.length ? [alike[0].w, alike[0].h] : USUAL_PX;
  }

  objects() {
    return this.editor.boxes.map(({ of = null, name, difficult = false, cx, cy, w, h, theta }) => ({ of, class: name, difficult, box: [cx, cy, w, h, theta] }));
  }

  said() {
    return JSON.stringify(this.objects());
  }

  show() {
    const { editor, site, frame } = this;
    const classes = site.made.classes.map(({ name, colour }, i) => choice([swatch(colour), " ", name], name === this.class, () => this.setClass(name), { title: `${name} (${i + 1})` }));
    frame.bar.replaceChildren(el("div", { class: "choices classes", role: "group", "aria-label": "Class" }, classes), undoButtons(editor), zoomButtons(editor.zoom));
    showBoxList(this.list, {
      editor, colours: this.colours, kind: this.found.labels.kind, empty: "No label: drag to draw a box, or press n.",
      notes: (i) => (editor.boxes[i].difficult ? [`${editor.boxes[i].w.toFixed(0)} × ${editor.boxes[i].h.toFixed(0)} difficult`, "aside"] : undefined),
      extra: (box, i) => [el("label", { class: "check" }, el("input", { id: "box-difficult", type: "checkbox", checked: Boolean(box.difficult), onchange: (event) => editor.change(i, { difficult: event.target.checked }) }), "difficult: metrics do not count it")],
    });
  }

  setClass(name) {
    this.class = name;
    if (this.editor.selected !== null) this.editor.change(this.editor.selected, { name });
    else this.show();
  }

  async save() {
    if (this.said() !== this.before) await decide(this.site, { do: "correct", objects: this.objects() }, { ids: [this.found.id] });
    this.end(true);
  }

  async restore() {
    await decide(this.site, { do: "restore" }, { ids: [this.found.id] });
    this.end(true);
  }

  // Another address was opened: what was done is saved.
  abandoned() {
    if (this.leaving.signal.aborted) return;
    this.leaving.abort();
    if (this.said() !== this.before) decide(this.site, { do: "correct", objects: this.objects() }, { ids: [this.found.id] }).catch(failed);
  }

  end(changed) {
    this.leaving.abort();
    this.left(changed);
  }

  key(event) {
    if (document.querySelector("dialog[open]") || event.target.closest?.("input:not([type=checkbox]), select, textarea")) return;
    const { editor } = this;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      if (event.shiftKey) editor.redo();
      else editor.undo();
      return event.preventDefault();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = this.site.made.classes[Number(event.key) - 1]?.name;
    const onButton = event.target.closest?.("button, summary, a");
    if (name) this.setClass(name);
    else if (event.key === "d" && editor.selected !== null) editor.change(editor.selected, { difficult: !editor.boxes[editor.selected].difficult });
    else if (event.key === "Enter" && !onButton) this.save().catch(failed);
    else if (event.key === "Escape" && editor.selected === null) this.save().catch(failed);
    else if (!editor.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }
}
