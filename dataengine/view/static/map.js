// A map of embeddings: each point is an object or an image, real, kept or dropped. A lasso selects points.

import { changed, go } from "./address.js";
import { get, imageOf } from "./api.js";
import { canDecide, DONE } from "./decisions.js";
import { announce, choice, el, number, plural, swatch } from "./elements.js";
import { failure } from "./pictures.js";
import { Selection } from "./selection.js";

const STATES = { real: "#8b9298", kept: "#1f9d6b", dropped: "#d1495b" };
const WAIT_MS = 2000;
const MARGIN = 18;
const NEAR_PX = 9; // of a point to the pointer
const MOST_SHOWN = 60; // tiles of selected points
const CLICK_PX = 4;

export function showMap(main, site, parameters) {
  const kind = parameters.get("of") === "pictures" ? "pictures" : "objects";
  const map = new PointMap(main, site, kind, parameters);
  return () => map.close();
}

class PointMap {
  constructor(main, site, kind, parameters) {
    Object.assign(this, { main, site, kind });
    this.leaving = new AbortController();
    const { signal } = this.leaving;
    this.byClass = parameters.get("colour") === "class" && kind === "objects";
    this.hidden = new Set();
    this.chosen = new Set();
    this.points = { x: [], y: [], side: [], id: [], object: [], class: [], state: [] };
    this.view = { x: 0, y: 0, scale: 1 };
    this.state = el("p", { class: "counter", role: "status" }, "…");
    this.canvas = el("canvas", { class: "map", tabindex: "0", role: "img", "aria-label": "Map: drag to select points" });
    this.tip = el("div", { class: "tip", hidden: true });
    this.list = el("div", { class: "map-list" });
    this.legend = el("div", { class: "legend" });
    this.selection = canDecide(site, "made") ? new Selection({ site, filter: new URLSearchParams(), total: () => site.made.pictures, changed: () => {}, whole: false }) : null;
    const kinds = [["objects", "Objects"], ["pictures", "Images"]].map(([value, label]) => choice(label, value === kind, () => go({ of: value === "objects" ? null : value, colour: null }, { replace: true })));
    const colours = [["state", "Outcome"], ["class", "Class"]].map(([value, label]) => choice(label, (value === "class") === this.byClass, () => go({ colour: value === "class" ? "class" : null }, { replace: true })));
    main.append(el("div", { class: "bar" }, this.state, el("div", { class: "choices", role: "group", "aria-label": "Points" }, el("span", { class: "choices-name" }, "Points"), kinds),
      kind === "objects" ? el("div", { class: "choices", role: "group", "aria-label": "Colour" }, el("span", { class: "choices-name" }, "Colour"), colours) : null,
      el("button", { type: "button", onclick: () => this.fit(), title: "Show all points (0)" }, "Show all"), this.legend),
      el("div", { class: "map-frame" }, el("div", { class: "map-stage" }, this.canvas, this.tip), this.list), this.selection?.root ?? "");
    this.canvas.addEventListener("pointerdown", (event) => this.down(event), { signal });
    this.canvas.addEventListener("pointermove", (event) => this.move(event), { signal });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, (event) => this.up(event), { signal });
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; }, { signal });
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false, signal });
    this.canvas.addEventListener("keydown", (event) => this.key(event), { signal });
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.canvas);
    if (this.selection) addEventListener(DONE, () => { this.selection.show(); this.fetch(); }, { signal });
    this.choose([]);
    this.ask();
  }

  close() {
    this.leaving.abort();
    this.resizing.disconnect();
  }

  async fetch() {
    const found = await get(`/api/map/${this.kind}`, this.leaving.signal);
    const before = this.points.x.length;
    this.points = found.points;
    const { x, y } = this.points;
    if (x.length) this.span = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
    if (x.length !== before) this.chosen.clear();
    this.colours();
    this.draw();
    return found;
  }

  async ask() {
    try {
      while (!this.leaving.signal.aborted) {
        const { done, total, error, share } = await this.fetch();
        const known = `${number.format(this.points.x.length)} ${plural(this.points.x.length, this.kind === "objects" ? "object" : "image")}`;
        this.state.textContent = error || (done < total ? `${known}; ${number.format(done)} of ${number.format(total)} so far …` : `${known}; this plane shows ${Math.round(100 * share)} % of how their features differ`);
        if (error || done === total) return;
        await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
    } catch (error) {
      if (error.name !== "AbortError") this.main.replaceChildren(failure(error));
    }
  }

  // Colour of each point, and the legend, in which each entry can be hidden.
  colours() {
    const names = this.byClass ? this.points.class : this.points.state;
    const classes = new Map(Object.keys(this.site).flatMap((side) => (this.site[side]?.classes ?? []).map(({ name, colour }) => [name, colour])));
    const colour = (name) => (this.byClass ? classes.get(name) ?? "#888" : STATES[name]);
    this.names = names;
    this.of = names.map(colour);
    this.legend.replaceChildren(...[...new Set(names)].sort().map((name) => choice([swatch(colour(name)), ` ${name} `, el("span", { class: "aside" }, number.format(names.filter((one) => one === name).length))], !this.hidden.has(name), () => {
      if (!this.hidden.delete(name)) this.hidden.add(name);
      this.colours();
      this.draw();
    })));
  }

  fit() {
    this.view = { x: 0, y: 0, scale: 1 };
    this.draw();
  }

  place(i) {
    const [left, right, top, bottom] = this.span;
    const { width, height } = this;
    const scale = Math.min((width - 2 * MARGIN) / Math.max(right - left, 1e-9), (height - 2 * MARGIN) / Math.max(bottom - top, 1e-9));
    const [x, y] = [width / 2 + (this.points.x[i] - (left + right) / 2) * scale, height / 2 + (this.points.y[i] - (top + bottom) / 2) * scale];
    return [(x - width / 2) * this.view.scale + width / 2 + this.view.x, (y - height / 2) * this.view.scale + height / 2 + this.view.y];
  }

  draw() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width || !this.leaving || this.leaving.signal.aborted) return;
    Object.assign(this, { width, height });
    const ratio = devicePixelRatio;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const n = this.points.x.length;
    this.at = new Float32Array(2 * n);
    const size = n > 20000 ? 2 : n > 4000 ? 3 : 5;
    for (const state of [false, true]) { // selected points above the others
      if (state && !this.chosen.size) break;
      for (let i = 0; i < n; i++) {
        if (this.hidden.has(this.names[i]) || this.chosen.has(i) !== state) continue;
        const [x, y] = this.place(i);
        [this.at[2 * i], this.at[2 * i + 1]] = [x, y];
        pen.globalAlpha = this.chosen.size && !state ? 0.25 : 0.8;
        pen.fillStyle = this.of[i];
        if (this.points.side[i] === "real") pen.fillRect(x - size / 2, y - size / 2, size, size);
        else {
          pen.beginPath();
          pen.arc(x, y, size / 2 + 0.4, 0, 7);
          pen.fill();
        }
      }
    }
    pen.globalAlpha = 1;
    if (this.lasso?.length > 1) {
      pen.strokeStyle = getComputedStyle(this.canvas).color;
      pen.setLineDash([5, 4]);
      pen.lineWidth = 1.5;
      pen.beginPath();
      this.lasso.forEach(([x, y], k) => pen[k ? "lineTo" : "moveTo"](x, y));
      pen.closePath();
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  here(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  // The visible point nearest to a place, within a few pixels.
  pointAt([x, y]) {
    let [best, least] = [null, NEAR_PX ** 2];
    for (let i = 0; i < this.points.x.length; i++) {
      if (this.hidden.has(this.names[i])) continue;
      const far = (this.at[2 * i] - x) ** 2 + (this.at[2 * i + 1] - y) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  down(event) {
    if (!this.points.x.length) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    if (event.button === 1 || event.shiftKey) this.panning = [event.clientX, event.clientY];
    else if (!event.button) this.lasso = [this.here(event)];
  }

  move(event) {
    if (this.panning) {
      this.view.x += event.clientX - this.panning[0];
      this.view.y += event.clientY - this.panning[1];
      this.panning = [event.clientX, event.clientY];
      return this.draw();
    }
    if (this.lasso) {
      this.lasso.push(this.here(event));
      return this.draw();
    }
    const i = this.points.x.length ? this.pointAt(this.here(event)) : null;
    this.tip.hidden = i === null;
    if (i !== null && i !== this.tipped) this.tip.replaceChildren(this.picture(i, 96), el("span", {}, `${this.points.class[i] || "image"}, ${this.points.state[i]}`));
    this.tipped = i;
    if (i !== null) Object.assign(this.tip.style, { left: `${Math.min(this.width - 120, this.at[2 * i] + 12)}px`, top: `${Math.min(this.height - 130, this.at[2 * i + 1] + 12)}px` });
  }

  up(event) {
    const lasso = this.lasso;
    [this.lasso, this.panning] = [null, null];
    if (!lasso) return;
    if (event.type === "pointercancel") return this.draw();
    const [start, end] = [lasso[0], this.here(event)];
    if (lasso.length < 4 && Math.hypot(start[0] - end[0], start[1] - end[1]) < CLICK_PX) {
      const i = this.pointAt(end);
      return this.choose(i === null ? [] : [i], i !== null);
    }
    this.choose([...Array(this.points.x.length).keys()].filter((i) => !this.hidden.has(this.names[i]) && inside([this.at[2 * i], this.at[2 * i + 1]], lasso)));
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-0.0016 * event.deltaY), this.here(event));
  }

  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const next = Math.min(200, Math.max(0.5, this.view.scale * factor));
    const by = next / this.view.scale;
    this.view = { scale: next, x: (this.view.x + this.width / 2 - x) * by + x - this.width / 2, y: (this.view.y + this.height / 2 - y) * by + y - this.height / 2 };
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = (x, y) => { this.view.x += x; this.view.y += y; this.draw(); };
    const does = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), "0": () => this.fit(), Escape: () => this.choose([]),
      ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
      a: () => this.choose([...Array(this.points.x.length).keys()].filter((i) => inFrame(this.at[2 * i], this.at[2 * i + 1], this) && !this.hidden.has(this.names[i]))),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  picture(i, width) {
    const { side, id, object } = this.points;
    if (this.kind === "pictures") return el("img", { src: imageOf(this.site, side[i], id[i], 320), alt: "", width, height: width });
    return el("img", { src: `/api/${side[i]}/objects/${object[i]}/crop?out=${width}`, alt: "", width, height: width });
  }

  // Select points: they are listed, and what is made of them can be decided about.
  choose(indices) {
    this.chosen = new Set(indices);
    const made = new Set(indices.filter((i) => this.points.side[i] === "made").map((i) => this.points.id[i]));
    this.selection?.set([...made]);
    announce(`${indices.length} selected`);
    const { side, id, class: names, state } = this.points;
    this.list.replaceChildren(...(indices.length ? [el("h2", {}, `${number.format(indices.length)} selected`, el("span", { class: "aside" }, ` in ${number.format(new Set(indices.map((i) => `${side[i]} ${id[i]}`)).size)} images`)),
      el("ul", { class: "crops" }, indices.slice(0, MOST_SHOWN).map((i) => el("li", {}, el("a", { href: changed({ view: "picture", side: side[i] === "made" ? null : side[i], id: id[i], of: null, colour: null }), "aria-label": `${names[i] || "image"}, ${state[i]}` }, el("span", { class: "picture" }, this.picture(i, 120)), el("span", { class: "caption" }, swatch(this.of[i]), el("span", { class: "name" }, names[i] || state[i])))))),
      indices.length > MOST_SHOWN ? el("p", { class: "aside" }, `and ${number.format(indices.length - MOST_SHOWN)} more`) : ""] : [el("p", { class: "aside" }, "Drag around points to select them; a click selects one. The wheel zooms, Shift and dragging moves; a selects all in sight.")]));
    this.draw();
  }
}

const inFrame = (x, y, { width, height }) => x >= 0 && y >= 0 && x <= width && y <= height;

// Whether a point lies inside a polygon (even-odd rule).
export function inside([x, y], polygon) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[ax, ay], [bx, by]] = [polygon[i], polygon[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}
