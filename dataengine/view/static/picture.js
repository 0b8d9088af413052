// One image: with its labels, detections, the filter's verdict, and the nearest real images.

import { changed, filterOf, go } from "./address.js";
import { get, imageOf } from "./api.js";
import { groupsOf, outline, overlay, rowsOf } from "./boxes.js";
import { zoomButtons } from "./boxlist.js";
import { Correcting } from "./correcting.js";
import { act, canDecide, decide, decisionKey, DONE, failed, said, tagField, undoDecisions } from "./decisions.js";
import { choice, el, number, plural, svg, swatch } from "./elements.js";
import { showNeighbours } from "./neighbours.js";
import { failure } from "./pictures.js";
import { Zoom } from "./zoom.js";

const DEGREES = 180 / Math.PI;
const MIN_SCORE = 0.3; // default threshold of shown detections
const ZOOM_TO_ADDRESS_MS = 300;
const LEAST_SEEN_PX = 48; // on the screen, of an object that was asked for

const LEFT = { view: null, id: null, layers: null, zoom: null, least: null, edit: null, object: null }; // back to the grid

export function showPicture(main, site, parameters) {
  const of = site[parameters.get("side")] && parameters.get("side") !== "studio" ? parameters.get("side") : site.made ? "made" : "real";
  const leaving = new AbortController();
  const id = Number(parameters.get("id") ?? NaN);
  get(`/api/${of}/pictures/${id}?${filterOf(parameters)}`, leaving.signal)
    .then((found) => new Opened(main, site, of, found, parameters, leaving.signal))
    .catch((error) => error.name !== "AbortError" && main.replaceChildren(failure(error)));
  return () => leaving.abort();
}

class Opened {
  constructor(main, site, of, found, parameters, signal) {
    Object.assign(this, { site, of, found, signal, summary: site[of] });
    this.colours = new Map(this.summary.classes.map(({ name, colour }) => [name, colour]));
    this.shown = new Set((parameters.get("layers") ?? "labels").split("-"));
    this.minScore = Number(parameters.get("least") ?? MIN_SCORE);
    const { size } = found.labels;
    this.picture = el("div", { class: "stage-picture" }, el("img", { src: imageOf(site, of, found.id), alt: `${found.name}, ${found.labels.boxes.length} ${plural(found.labels.boxes.length, "object")}`, draggable: "false" }));
    this.stage = el("div", { class: "stage", tabindex: "0", role: "region", "aria-label": "Image" }, this.picture);
    this.layers = el("div", { class: "choices", role: "group", "aria-label": "Boxes" });
    this.threshold = el("label", { class: "threshold" }, "from score", el("input", { type: "number", min: 0, max: 1, step: 0.05, value: String(this.minScore), onchange: (event) => this.from(event.target.valueAsNumber) }));
    this.bar = el("div", { class: "bar" });
    this.panel = el("div", { class: "panel" });
    main.replaceChildren(this.bar, el("div", { class: "opened" }, this.stage, this.panel));
    this.zoom = new Zoom({
      stage: this.stage, content: this.picture, signal, whole: true, changed: () => this.zoomed(),
      drags: (event) => event.target.closest(".stage-picture, .stage") !== null,
    });
    this.zoom.chosen = Number(parameters.get("zoom")) || null;
    this.zoom.setSize(size);
    this.fillBar();
    this.decidable = canDecide(site, of);
    addEventListener(DONE, () => this.reload(), { signal });
    document.addEventListener("keydown", (event) => this.key(event), { signal });
    this.facts();
    this.draw();
    if (this.shown.has("seen")) this.detect();
    this.preload();
    const box = found.labels.boxes[parameters.get("object") ?? -1];
    if (box && !parameters.get("zoom")) this.bring(box);
    if (parameters.get("edit") && this.decidable) this.correct();
  }

  // Mark an object, and enlarge the image if it is hardly to be seen.
  bring(box) {
    const side = Math.max(box[2], box[3]);
    if (side * this.zoom.scale < LEAST_SEEN_PX) this.zoom.show([box[0], box[1]], Math.min(8, (2 * LEAST_SEEN_PX) / side));
    this.point(box);
  }

  fillBar() {
    this.bar.replaceChildren(this.place(), this.threshold, this.layers, zoomButtons(this.zoom));
  }

  // The scale in the address, once it stays the same for a moment.
  zoomed() {
    clearTimeout(this.later);
    this.later = setTimeout(() => !this.signal.aborted && this.set({ zoom: this.zoom.chosen === null ? null : Math.round(this.zoom.chosen * 100) / 100 }), ZOOM_TO_ADDRESS_MS);
  }

  // Fetch the image again after a decision.
  async reload() {
    try {
      this.found = await get(`/api/${this.of}/pictures/${this.found.id}?${filterOf(new URLSearchParams(location.search))}`, this.signal);
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
      return;
    }
    if (this.correcting) return;
    this.seen = null;
    this.fillBar();
    this.facts();
    this.draw();
    if (this.shown.has("seen")) this.detect();
  }

  correct() {
    this.set({ edit: "1" });
    this.zoom.paused = true;
    const left = async () => {
      this.correcting = null;
      this.set({ edit: null });
      this.stage.replaceChildren(this.picture);
      this.zoom.paused = false;
      this.fillBar();
      await this.reload();
      this.zoom.update();
      this.panel.querySelector("#correct")?.focus();
    };
    this.correcting = new Correcting({ site: this.site, found: this.found, frame: this, colours: this.colours, signal: this.signal, left });
  }

  place() {
    const { found } = this;
    const step = (id, label, name) => id === null ? el("span", { class: "step off", "aria-hidden": "true" }, label) : el("a", { class: "step", href: changed({ id, edit: null }), "aria-label": name, title: name, rel: name }, label);
    return el("p", { class: "counter" }, el("a", { class: "back", href: this.backTo(), title: "Back (Esc)" }, "← All"), step(found.previous, "‹", "previous"), step(found.next, "›", "next"),
      found.position === null ? el("span", {}, "does not match the filter") : el("span", {}, el("strong", {}, number.format(found.position + 1)), ` of ${number.format(found.total)}`));
  }

  backTo() {
    return changed({ ...LEFT, at: this.found.position || null });
  }

  preload() {
    for (const id of [this.found.previous, this.found.next]) if (id !== null) new Image().src = imageOf(this.site, this.of, id);
  }

  choices() {
    const { found } = this;
    const layer = (name, label, key) => choice(label, this.shown.has(name), () => this.toggle(name), { title: `${label} (${key})` });
    this.layers.replaceChildren(layer("labels", "Labels", "l"), found.asked ? layer("asked", "Requested layout", "a") : "", layer("seen", "Detections", "d"));
    this.threshold.hidden = !this.shown.has("seen");
  }

  set(changes) {
    history.replaceState(null, "", changed(changes));
    for (const link of this.bar.querySelectorAll("a.step[rel]")) link.setAttribute("href", changed({ id: this.found[link.rel], edit: null }));
  }

  toggle(name) {
    if (!this.shown.delete(name)) this.shown.add(name);
    const layers = [...this.shown].join("-");
    this.set({ layers: layers === "labels" ? null : layers || "none" });
    if (name === "seen" && this.shown.has("seen")) this.detect();
    this.draw();
  }

  // Show detections from this score on.
  from(score) {
    this.minScore = Number.isFinite(score) ? score : MIN_SCORE;
    this.set({ least: this.minScore === MIN_SCORE ? null : this.minScore });
    this.facts();
    this.draw();
  }

  async detect() {
    if (this.seen) return this.draw();
    this.note.textContent = "running the detector …";
    try {
      this.seen = await get(`/api/${this.of}/pictures/${this.found.id}/detections`, this.signal);
      this.note.textContent = "";
    } catch (error) {
      if (error.name !== "AbortError") this.note.textContent = error.message;
      return;
    }
    this.facts();
    this.draw();
  }

  draw() {
    const { labels, asked } = this.found;
    const colours = (layout) => layout.classes.map((name) => this.colours.get(name));
    const groups = [{ boxes: labels.ignored, colour: "currentColor", kind: "ignored" }];
    if (this.shown.has("labels")) groups.push(...groupsOf(rowsOf(labels), colours(labels), "label"));
    if (this.shown.has("asked") && asked) groups.push(...groupsOf(rowsOf(asked), colours(asked), "asked"));
    if (this.shown.has("seen") && this.seen) groups.push(...this.shownDetections().map(({ label, box }) => ({ boxes: [box], colour: this.colours.get(this.seen.classes[label]) ?? "#fff", kind: "seen" })));
    const drawn = overlay(labels.size, groups);
    this.mark = svg("path", { class: "box marked", "vector-effect": "non-scaling-stroke" });
    drawn.append(this.mark);
    this.picture.querySelector("svg")?.remove();
    this.picture.append(drawn);
    this.choices();
  }

  // Shown detections: those above the threshold, and all that match a label.
  shownDetections() {
    return (this.seen?.detections ?? []).filter(({ score, object }) => object !== null || score >= this.minScore);
  }

  facts() {
    const { found } = this;
    this.note = el("p", { class: "aside note", role: "status" });
    const rows = [["Name", found.name], ["Image", found.image], ["Size", found.labels.size.join(" × ")], ["Seed", found.seed], ["Scene", found.scene], ["Licence", found.license],
      ...Object.entries(found.labels.acquisition).map(([name, value]) => name === "night" ? ["Time of day", value ? "night" : "day"] : [name.replace(/_(m|deg)$/, "").replaceAll("_", " "), formatted(name, value)]),
      ["Layout of", found.layout_from?.join(", ")], ["SHA-256", found.sha256]].filter(([, value]) => value !== undefined && value !== null && value !== "");
    const edit = this.site.studio ? el("a", { class: "button", href: `?${new URLSearchParams({ view: "draw", on: this.of, id: found.id })}`, title: "Edit (e)" }, found.asked ? "Edit this layout" : "Draw on this image") : null;
    this.panel.replaceChildren(...[this.verdict(), this.decisions(), this.note, this.objects(), edit,
      el("section", {}, el("h2", { class: "minor" }, "Details"), el("dl", { class: "facts" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))),
      this.of === "made" && this.site.real ? this.near() : null,
    ].filter(Boolean));
  }

  erased() {
    return (this.found.verdict?.repairs ?? []).filter(({ action }) => action === "erased").length;
  }

  // What a person decided, and buttons to decide.
  decisions() {
    if (!this.decidable) return null;
    const { found, site } = this;
    const decision = found.decision ?? { accepted: null, tags: [], corrected: false };
    const which = { ids: [found.id] };
    const set = (what, value, label, key) => choice(label, decision.accepted === value, () => decide(site, { do: what }, which).catch(failed), { title: `${label} (${key})`, class: what });
    return el("section", { class: "deciding" }, el("h2", { class: "minor" }, "Decision"),
      el("div", { class: "actions" }, el("div", { class: "choices", role: "group", "aria-label": "Decision" }, set("accept", true, "Accept", "g"), set("reject", false, "Reject", "x"), set("filter", null, "As filtered", "f")), undoDecisions(site)),
      el("div", { class: "actions" }, tagField(site, "tag", (tag) => decide(site, { do: "tag", tag }, which)),
        act("Correct labels", "Move, turn, add and remove boxes (c)", () => this.correct(), { id: "correct" })),
      decision.tags.length || decision.corrected ? el("p", { class: "tags" }, decision.tags.map((tag) => el("span", { class: "tag" }, tag, act("×", `Remove the tag ${tag}`, () => decide(site, { do: "untag", tag }, which), { class: "quiet", "aria-label": `Remove the tag ${tag}` }))),
        decision.corrected ? el("span", { class: "tag" }, "labels corrected") : null) : null);
  }

  verdict() {
    const { verdict, filter, by_hand: byHand, decision } = this.found;
    if (!verdict) return null;
    const filtered = byHand ? (byHand.dropped_for ? `the filter dropped it: ${byHand.dropped_for}` : "the filter kept it") : "";
    const text = decision && decision.accepted !== null ? `${said(decision)}; ${filtered}` : filter ? `kept by hand; the filter ${filter.kept ? "would keep it" : `would drop it: ${filter.reason}`}` : verdict.kept ? "kept" : `dropped: ${verdict.reason}`;
    const extra = verdict.extra.length ? `Also detected: ${verdict.extra.join(", ")}.` : "";
    const erased = this.erased(), repaired = (verdict.repairs?.length ?? 0) - erased;
    const repairs = [erased ? `${erased} not found and removed.` : "", repaired ? `${repaired} ${plural(repaired, "label")} repaired.` : ""].join(" ").trim();
    return el("section", { class: `verdict ${verdict.kept ? "good" : "bad"}` }, el("strong", {}, text[0].toUpperCase() + text.slice(1)), extra || repairs ? el("p", {}, extra, " ", repairs) : null);
  }

  objects() {
    const { labels, asked, verdict, by_hand: byHand } = this.found;
    const painted = byHand?.was ? byHand.was.filter((i) => i !== null && i < asked.boxes.length - this.erased()).length : asked ? asked.boxes.length - this.erased() : labels.boxes.length;
    const seenBy = new Map((this.seen?.detections ?? []).filter(({ object }) => object !== null).map((one) => [one.object, one]));
    const rows = labels.boxes.map((box, i) => {
      const name = labels.classes[labels.labels[i]];
      const score = verdict?.scores[i] ?? seenBy.get(i)?.score;
      const threshold = this.found.thresholds?.[i];
      const state = byHand?.changed.includes(i) ? "by hand" : i >= painted ? "scene object" : labels.difficult[i] ? "difficult" : score === undefined ? "" : threshold === null || score < threshold ? "not found" : threshold === 0 && score === 0 ? "not judged" : "found";
      return el("tr", { tabindex: "0", onmouseenter: () => this.point(box), onmouseleave: () => this.point(), onfocus: () => this.point(box), onblur: () => this.point() },
        el("th", { scope: "row" }, swatch(this.colours.get(name)), name), el("td", {}, `${box[2].toFixed(0)} × ${box[3].toFixed(0)}`), el("td", {}, `${(box[4] * DEGREES).toFixed(0)}°`), el("td", {}, score === undefined ? "" : score.toFixed(2)), el("td", { class: state.replace(" ", "-") }, state));
    });
    const extra = this.shownDetections().filter(({ object }) => object === null).map(({ label, box, score }) =>
      el("tr", { class: "extra", tabindex: "0", onmouseenter: () => this.point(box), onmouseleave: () => this.point(), onfocus: () => this.point(box), onblur: () => this.point() },
        el("th", { scope: "row" }, swatch(this.colours.get(this.seen.classes[label]) ?? "#fff"), this.seen.classes[label]), el("td", {}, `${box[2].toFixed(0)} × ${box[3].toFixed(0)}`), el("td", {}, `${(box[4] * DEGREES).toFixed(0)}°`), el("td", {}, score.toFixed(2)), el("td", {}, "detected, no label")));
    return el("section", {}, el("h2", { class: "minor" }, `${labels.boxes.length} ${plural(labels.boxes.length, "object")}`), el("div", { class: "scrolls" }, el("table", {}, el("thead", {}, el("tr", {}, ["Class", "Pixels", "Angle", "Score", "Outcome"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows, extra))));
  }

  point(box) {
    this.mark.setAttribute("d", box ? outline(box) : "");
  }

  near() {
    const root = el("section", {}, el("h2", { class: "minor" }, "Nearest real images"));
    showNeighbours(root, this.site, this.found.id, this.signal);
    return root;
  }

  key(event) {
    if (this.correcting || event.target.closest?.("input, select, textarea") || document.querySelector("dialog[open]")) return;
    if (this.decidable && decisionKey(event, this.site, (what) => decide(this.site, what, { ids: [this.found.id] }))) return event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.zoom.key(event)) return event.preventDefault();
    const does = {
      ArrowLeft: () => this.found.previous !== null && go({ id: this.found.previous }),
      ArrowRight: () => this.found.next !== null && go({ id: this.found.next }),
      Escape: () => go({ ...LEFT, at: this.found.position || null }),
      l: () => this.toggle("labels"), a: () => this.found.asked && this.toggle("asked"), d: () => this.toggle("seen"),
      c: () => this.decidable && this.correct(), t: () => document.getElementById("tag")?.focus(),
      e: () => this.panel.querySelector("a.button")?.click(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }
}

function formatted(name, value) {
  if (name.endsWith("_m")) return `${Math.round(value * 100) / 100} m${name === "gsd_m" ? " per pixel" : ""}`;
  if (name.endsWith("_deg")) return `${Math.round(value * 10) / 10}°`;
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}
