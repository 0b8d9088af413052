// Selected images of a grid, and what can be decided about all of them at once.

import { act, decide, tagField, undoDecisions } from "./decisions.js";
import { announce, el, number, plural } from "./elements.js";

export class Selection {
  // site; filter: URLSearchParams of the grid; total(): number of images that match; changed(): redraw.
  // whole: whether all images of the filter can be selected at once.
  constructor({ site, filter, total, changed, whole = true }) {
    Object.assign(this, { site, filter, total, changed, whole });
    this.ids = new Set();
    this.all = false; // all images that match, also those that are not loaded
    this.root = el("div", { class: "tray", role: "region", "aria-label": "Selected images" });
    this.show();
  }

  get size() { return this.all ? this.total() : this.ids.size; }

  has(id) { return this.all || this.ids.has(id); }

  toggle(id, on = !this.has(id)) {
    this.all = false;
    if (on) this.ids.add(id);
    else this.ids.delete(id);
    this.show();
    this.changed();
    announce(`${this.size} selected`);
  }

  add(ids) {
    this.all = false;
    for (const id of ids) this.ids.add(id);
    this.show();
    this.changed();
    announce(`${this.size} selected`);
  }

  // Select exactly these.
  set(ids) {
    this.all = false;
    this.ids = new Set(ids);
    this.show();
  }

  selectAll() {
    this.ids.clear();
    this.all = true;
    this.show();
    this.changed();
    announce(`all ${this.size} selected`);
  }

  clear() {
    this.ids.clear();
    this.all = false;
    this.show();
    this.changed();
  }

  // For the server: the images' numbers, or the filter that all of them match.
  which() {
    if (!this.all) return { ids: [...this.ids] };
    const filter = {};
    for (const name of new Set(this.filter.keys())) filter[name] = this.filter.getAll(name);
    return { filter };
  }

  async decide(what) {
    await decide(this.site, what, this.which());
  }

  decideOne(what, id) {
    return decide(this.site, what, { ids: [id] });
  }

  show() {
    const n = this.size;
    this.root.hidden = n === 0 && !this.site.made.decisions.undo && !this.site.made.decisions.redo;
    const does = (what, label, key) => act(label, `${label} (${key})`, () => this.decide({ do: what }), { disabled: n === 0 });
    this.root.replaceChildren(
      el("span", { class: "tray-count" }, el("strong", {}, number.format(n)), ` ${plural(n, "image")} selected`),
      does("accept", "Accept", "g"), does("reject", "Reject", "x"), does("filter", "As filtered", "f"),
      tagField(this.site, "tray-tag", (tag) => n ? this.decide({ do: "tag", tag }) : null),
      undoDecisions(this.site), el("span", { class: "grows" }),
      this.whole ? act(`Select all ${number.format(this.total() ?? 0)}`, "Select all images that match the filter (Ctrl+A)", () => this.selectAll(), { disabled: this.all }) : "",
      act("Clear", "Select nothing (Esc)", () => this.clear(), { disabled: n === 0 }));
  }
}
