// A grid of any number of images; only visible tiles are in the document.

import { get, imageOf } from "./api.js";
import { changed } from "./address.js";
import { groupsOf, overlay } from "./boxes.js";
import { decisionKey, DONE, said } from "./decisions.js";
import { el, number, plural } from "./elements.js";

const CHUNK = 60; // images per request
const MAX_CHUNKS = 40; // held in memory
const ROWS_AROUND = 2; // rendered above and below the visible rows
const MAX_HEIGHT_PX = 8_000_000; // browsers cannot lay out much more
const CAPTION = 24;
const CAPTION_OF_REASONS = 42; // two lines
export const GAP = 10;
export const SIDES = { s: 132, m: 184, l: 300 };

export class Grid {
  // options: site, of ("made" or "real"), query (URLSearchParams), tile ("s", "m" or "l"), layer ("labels", "asked"
  // or "none"), at (position to begin with), counted(total), failed(error), view (changes of the links that open one),
  // selection (`Selection`, where images can be decided about), reasons (whether captions have room for a reason).
  constructor(root, options) {
    Object.assign(this, { root, ...options });
    this.total = null;
    this.caption = this.reasons ? CAPTION_OF_REASONS : CAPTION;
    root.classList.toggle("with-reasons", Boolean(this.reasons));
    this.at = this.at ?? 0;
    this.chunks = new Map();
    this.tiles = new Map();
    this.canvas = el("div", { class: "canvas", role: "list" });
    root.classList.add("grid");
    root.tabIndex = -1;
    root.replaceChildren(this.canvas);
    this.leaving = new AbortController();
    const { signal } = this.leaving;
    root.addEventListener("scroll", () => this.later(), { passive: true, signal });
    root.addEventListener("keydown", (event) => this.key(event), { signal });
    root.addEventListener("focusin", (event) => this.focused(event), { signal });
    // so that "back" returns to the opened image
    root.addEventListener("click", (event) => this.clicked(event), { capture: true, signal });
    if (this.selection) addEventListener(DONE, () => this.reload(), { signal });
    root.addEventListener("click", () => history.replaceState(null, "", changed({ at: this.at || null })), { signal });
    this.resizing = new ResizeObserver(() => this.resized());
    this.resizing.observe(root);
    this.fetch(Math.floor(this.at / CHUNK)).then(() => this.at && this.total && this.show(this.at));
  }

  // Of a tile.
  get height() {
    return this.side + this.caption;
  }

  close() {
    this.leaving.abort();
    this.resizing.disconnect();
  }

  // Rows and columns from the available size.
  measure() {
    const style = getComputedStyle(this.root);
    const width = this.root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    this.columns = Math.max(1, Math.floor((width + GAP) / (SIDES[this.tile] + GAP)));
    this.side = Math.floor((width + GAP) / this.columns - GAP);
    this.step = this.side + this.caption + GAP;
    const height = Math.ceil((this.total ?? 0) / this.columns) * this.step;
    // above the maximum height, one scroll pixel stands for more than one pixel of the rows
    this.shrink = Math.max(1, height / MAX_HEIGHT_PX);
    this.canvas.style.height = `${height / this.shrink}px`;
  }

  resized() {
    const first = this.columns ? Math.round(this.top() / this.step) * this.columns : 0;
    const before = this.columns;
    this.measure();
    if (before && before !== this.columns) this.scrollToRow(Math.floor(first / this.columns));
    this.draw();
  }

  // Upper edge of the visible part, in pixels of the full height.
  top() {
    const { scrollTop, scrollHeight, clientHeight } = this.root;
    if (this.shrink === 1) return scrollTop;
    const share = scrollTop / Math.max(1, scrollHeight - clientHeight);
    return share * (Math.ceil(this.total / this.columns) * this.step - clientHeight);
  }

  scrollToRow(row) {
    const top = row * this.step;
    if (this.shrink === 1) this.root.scrollTop = top;
    else {
      const full = Math.ceil(this.total / this.columns) * this.step - this.root.clientHeight;
      this.root.scrollTop = (top / full) * (this.root.scrollHeight - this.root.clientHeight);
    }
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  // Where a part of the list is fetched.
  address(query) {
    return `/api/${this.of}/pictures?${query}`;
  }

  async fetch(chunk) {
    if (this.chunks.has(chunk)) return this.chunks.get(chunk);
    this.chunks.set(chunk, null);
    const query = new URLSearchParams(this.query);
    query.set("start", chunk * CHUNK);
    query.set("n", CHUNK);
    try {
      const found = await get(this.address(query), this.leaving.signal);
      this.chunks.delete(chunk);
      this.chunks.set(chunk, found.items);
      this.before?.delete(chunk);
      for (const old of this.chunks.keys()) if (this.chunks.size > MAX_CHUNKS && old !== chunk) this.chunks.delete(old);
      if (this.total !== found.total) {
        this.total = found.total;
        this.measure();
        this.counted?.(found.total);
      }
      this.fetched?.(found);
      this.later();
    } catch (error) {
      this.chunks.delete(chunk);
      if (error.name !== "AbortError") this.failed?.(error);
    }
  }

  // Fetch what is in sight again, after a decision. Until it is there, keys act on what is still shown.
  reload() {
    this.before = new Map(this.chunks);
    this.chunks.clear();
    this.draw();
    if (!this.total) this.fetch(0);
  }

  // Draw all tiles anew, for a changed selection.
  redraw() {
    for (const tile of this.tiles.values()) tile.item = null;
    this.draw();
  }

  // With Ctrl, Shift or the check mark of a tile, a click selects.
  clicked(event) {
    const tile = event.target.closest(".tile");
    if (!this.selection || !tile) return;
    const position = Number(tile.dataset.position);
    if (!event.target.closest(".pick") && !event.ctrlKey && !event.metaKey && !event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.at = position;
    if (event.shiftKey && this.anchor !== undefined) this.selectRange(this.anchor, position);
    else this.selection.toggle(this.item(position).id);
    this.anchor = position;
  }

  async selectRange(from, to) {
    const [first, last] = [Math.min(from, to), Math.max(from, to)];
    for (let chunk = Math.floor(first / CHUNK); chunk <= Math.floor(last / CHUNK); chunk++) if (!this.chunks.get(chunk)) await this.fetch(chunk);
    const ids = [];
    for (let position = first; position <= last; position++) if (this.item(position)) ids.push(this.item(position).id);
    this.selection.add(ids);
  }

  // What the decisions of the keyboard are about: the selected images, or the one in focus.
  decideHere(what) {
    if (this.selection.size) return this.selection.decide(what);
    const item = this.item(this.at);
    return item ? this.selection.decideOne(what, item.id) : null;
  }

  item(position) {
    const chunk = Math.floor(position / CHUNK);
    return (this.chunks.get(chunk) ?? this.before?.get(chunk))?.[position % CHUNK] ?? null;
  }

  // Add the visible tiles to the document and remove all others.
  draw() {
    if (this.total === null || !this.root.isConnected) return;
    if (!this.columns) this.measure();
    const top = this.top();
    const first = Math.max(0, Math.floor(top / this.step) - ROWS_AROUND) * this.columns;
    const last = Math.min(this.total, (Math.ceil((top + this.root.clientHeight) / this.step) + ROWS_AROUND) * this.columns);
    for (const [position, tile] of this.tiles) {
      if ((position < first || position >= last) && !tile.contains(document.activeElement)) {
        tile.remove();
        this.tiles.delete(position);
      }
    }
    const shift = this.root.scrollTop - top;
    for (let position = first; position < last; position++) {
      const item = this.item(position);
      let tile = this.tiles.get(position);
      if (!this.chunks.has(Math.floor(position / CHUNK))) this.fetch(Math.floor(position / CHUNK));
      if (tile && item && tile.item !== item) {
        if (tile.contains(document.activeElement)) this.wanted ??= position;
        tile.remove();
        tile = null;
      }
      if (!tile) {
        tile = item ? this.tileOf(item, position) : el("div", { class: "tile", "data-empty": "1" });
        tile.item = item;
        this.tiles.set(position, tile);
        this.canvas.append(tile);
      }
      const [row, column] = [Math.floor(position / this.columns), position % this.columns];
      tile.style.transform = `translate(${column * (this.side + GAP)}px, ${row * this.step + shift}px)`;
      tile.style.width = `${this.side}px`;
      tile.style.height = `${this.height}px`;
    }
    if (this.wanted !== undefined && this.tiles.has(this.wanted) && this.item(this.wanted)) {
      this.tiles.get(this.wanted).querySelector("a").focus({ preventScroll: true });
      this.wanted = undefined;
    }
  }

  tileOf(item, position) {
    const summary = this.site[this.of];
    const colour = new Map(summary.classes.map(({ name, colour }) => [name, colour]));
    const [rows, names] = this.layer === "asked" && item.asked ? [item.asked, item.asked_classes] : [item.labels, item.classes];
    const kind = this.layer === "asked" && item.asked ? "asked-alone" : "label";
    const groups = this.layer === "none" ? [] : groupsOf(rows, names.map((name) => colour.get(name)), kind);
    const byHand = said(item.decision);
    const words = byHand || (item.kept === undefined ? "" : item.kept ? "kept" : `dropped: ${item.reason}`);
    const tags = item.decision?.tags ?? [];
    const marks = [...tags, item.decision?.corrected ? "corrected" : ""].filter(Boolean);
    const figures = item.score === undefined ? number.format(item.labels.length) : `${number.format(item.labels.length)} · ${item.score.toFixed(2)}`;
    const label = `${item.name}, ${item.labels.length} ${plural(item.labels.length, "object")}${[words, ...marks].filter(Boolean).map((word) => `, ${word}`).join("")}`;
    const looks = ["tile", item.kept === false ? "dropped" : "", item.decision?.accepted === true ? "accepted" : "", item.decision?.accepted === false ? "rejected" : "", this.selection?.has(item.id) ? "selected" : ""];
    const pick = this.selection && el("button", { type: "button", class: "pick", tabindex: "-1", "aria-pressed": String(this.selection.has(item.id)), "aria-label": `Select ${item.name}`, title: "Select (space)" });
    return el("div", { class: looks.filter(Boolean).join(" "), role: "listitem", "aria-setsize": this.total, "aria-posinset": position + 1, "data-position": position },
      el("a", { href: changed({ view: "picture", side: this.of === "made" ? null : this.of, id: item.id, at: null, ...this.view }), "aria-label": label, title: label, tabindex: position === this.at ? "0" : "-1" },
        el("span", { class: "picture" },
          el("img", { src: imageOf(this.site, this.of, item.id, this.side > 280 ? 640 : 320), alt: "", decoding: "async", draggable: "false" }),
          overlay(item.size, groups, { preserveAspectRatio: "xMidYMid meet" }),
          byHand || item.kept === false ? el("span", { class: "flag" }, byHand.replace(" by hand", "") || "dropped") : null,
          marks.length ? el("span", { class: "marks" }, marks.map((mark) => el("span", {}, mark))) : null),
        el("span", { class: "caption" }, el("span", { class: "name" }, item.kept === false && !byHand ? item.reason : item.name), el("span", { class: "figures", title: item.score === undefined ? "objects" : "objects and their lowest score" }, figures))), pick);
  }

  focused(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const position = Number(tile.dataset.position);
    this.tiles.get(this.at)?.querySelector("a")?.setAttribute("tabindex", "-1");
    tile.querySelector("a").setAttribute("tabindex", "0");
    this.at = position;
  }

  // Scroll to a position and optionally focus it.
  show(position, focus = true) {
    this.at = Math.max(0, Math.min(this.total - 1, position));
    const row = Math.floor(this.at / this.columns);
    const [upper, height] = [this.top(), this.root.clientHeight];
    if (row * this.step < upper) this.scrollToRow(row);
    else if ((row + 1) * this.step > upper + height) this.scrollToRow(row + 1 - height / this.step);
    this.wanted = focus ? this.at : undefined;
    this.draw();
  }

  key(event) {
    if (this.selection && this.total !== null && this.decides(event)) return event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey || this.total === null) return;
    const from = this.at;
    const page = Math.max(1, Math.floor(this.root.clientHeight / this.step)) * this.columns;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page };
    let target = null;
    if (event.key in moves) target = this.at + moves[event.key];
    else if (event.key === "Home") target = 0;
    else if (event.key === "End") target = this.total - 1;
    if (target === null) return;
    event.preventDefault();
    const [least, most] = [this.at % this.columns, this.total - 1];
    if (event.key === "ArrowUp" || event.key === "PageUp") target = Math.max(least, target);
    this.show(Math.max(0, Math.min(most, target)));
    if (event.shiftKey && this.selection) this.selectRange(from, this.at);
  }

  // Keys that select or decide.
  decides(event) {
    const { selection } = this;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") selection.selectAll();
    else if (event.key === " ") this.item(this.at) && selection.toggle(this.item(this.at).id);
    else if (event.key === "Escape" && selection.size) selection.clear();
    else if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (!selection.size && this.item(this.at)) selection.toggle(this.item(this.at).id);
      document.getElementById("tray-tag").focus();
    } else return decisionKey(event, this.site, (what) => this.decideHere(what));
    return true;
  }
}
