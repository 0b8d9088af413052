// The rendered image of a drawn layout: requested, awaited, and shown with the filter's verdict.

import { get, post } from "./api.js";
import { announce, choice, el } from "./elements.js";

const WAIT_MS = 250;

export class Rendering {
  constructor(draw) {
    this.draw = draw;
    this.root = el("section", { class: "rendering" });
    this.clear();
  }

  clear() {
    [this.job, this.order, this.state, this.kept, this.after, this.shown, this.boxes] = [null, null, "", null, true, "", true];
  }

  done() {
    return this.job?.state === "done" && this.kept === null;
  }

  // The boxes and seed of the current ground, so that it can stay while boxes change.
  ground() {
    if (!this.order || this.order.ground !== "drawn") return null;
    if (this.order.ground_boxes) return { boxes: this.order.ground_boxes.map(unnamed), seed: this.order.ground_seed };
    return { boxes: this.order.boxes.map(unnamed), seed: this.order.seed };
  }

  async render() {
    const { draw } = this;
    if (!draw.editor.boxes.length || this.state) return;
    const order = draw.order();
    this.state = "waiting …";
    this.share = null;
    this.show();
    try {
      let job = await post("/api/draw/render", order);
      while (job.state === "waiting" || job.state === "rendering") {
        this.state = job.state === "waiting" ? "waiting …" : `${job.stage || "rendering"}, ${Math.round(job.seconds)} s …`;
        this.share = job.usual ? Math.min(0.98, job.seconds / job.usual) : null;
        this.show();
        await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
        job = await get(`/api/draw/render/${job.number}`, draw.signal);
      }
      if (job.state === "failed") throw new Error(job.error);
      if (job.state === "done") [this.job, this.order, this.kept, this.after] = [job, order, null, true];
    } catch (error) {
      if (error.name === "AbortError") return;
      return this.fail(error);
    }
    this.state = "";
    this.error = "";
    announce(this.said());
    if (draw.holding.checked && !draw.held) draw.held = this.ground();
    this.shown = "";
    draw.showScene(this.job);
    draw.show();
  }

  fail(error) {
    this.state = "";
    this.error = error.message;
    this.show();
  }

  keptAs(index) {
    this.kept = index;
    this.show();
  }

  stale() {
    return this.order !== null && JSON.stringify(this.order.boxes) !== JSON.stringify(this.draw.order().boxes);
  }

  said() {
    const { verdict } = this.job;
    const said = verdict.kept ? "The filter would accept it" : `The filter would drop it: ${verdict.reason}`;
    return verdict.rule ? `${said} (${verdict.rule})` : said;
  }

  // [text, class] of each drawn box, if the boxes are the rendered ones.
  verdicts() {
    if (!this.job || this.stale() || this.job.asked.boxes.length !== this.draw.editor.boxes.length) return [];
    const { verdict } = this.job;
    if (!verdict.found.length) return this.draw.editor.boxes.map(() => ["not judged", "aside"]);
    return verdict.found.map((found, i) => (found ? [`found ${verdict.scores[i].toFixed(2)}`, "good"] : ["not found", "bad"]));
  }

  show() {
    const { draw, job } = this;
    const { editor } = draw;
    const stale = this.stale();
    if (job) {
      const href = this.after ? `/image/render/${job.number}` : draw.opened?.image ?? null;
      if (href !== this.shown) editor.setImage(href);
      this.shown = href;
      editor.setSeen(this.seeing && !stale ? job.detections.filter(([, score]) => score >= 0.3) : []);
    }
    const busy = this.state !== "";
    const render = el("button", { type: "button", id: "render", class: "primary", onclick: () => this.render(), disabled: !editor.boxes.length || busy, title: "Render (r)" }, busy ? this.state : job ? "Render again" : "Render");
    const keep = el("button", { type: "button", id: "keep", onclick: () => draw.keep(), disabled: !job || busy || this.kept !== null, title: "Keep (k)" }, this.kept !== null ? "Kept" : "Keep");
    const another = el("button", { type: "button", id: "another", disabled: !editor.boxes.length || busy, title: "Render with another seed", onclick: () => { draw.setSeed(String(Math.floor(Math.random() * 2 ** 48))); this.render(); } }, "Another seed");
    const verdict = job ? el("div", { class: `verdict ${job.verdict.kept ? "good" : "bad"}`, role: "status" }, el("strong", {}, this.said()),
      el("p", {}, job.verdict.extra.length ? `Also detected: ${job.verdict.extra.join(", ")}. ` : "", stale ? "The boxes have changed since." : "")) : null;
    const looks = job ? el("div", { class: "choices" }, choice("Image", this.after, () => { this.after = !this.after; this.show(); }, { title: "The rendered image, or the ground before" }),
      choice("Boxes", this.boxes, () => { this.boxes = !this.boxes; editor.canvas.classList.toggle("bare", !this.boxes); this.show(); }), choice("Detections", Boolean(this.seeing), () => { this.seeing = !this.seeing; this.show(); })) : null;
    const focus = this.root.contains(document.activeElement) ? document.activeElement.id : "";
    this.root.replaceChildren(...[el("div", { class: "actions" }, render, another, keep), busy ? el("progress", { "aria-label": "Rendering", max: 1, ...(this.share === null ? {} : { value: this.share }) }) : null, job ? el("p", { class: "aside" }, `Ground: ${job.scene}.`) : draw.opened?.layout.origin ? el("p", { class: "aside" }, `Opened: ${draw.opened.layout.origin}.`) : null, this.error ? el("p", { class: "error", role: "alert" }, this.error) : null, verdict, looks].filter(Boolean));
    if (focus) document.getElementById(focus)?.focus();
  }
}

const unnamed = ({ class: name, ...box }) => ({ name, ...box });
