// Editor of rotated boxes: draw, move, resize and rotate, with undo. Pixels and radians, y down.

import { outline } from "./boxes.js";
import { el, svg } from "./elements.js";
import { Zoom } from "./zoom.js";

const MIN_DRAG_PX = 3; // a shorter drag is a click
const HANDLE_PX = matchMedia("(pointer: coarse)").matches ? 10 : 5; // on the screen
const MAX_FIT = 8; // largest scale that is chosen to fill the frame
const ROTATION_ARM_PX = 22; // distance of the rotation handle on the screen
const ENDS = [[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]];

export class Editor {
  // options: kind ("obb" or "hbb"), colours (Map of class to colour), signal, classOf() and sideOf(class) for new boxes,
  // changed() after every change. A box: {name, cx, cy, w, h, theta}; other fields of it stay as they are.
  constructor(options) {
    Object.assign(this, options);
    this.boxes = [];
    this.fixed = [];
    this.selected = null;
    this.past = [];
    this.future = [];
    this.size = [1, 1];
    this.image = svg("image", { preserveAspectRatio: "none" });
    this.drawn = svg("g");
    this.seen = svg("g", { class: "seen" });
    this.canvas = svg("svg", { class: "editor", role: "application", "aria-label": "Layout: drag to draw boxes" }, svg("rect", { class: "ground", width: "100%", height: "100%" }), this.image, this.seen, this.drawn);
    this.root = el("div", { class: "stage-picture" }, this.canvas);
    const { signal } = options;
    this.spaced = false; // the space bar is held: dragging moves the image
    this.canvas.addEventListener("pointerdown", (event) => this.down(event), { signal });
    this.canvas.addEventListener("pointermove", (event) => this.move(event), { signal });
    this.canvas.addEventListener("pointerleave", () => { this.pointer = null; }, { signal });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, (event) => this.up(event), { signal });
  }

  // Put the editor into its frame, which can be zoomed.
  placeIn(stage) {
    stage.replaceChildren(this.root);
    this.zoom = new Zoom({
      stage, content: this.root, signal: this.signal, most: MAX_FIT, drags: () => this.spaced, pinched: () => this.cancel(),
      changed: (scale) => { this.scale = scale; this.draw(); },
    });
    addEventListener("keydown", (event) => event.key === " " && this.space(event, true), { signal: this.signal });
    addEventListener("keyup", (event) => event.key === " " && this.space(event, false), { signal: this.signal });
    this.zoom.setSize(this.size);
  }

  space(event, held) {
    if (event.target.closest?.("button, input, select, textarea, a, summary")) return;
    event.preventDefault();
    this.spaced = held;
    this.canvas.classList.toggle("grabbing", held);
  }

  setSize([width, height]) {
    this.size = [width, height];
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const [name, value] of [["width", width], ["height", height]]) this.image.setAttribute(name, value);
    this.zoom?.setSize(this.size);
  }

  setImage(href) {
    this.image[href ? "setAttribute" : "removeAttribute"]("href", href);
  }

  setFixed(boxes) {
    this.fixed = boxes;
    this.draw();
  }

  // Detections as dotted outlines: [label, score, cx, cy, w, h, theta].
  setSeen(rows) {
    this.seen.replaceChildren(...rows.map(([, , ...box]) => svg("path", { class: "box seen", d: outline(box), stroke: "#fff", "vector-effect": "non-scaling-stroke" })));
  }

  get canUndo() { return this.past.length > 0; }
  get canRedo() { return this.future.length > 0; }

  // Initial boxes, without undo.
  start(boxes) {
    [this.boxes, this.past, this.future, this.selected] = [boxes.map((box) => ({ ...box })), [], [], null];
    this.draw();
  }

  set(boxes, selected = null) {
    this.past.push(this.boxes);
    this.future = [];
    [this.boxes, this.selected] = [boxes, selected];
    this.draw();
    this.changed();
  }

  change(i, changes) {
    this.set(this.boxes.map((box, k) => (k === i ? this.sound({ ...box, ...changes }) : box)), i);
  }

  remove(i) {
    this.set(this.boxes.filter((_, k) => k !== i));
  }

  // shown: also bring the box into sight.
  choose(i, shown = false) {
    this.selected = i;
    const box = this.boxes[i];
    if (shown && box && this.scale > this.zoom.fitted() * 1.01) this.zoom.show([box.cx, box.cy]);
    this.draw();
    this.changed();
  }

  undo() { this.step(this.past, this.future); }
  redo() { this.step(this.future, this.past); }

  step(from, to) {
    if (!from.length) return;
    to.push(this.boxes);
    this.boxes = from.pop();
    this.selected = null;
    this.draw();
    this.changed();
  }

  // Angles from -90 to 90 degrees; upright boxes have none.
  sound(box) {
    const turned = this.kind === "hbb" ? 0 : box.theta - Math.PI * Math.floor(box.theta / Math.PI + 0.5);
    return { ...box, w: Math.max(1, box.w), h: Math.max(1, box.h), theta: turned };
  }

  draw() {
    const grip = HANDLE_PX / (this.scale ?? 1);
    const fixed = this.fixed.map((box) => svg("path", { class: "box fixed", d: outline([box.cx, box.cy, box.w, box.h, box.theta]), stroke: this.colours.get(box.name) ?? "#bbb", "vector-effect": "non-scaling-stroke" }));
    const boxes = this.boxes.map((box, i) => svg("g", { class: i === this.selected ? "drawn selected" : "drawn", "data-box": i, transform: `translate(${box.cx} ${box.cy}) rotate(${(box.theta * 180) / Math.PI})` },
      svg("rect", { class: "hit", x: -box.w / 2, y: -box.h / 2, width: box.w, height: box.h, stroke: this.colours.get(box.name), "vector-effect": "non-scaling-stroke" })));
    const box = this.boxes[this.selected];
    if (box) {
      const group = boxes[this.selected];
      const top = -box.h / 2 - ROTATION_ARM_PX / (this.scale ?? 1);
      if (this.kind === "obb") group.append(svg("line", { class: "arm", x1: 0, x2: 0, y1: -box.h / 2, y2: top, "vector-effect": "non-scaling-stroke" }), svg("circle", { class: "grip turn", "data-grip": "turn", cx: 0, cy: top, r: grip * 1.2 }));
      // of a box that its handles would cover, only the corners have some, outside of it
      const small = Math.min(box.w, box.h) < 6 * grip;
      const out = small ? grip : 0;
      ENDS.forEach(([a, b], k) => (!small || (a && b)) && group.append(svg("rect", { class: "grip", "data-grip": k, x: a * (box.w / 2 + out) - grip, y: b * (box.h / 2 + out) - grip, width: 2 * grip, height: 2 * grip })));
      boxes.push(boxes.splice(this.selected, 1)[0]); // above all others
    }
    this.drawn.replaceChildren(...fixed, ...boxes);
  }

  point(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((event.clientX - left) / width) * this.size[0], ((event.clientY - top) / height) * this.size[1]];
  }

  // End a drag without its change.
  cancel() {
    if (!this.drag) return;
    this.boxes = this.drag.before;
    this.drag = null;
    this.draw();
  }

  // A box of the class's usual size at the pointer, or in the middle of what is in sight.
  add() {
    const frame = this.canvas.parentElement.parentElement.getBoundingClientRect();
    const middle = { clientX: frame.left + frame.width / 2, clientY: frame.top + frame.height / 2 };
    const [x, y] = this.point(this.pointer ?? middle).map((value, k) => Math.min(this.size[k], Math.max(0, value)));
    const name = this.classOf();
    const [w, h] = this.sideOf(name);
    this.set([...this.boxes, this.sound({ name, cx: x, cy: y, w, h, theta: 0 })], this.boxes.length);
  }

  down(event) {
    if (event.button) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.point(event);
    const grip = event.target.dataset.grip;
    const group = event.target.closest("[data-box]");
    const before = this.boxes;
    if (grip !== undefined) {
      const box = { ...this.boxes[this.selected] };
      const [left, top] = grip === "turn" ? [x, y] : end(box, ENDS[grip]);
      this.drag = { does: grip === "turn" ? "turn" : Number(grip), box, x, y, before, off: [x - left, y - top] };
    } else if (group) {
      const i = Number(group.dataset.box);
      if (i !== this.selected) this.choose(i);
      this.drag = { does: "move", box: { ...this.boxes[i] }, x, y, before };
    } else {
      this.selected = null;
      this.drag = { does: "new", x, y, before };
      this.draw();
    }
  }

  move(event) {
    this.pointer = { clientX: event.clientX, clientY: event.clientY };
    if (!this.drag) return;
    const [x, y] = this.point(event);
    const { does, box, x: x0, y: y0, before, off } = this.drag;
    if (does === "new") {
      if (Math.max(Math.abs(x - x0), Math.abs(y - y0)) < MIN_DRAG_PX) return;
      const drawn = { name: this.classOf(), cx: (x + x0) / 2, cy: (y + y0) / 2, w: Math.max(1, Math.abs(x - x0)), h: Math.max(1, Math.abs(y - y0)), theta: 0 };
      this.boxes = [...before, drawn];
      this.selected = before.length;
    } else {
      const next = does === "move" ? { ...box, cx: box.cx + x - x0, cy: box.cy + y - y0 } : does === "turn" ? turned(box, x, y, event.shiftKey) : resized(box, ENDS[does], x - off[0], y - off[1]);
      this.boxes = before.map((one, i) => (i === this.selected ? next : one));
    }
    this.drag.moved = true;
    this.draw();
  }

  up(event) {
    if (!this.drag) return;
    const { does, before, moved, x, y } = this.drag;
    this.drag = null;
    if (event.type === "pointercancel") {
      this.boxes = before;
      return this.draw();
    }
    if (does === "new" && !moved) {
      const name = this.classOf();
      const [w, h] = this.sideOf(name);
      if (event.target.closest?.("svg") !== this.canvas) return;
      this.boxes = [...before, { name, cx: x, cy: y, w, h, theta: 0 }];
      this.selected = before.length;
    } else if (!moved) return this.changed();
    const after = this.boxes.map((box) => this.sound(box));
    this.boxes = before;
    this.set(after, this.selected);
  }

  // Whether the key is a command for the boxes.
  key(event) {
    const { key, shiftKey } = event;
    if (key === "Tab") {
      if (!this.boxes.length || !this.canvas.parentElement.parentElement.matches(":focus-within, :hover")) return false;
      this.choose(this.selected === null ? 0 : (this.selected + (shiftKey ? this.boxes.length - 1 : 1)) % this.boxes.length);
      return true;
    }
    if (key === "n") return this.add(), true;
    const box = this.boxes[this.selected];
    if (!box) return this.zoom.key(event);
    const by = shiftKey ? 10 : 1;
    const turn = ((shiftKey ? 1 : 5) * Math.PI) / 180;
    const changes = {
      ArrowLeft: { cx: box.cx - by }, ArrowRight: { cx: box.cx + by }, ArrowUp: { cy: box.cy - by }, ArrowDown: { cy: box.cy + by },
      "[": { theta: box.theta - turn }, "]": { theta: box.theta + turn }, "{": { theta: box.theta - turn }, "}": { theta: box.theta + turn },
    }[key];
    if (changes) this.change(this.selected, changes);
    else if (key === "Delete" || key === "Backspace") this.remove(this.selected);
    else if (key === "c") this.set([...this.boxes, { ...box, cx: box.cx + 8, cy: box.cy + 8 }], this.boxes.length);
    else if (key === "Escape") this.choose(null);
    else return this.zoom.key(event);
    return true;
  }
}

// Where a corner, or the middle of a side, of a box is.
function end(box, [a, b]) {
  const [cos, sin, x, y] = [Math.cos(box.theta), Math.sin(box.theta), (a * box.w) / 2, (b * box.h) / 2];
  return [box.cx + x * cos - y * sin, box.cy + x * sin + y * cos];
}

// The box rotated so that its upper side faces the point; optionally in steps of 15 degrees.
export function turned(box, x, y, inSteps) {
  const theta = Math.atan2(y - box.cy, x - box.cx) + Math.PI / 2;
  const step = Math.PI / 12;
  return { ...box, theta: inSteps ? Math.round(theta / step) * step : theta };
}

// The box with one corner or side moved to the point; the opposite one stays.
export function resized(box, [a, b], x, y) {
  const [cos, sin] = [Math.cos(box.theta), Math.sin(box.theta)];
  const fixed = [box.cx - ((a * box.w) / 2) * cos + ((b * box.h) / 2) * sin, box.cy - ((a * box.w) / 2) * sin - ((b * box.h) / 2) * cos];
  const [dx, dy] = [x - fixed[0], y - fixed[1]];
  const w = a ? Math.max(1, a * (dx * cos + dy * sin)) : box.w;
  const h = b ? Math.max(1, b * (-dx * sin + dy * cos)) : box.h;
  const [mx, my] = [(a * w) / 2, (b * h) / 2];
  return { ...box, w, h, cx: fixed[0] + mx * cos - my * sin, cy: fixed[1] + mx * sin + my * cos };
}
