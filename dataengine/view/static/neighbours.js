// The real images nearest to one, requested again until all real images are embedded.

import { changed, FILTERS } from "./address.js";
import { get } from "./api.js";
import { el, number } from "./elements.js";

const WAIT_MS = 1500;

export async function showNeighbours(root, site, id, signal) {
  const state = el("p", { class: "aside", role: "status" }, "reading the real images …");
  const list = el("ul", { class: "neighbours" });
  root.append(state, list);
  let shown = "";
  try {
    while (!signal.aborted) {
      const { done, total, error, nearest } = await get(`/api/made/pictures/${id}/neighbours`, signal);
      const now = JSON.stringify(nearest);
      if (now !== shown) {
        list.replaceChildren(...nearest.map((one) => tile(site, one)));
        shown = now;
      }
      if (error) state.textContent = error;
      else if (!total) state.textContent = "reading the real images …";
      else state.textContent = done < total ? `among ${number.format(done)} of ${number.format(total)} windows so far …` : `among ${number.format(total)} windows; distance between features of the packaged encoder`;
      if (error || (total && done === total)) return;
      await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    }
  } catch (error) {
    if (error.name !== "AbortError") state.textContent = error.message;
  }
}

function tile(site, { window, picture, name, distance }) {
  return el("li", {}, el("a", { href: changed({ view: "picture", side: "real", id: picture, layers: null, zoom: null, least: null, ...NONE }), title: name },
    el("img", { src: `/image/window/${window}?v=${site.real.fingerprint}`, alt: name, loading: "lazy" }), el("span", {}, distance.toFixed(2))));
}

const NONE = Object.fromEntries(FILTERS.map((name) => [name, null]));
