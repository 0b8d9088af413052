// A world as a zoomable map: tiles through OpenSeadragon, labels on a canvas above them.

const COLOURS = ["#ffd54a", "#4fc3f7", "#ff8a65", "#aed581", "#ba68c8", "#f06292", "#4db6ac", "#e0e0e0"];
const MIN_BOX_PX = 3; // smaller boxes are drawn as a point

const element = (id) => document.getElementById(id);
const fetched = async (address) => (await fetch(address)).json();

const [world, labels] = await Promise.all([fetched("/api/world"), fetched("/api/labels")]);
const maxLevel = Math.ceil(Math.log2(world.size));

element("name").textContent = world.name;
element("about").textContent = [
  `${world.size} x ${world.size} pixels`,
  world.gsd_m ? `${world.gsd_m} m per pixel` : "",
  `${labels.length} objects`,
  world.levels > 1 ? `${world.levels} levels` : "",
].filter(Boolean).join(", ");

// OpenSeadragon adds a style sheet to the page unless it finds one. The page's policy allows none, so it finds an
// element of that name which is no style sheet; the rule itself is in world.css.
const placeholder = document.createElementNS("urn:placeholder", "style");
placeholder.setAttribute("data-openseadragon-mobile-css", "true");
document.head.append(placeholder);

const viewer = OpenSeadragon({
  element: element("map"),
  showNavigationControl: false,
  showNavigator: false,
  maxZoomPixelRatio: 8,
  gestureSettingsMouse: { clickToZoom: false },
  drawer: "canvas",
  tileSources: {
    width: world.size,
    height: world.size,
    tileSize: world.tile,
    minLevel: Math.min(maxLevel, 8),
    maxLevel,
    getTileUrl: (level, x, y) => `/tile/${maxLevel - level}/${x}/${y}`,
  },
});

const canvas = document.createElement("canvas");
canvas.className = "labels";
element("map").append(canvas);

/** Scale and shift from pixels of the world to pixels of the page. */
function view() {
  const image = viewer.world.getItemAt(0);
  const origin = image.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
  const end = image.imageToViewerElementCoordinates(new OpenSeadragon.Point(world.size, world.size));
  return { scale: (end.x - origin.x) / world.size, x: origin.x, y: origin.y };
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = element("map");
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  if (!element("labels").checked || !viewer.world.getItemCount()) return;
  const { scale, x, y } = view();
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  for (const label of labels) {
    const corners = label.corners.map(([u, v]) => [u * scale + x, v * scale + y]);
    const us = corners.map(([u]) => u), vs = corners.map(([, v]) => v);
    if (Math.max(...us) < 0 || Math.max(...vs) < 0 || Math.min(...us) > width || Math.min(...vs) > height) continue;
    context.strokeStyle = context.fillStyle = COLOURS[world.classes.indexOf(label.class) % COLOURS.length];
    context.setLineDash(label.difficult ? [4, 3] : []);
    if (Math.max(...us) - Math.min(...us) < MIN_BOX_PX && Math.max(...vs) - Math.min(...vs) < MIN_BOX_PX) {
      context.fillRect(us[0] - 1, vs[0] - 1, 2, 2);
      continue;
    }
    context.lineWidth = 1.5;
    context.beginPath();
    corners.forEach(([u, v], i) => (i ? context.lineTo(u, v) : context.moveTo(u, v)));
    context.closePath();
    context.stroke();
  }
}

/** Whether a point lies in a convex polygon. */
function inside([px, py], corners) {
  const sides = corners.map(([x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    return (x2 - x1) * (py - y1) - (y2 - y1) * (px - x1);
  });
  return sides.every((s) => s >= 0) || sides.every((s) => s <= 0);
}

function describe(event) {
  const { scale, x, y } = view();
  const place = [(event.position.x - x) / scale, (event.position.y - y) / scale];
  const label = labels.find((one) => inside(place, one.corners));
  element("object").textContent = label
    ? `${label.class}${label.difficult ? ", difficult" : ""}, id ${label.id}`
    : `x ${Math.round(place[0])}, y ${Math.round(place[1])}`;
}

viewer.addHandler("update-viewport", draw);
viewer.addHandler("open", () => {
  const [, , at] = (location.hash.match(/^#(at=)?(.*)$/) || []);
  const [cx, cy, side] = (at || "").split(",").map(Number);
  if (side > 0) {
    viewer.viewport.fitBounds(
      viewer.viewport.imageToViewportRectangle(cx - side / 2, cy - side / 2, side, side), true);
  }
  draw();
  document.body.dataset.ready = "yes";
});
viewer.addHandler("canvas-click", describe);
element("labels").addEventListener("change", draw);
element("whole").addEventListener("click", () => viewer.viewport.goHome());
window.addEventListener("resize", draw);
document.addEventListener("keydown", (event) => {
  if (event.key === "l" || event.key === "L") element("labels").click();
});
