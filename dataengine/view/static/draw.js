// Layouts by hand: draw or edit rotated boxes, render them, see the filter's verdict, and keep the image.

import { changed } from "./address.js";
import { get, post } from "./api.js";
import { boxesOf, showBoxList, undoButtons, zoomButtons } from "./boxlist.js";
import { announce, choice, el, swatch } from "./elements.js";
import { Editor } from "./editor.js";
import { Rendering } from "./rendering.js";
import { failure } from "./pictures.js";

export function showDraw(main, site, parameters) {
  if (!site.studio) {
    main.append(el("p", { class: "empty" }, "To draw layouts, start: ", el("code", {}, "dataengine layout draw --out DIR")));
    return;
  }
  const leaving = new AbortController();
  const { signal } = leaving;
  main.append(el("p", { class: "empty", role: "status" }, "loading the models …"));
  begin(main, site, parameters, signal).catch((error) => error.name !== "AbortError" && main.replaceChildren(failure(error)));
  return () => leaving.abort();
}

async function begin(main, site, parameters, signal) {
  let studio = site.studio;
  while (studio.state === "loading") {
    studio = await get("/api/draw", signal);
    if (studio.state === "loading") await new Promise((resolve) => setTimeout(resolve, 500));
  }
  signal.throwIfAborted();
  if (studio.state === "failed") throw new Error(studio.error);
  site.studio = studio;
  const on = parameters.get("on") ?? (studio.file ? "file" : null);
  const id = Number(parameters.get("id") ?? 0);
  let opened = null;
  if (on) {
    const layout = await get(`/api/draw/opened/${on}/${id}`, signal);
    const record = on === "file" ? null : await get(`/api/${on}/pictures/${id}`, signal);
    opened = { on, id, layout, record, image: `/image/opened/${on}/${id}` };
  }
  new Draw(main, studio, opened, parameters, signal);
}

class Draw {
  constructor(main, studio, opened, parameters, signal) {
    Object.assign(this, { studio, opened, signal });
    this.colours = new Map(studio.classes.map(({ name, colour }) => [name, colour]));
    // an image of a run is edited by rendering its layout again; a real image keeps its objects
    const redrawn = opened?.record?.asked && studio.grounds.includes("drawn");
    this.ground = opened && studio.grounds.includes("picture") && !redrawn ? "picture" : studio.grounds[0];
    this.seed = parameters.get("seed") ?? opened?.record?.seed ?? "0";
    this.held = redrawn ? { boxes: boxesOf(opened.record.asked), seed: opened.record.seed } : null;
    this.class = studio.classes[0].name;
    this.acquisition = { ...(opened?.record ?? opened)?.[redrawn ? "asked" : "labels"]?.acquisition, ...(opened && !redrawn ? opened.layout.acquisition : {}) };
    this.editor = new Editor({ kind: studio.kind, colours: this.colours, signal, classOf: () => this.class, sideOf: (name) => studio.sides[name] ?? [24, 12], changed: () => this.show() });
    this.rendering = new Rendering(this);
    this.bar = el("div", { class: "bar" });
    this.list = el("section", { class: "box-list" });
    this.kept = el("section", {});
    main.replaceChildren(this.bar, el("div", { class: "opened draw" },
      el("div", { class: "stage", tabindex: "0", role: "region", "aria-label": "Layout" }),
      el("div", { class: "panel" }, this.rendering.root, this.list, this.settings(), this.kept)));
    this.editor.placeIn(main.querySelector(".stage"));
    if (redrawn) this.editor.start(boxesOf(opened.record.asked));
    this.setGround(this.ground);
    document.addEventListener("keydown", (event) => this.key(event), { signal });
    this.showKept();
    this.show();
  }

  // Size, fixed objects and background image for one of the two grounds.
  setGround(ground) {
    this.ground = ground;
    const { studio, opened } = this;
    const on = ground === "picture" && opened;
    const size = on ? opened.layout.size : [studio.size, studio.size];
    this.editor.setSize(size);
    const own = this.held && opened ? boxesOf(opened.layout).slice(opened.record.asked.boxes.length) : [];
    this.editor.setFixed(on ? boxesOf(opened.layout) : own); // labels that the ground has
    this.editor.setImage(on || (opened && this.held) ? opened.image : null);
    this.rendering.clear();
    this.stays.hidden = ground === "picture";
    this.show();
  }

  // The labels that a generated ground, or a scene of the run, came with.
  showScene(job) {
    if (!job || this.ground === "picture") return;
    this.editor.setFixed(boxesOf(job.labels).slice(job.asked.boxes.length));
  }

  order() {
    const boxes = this.editor.boxes.map(({ name, ...box }) => ({ class: name, ...box }));
    const order = { boxes, seed: this.seed, ground: this.ground, acquisition: this.acquisition };
    if (this.ground === "picture") order.picture = [this.opened.on, this.opened.id];
    else if (this.held) Object.assign(order, { ground_boxes: this.held.boxes.map(({ name, ...box }) => ({ class: name, ...box })), ground_seed: this.held.seed });
    if (this.guidance !== undefined) order.guidance_scale = this.guidance;
    return order;
  }

  show() {
    this.showBar();
    this.showList();
    this.rendering.show();
  }

  showBar() {
    const { editor, studio } = this;
    const classes = studio.classes.map(({ name, colour }, i) => choice([swatch(colour), " ", name], name === this.class, () => this.setClass(name), { title: `${name} (${i + 1})` }));
    this.bar.replaceChildren(
      el("div", { class: "choices classes", role: "group", "aria-label": "Class" }, classes),
      undoButtons(editor), zoomButtons(editor.zoom),
      el("div", { class: "grows" }),
      el("button", { type: "button", onclick: () => this.sample(), title: "Boxes from the layout sampler of the run" }, "Sample a layout"),
      el("button", { type: "button", "aria-label": "Remove all boxes", title: "Remove all boxes", onclick: () => editor.set([]), disabled: !editor.boxes.length }, "Clear"));
  }

  setClass(name) {
    this.class = name;
    if (this.editor.selected !== null) this.editor.change(this.editor.selected, { name });
    else this.show();
  }

  async sample() {
    const layout = await get(`/api/draw/sampled/${Math.floor(Math.random() * 1e9)}`, this.signal);
    this.acquisition = layout.acquisition;
    this.editor.set(boxesOf(layout));
  }

  showList() {
    const verdicts = this.rendering.verdicts();
    showBoxList(this.list, {
      editor: this.editor, colours: this.colours, kind: this.studio.kind, notes: (i) => verdicts[i], inImage: this.editor.fixed.length,
      empty: "Drag to draw a box; click, or press n, to place a box of the class's median size.",
    });
  }

  settings() {
    const { studio } = this;
    const seed = el("input", { type: "text", id: "seed", inputmode: "numeric", value: this.seed, spellcheck: "false", onchange: (event) => { if (/^\d{1,18}$/.test(event.target.value)) this.setSeed(event.target.value); else event.target.value = this.seed; } });
    this.setSeed = (value) => {
      this.seed = seed.value = value;
      history.replaceState(null, "", changed({ seed: value }));
    };
    const shuffle = el("button", { type: "button", onclick: () => this.setSeed(String(Math.floor(Math.random() * 2 ** 48))), title: "Another seed" }, "New");
    const grounds = el("select", { id: "ground", onchange: (event) => this.setGround(event.target.value) }, studio.grounds.filter((name) => name !== "picture" || this.opened).map((name) => el("option", { value: name, selected: name === this.ground }, name === "drawn" ? "generated" : "the opened image")));
    this.holding = el("input", { type: "checkbox", id: "hold", checked: this.held !== null, onchange: (event) => { this.held = event.target.checked ? this.rendering.ground() : null; if (event.target.checked && !this.held) event.target.checked = false; } });
    this.stays = el("label", { class: "check" }, this.holding, "keep the ground when boxes change");
    this.stays.hidden = this.ground === "picture";
    const amount = (key, label, low, high) => el("div", { class: "field" }, el("label", { for: key }, label), el("input", { id: key, type: "number", min: low, max: high, step: "any", placeholder: "unknown", value: this.acquisition[key] === undefined ? "" : String(Math.round(this.acquisition[key] * 10) / 10), onchange: (event) => { if (event.target.value === "") delete this.acquisition[key]; else this.acquisition[key] = event.target.valueAsNumber; } }));
    const night = el("select", { id: "night", onchange: (event) => { if (event.target.value === "") delete this.acquisition.night; else this.acquisition.night = event.target.value === "night"; } }, [["", "unknown"], ["day", "day"], ["night", "night"]].map(([value, label]) => el("option", { value, selected: this.acquisition.night !== undefined && value === (this.acquisition.night ? "night" : "day") }, label)));
    const guidance = el("input", { id: "guidance", type: "number", min: 0, max: 50, step: "any", placeholder: String(studio.guidance_scale), onchange: (event) => { this.guidance = event.target.value === "" ? undefined : event.target.valueAsNumber; } });
    return el("details", { class: "settings", open: true }, el("summary", {}, "Settings"), el("div", { class: "settings-grid" },
      el("div", { class: "field wide" }, el("label", { for: "seed" }, "Seed"), el("div", { class: "range" }, seed, shuffle)),
      el("div", { class: "field wide" }, el("label", { for: "ground" }, "Ground"), grounds, this.stays),
      amount("altitude_m", "Altitude, m", 1, 10000), amount("camera_angle_deg", "Camera angle, °", 0, 90), el("div", { class: "field" }, el("label", { for: "night" }, "Time of day"), night),
      el("div", { class: "field" }, el("label", { for: "guidance" }, "Guidance"), guidance)));
  }

  async keep() {
    try {
      const { index, kept } = await post(`/api/draw/keep/${this.rendering.job.number}`);
      this.studio.kept = kept;
      announce(`kept as ${index}`);
      this.rendering.keptAs(index);
    } catch (error) {
      this.rendering.fail(error);
    }
    this.showKept();
  }

  showKept() {
    const { kept, out } = this.studio;
    const remove = async (index) => {
      this.studio.kept = (await post(`/api/draw/remove/${index}`)).kept;
      this.showKept();
    };
    this.kept.replaceChildren(el("h2", { class: "minor" }, kept.length ? `${kept.length} kept` : "Nothing kept yet"), el("p", { class: "aside" }, `in ${out}, with labels in DOTA and COCO format`),
      el("ul", { class: "neighbours" }, kept.toReversed().map((index) => el("li", { class: "kept" }, el("img", { src: `/image/kept/${index}`, alt: `kept image ${index}`, loading: "lazy" }), el("button", { type: "button", "aria-label": `Remove kept image ${index}`, title: "Remove it from the folder", onclick: () => remove(index) }, "×")))));
  }

  key(event) {
    const writing = event.target.closest?.("input:not([type=checkbox]), select, textarea");
    if (document.querySelector("dialog[open]") || writing) return;
    const { editor } = this;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      return event.shiftKey ? editor.redo() : editor.undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = this.studio.classes[Number(event.key) - 1]?.name;
    const does = { r: () => this.rendering.render(), k: () => this.rendering.done() && this.keep() }[event.key];
    if (name) this.setClass(name);
    else if (does) does();
    else if (!editor.key(event)) return;
    event.preventDefault();
  }
}
