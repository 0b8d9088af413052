// An image in a scrollable frame: zoom by wheel, pinch and keys around the point under the pointer; pan by dragging,
// with two fingers, or by keys.

const NARROW = matchMedia("(max-width: 799px)"); // the details are below the image
const STEPS = [0.1, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const WHEEL = 0.0016; // of the logarithm of the scale, for each pixel that the wheel turns
const PAN_PX = 80; // for each key

export class Zoom {
  // options: stage (the frame), content (the element to scale), signal; most: largest scale that fits on its own; whole:
  // fit in whole multiples; changed(scale); drags(event): whether a press there moves the image; pinched(): two fingers.
  constructor(options) {
    Object.assign(this, { most: Infinity, whole: false, changed: () => {}, drags: () => false, pinched: () => {} }, options);
    this.size = [1, 1];
    this.chosen = null; // null: fit to the frame
    this.paused = false; // another image is in the frame
    this.fingers = new Map();
    const { stage, signal } = this;
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false, signal });
    stage.addEventListener("pointerdown", (event) => this.down(event), { capture: true, signal });
    stage.addEventListener("pointermove", (event) => this.move(event), { capture: true, signal });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event), { capture: true, signal });
    const resizing = new ResizeObserver(() => this.update());
    resizing.observe(stage);
    signal.addEventListener("abort", () => resizing.disconnect());
  }

  setSize(size) {
    this.size = size;
    this.update();
  }

  fitted() {
    const { paddingLeft, paddingTop } = getComputedStyle(this.stage);
    const across = this.stage.clientWidth - 2 * parseFloat(paddingLeft);
    const down = NARROW.matches ? 0.7 * innerHeight : Math.max(200, this.stage.clientHeight - 2 * parseFloat(paddingTop));
    const room = Math.max(0.01, Math.min(across / this.size[0], down / this.size[1], this.most));
    return this.whole && room > 2 ? Math.floor(room) : room;
  }

  update() {
    if (!this.stage.isConnected || this.paused) return;
    this.scale = this.chosen ?? this.fitted();
    Object.assign(this.content.style, { width: `${this.size[0] * this.scale}px`, height: `${this.size[1] * this.scale}px` });
    this.content.classList.toggle("enlarged", this.scale >= 4);
    this.changed(this.scale);
  }

  // Set the scale, null to fit; the point of the image at (x, y) on the screen stays there, by default the middle.
  to(scale, x, y) {
    const frame = this.stage.getBoundingClientRect();
    [x, y] = [x ?? frame.left + frame.width / 2, y ?? frame.top + frame.height / 2];
    const before = this.content.getBoundingClientRect();
    const [u, v] = [(x - before.left) / before.width, (y - before.top) / before.height];
    this.chosen = scale === null ? null : Math.min(STEPS.at(-1), Math.max(Math.min(STEPS[0], this.fitted()), scale));
    this.update();
    const after = this.content.getBoundingClientRect();
    this.stage.scrollBy(after.left + u * after.width - x, after.top + v * after.height - y);
  }

  step(by) {
    const now = this.scale;
    const next = by > 0 ? STEPS.find((step) => step > now * 1.01) : STEPS.findLast((step) => step < now * 0.99);
    if (next) this.to(next);
  }

  pan(across, down) {
    this.stage.scrollBy(across * PAN_PX, down * PAN_PX);
  }

  // Bring a point of the image, in its pixels, to the middle of the frame.
  show([x, y], scale = this.scale) {
    this.to(scale);
    const [frame, content] = [this.stage.getBoundingClientRect(), this.content.getBoundingClientRect()];
    this.stage.scrollBy(content.left + x * this.scale - frame.left - frame.width / 2, content.top + y * this.scale - frame.top - frame.height / 2);
  }

  wheel(event) {
    if (event.shiftKey || this.paused) return; // Shift scrolls sideways
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    // a pinch on a touchpad arrives as small turns with Ctrl
    const turned = event.deltaY * lines * (event.ctrlKey && Math.abs(event.deltaY) < 40 ? 5 : 1);
    this.to(this.scale * Math.exp(-WHEEL * turned), event.clientX, event.clientY);
  }

  down(event) {
    if (this.paused) return;
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.fingers.size === 2) {
        this.pinched();
        event.stopPropagation();
      }
      return;
    }
    if (event.button !== 1 && !(event.button === 0 && this.drags(event))) return;
    event.preventDefault();
    event.stopPropagation();
    this.stage.setPointerCapture(event.pointerId);
    this.stage.classList.add("panning");
    this.dragging = [event.clientX, event.clientY];
  }

  move(event) {
    if (this.dragging) {
      this.stage.scrollBy(this.dragging[0] - event.clientX, this.dragging[1] - event.clientY);
      this.dragging = [event.clientX, event.clientY];
      event.stopPropagation();
    }
    if (!this.fingers.has(event.pointerId)) return;
    if (this.fingers.size === 2) {
      const of = (points) => [Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]), (points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2];
      const [apart, x, y] = of([...this.fingers.values()]);
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const [wider, nextX, nextY] = of([...this.fingers.values()]);
      this.to((this.scale * wider) / Math.max(1, apart), x, y);
      this.stage.scrollBy(x - nextX, y - nextY);
      event.stopPropagation();
    } else this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  up(event) {
    if (this.fingers.size > 1) event.stopPropagation();
    this.fingers.delete(event.pointerId);
    if (this.dragging) event.stopPropagation();
    this.dragging = null;
    this.stage.classList.remove("panning");
  }

  // Buttons for the bar.
  key(event) {
    const does = {
      "+": () => this.step(1), "=": () => this.step(1), "-": () => this.step(-1), "0": () => this.to(null),
      ArrowLeft: () => this.pan(-1, 0), ArrowRight: () => this.pan(1, 0), ArrowUp: () => this.pan(0, -1), ArrowDown: () => this.pan(0, 1),
    }[event.key];
    if (!does || (event.key.startsWith("Arrow") && !event.shiftKey)) return false;
    does();
    return true;
  }
}
