// What a person decides about images: accept, reject, tag, correct; with undo. The server keeps it in the run folder.

import { post } from "./api.js";
import { announce, el, number, plural } from "./elements.js";

export const DONE = "decided"; // event of the window after every change; detail: the decisions of some of the images

export const canDecide = (site, of) => of === "made" && Boolean(site.made?.decisions);

// what: {do, tag?, objects?}; which: {ids} or {filter}, all images that match.
export async function decide(site, what, which) {
  const found = await post("/api/made/decide", { ...what, ...which });
  const words = { accept: "accepted", reject: "rejected", filter: "left to the filter", tag: `tagged ${what.tag}`, untag: `no longer ${what.tag}`, correct: "corrected", restore: "restored" };
  done(site, found, `${number.format(found.changed)} ${plural(found.changed, "image")} ${words[what.do]}`);
  return found;
}

// step: "undo" or "redo".
export async function stepDecision(site, step) {
  const what = site.made.decisions[step];
  if (!what) return announce(`nothing to ${step}`);
  done(site, await post(`/api/made/decisions/${step}`), `${step === "undo" ? "undone" : "done again"}: ${what}`);
}

function done(site, found, text) {
  site.made.decisions = found.decisions;
  announce(text);
  say(text);
  dispatchEvent(new CustomEvent(DONE, { detail: found }));
}

let hiding = 0;

// A short message in sight; the announcer says it to screen readers.
export function say(text, bad = false) {
  const place = document.getElementById("message");
  place.textContent = text;
  place.classList.toggle("bad", bad);
  place.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { place.hidden = true; }, bad ? 8000 : 3500);
}

export const failed = (error) => { say(error.message, true); announce(error.message); };

// A button that does something on the server; errors are shown.
export function act(label, title, does, properties = {}) {
  return el("button", { type: "button", title, onclick: () => Promise.resolve(does()).catch(failed), ...properties }, label);
}

export function undoDecisions(site) {
  const { undo, redo } = site.made.decisions;
  return el("div", { class: "choices", role: "group", "aria-label": "Decisions" },
    act("↶", undo ? `Undo: ${undo} (Ctrl+Z)` : "Nothing to undo", () => stepDecision(site, "undo"), { disabled: !undo, "aria-label": "Undo the last decision" }),
    act("↷", redo ? `Do again: ${redo} (Ctrl+Shift+Z)` : "Nothing to do again", () => stepDecision(site, "redo"), { disabled: !redo, "aria-label": "Do the last decision again" }));
}

// A field for a tag, with those in use.
export function tagField(site, id, apply) {
  const field = el("input", { id, type: "text", list: `${id}-known`, placeholder: "tag", maxlength: 60, size: 10, "aria-label": "Tag", autocomplete: "off", spellcheck: "false" });
  const known = el("datalist", { id: `${id}-known` }, Object.keys(site.made.decisions.tags).map((value) => el("option", { value })));
  const use = () => {
    const tag = field.value.trim();
    if (tag) Promise.resolve(apply(tag)).then(() => { field.value = ""; }).catch(failed);
    else field.focus();
  };
  field.addEventListener("keydown", (event) => event.key === "Enter" && (event.preventDefault(), use()));
  return el("span", { class: "tag-field" }, field, known, el("button", { type: "button", onclick: use }, "Tag"));
}

// Keys that decide about images wherever they are shown: does(what) with the key's decision; whether it was one.
export function decisionKey(event, site, does) {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    stepDecision(site, event.shiftKey ? "redo" : "undo").catch(failed);
    return true;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const what = { g: { do: "accept" }, x: { do: "reject" }, f: { do: "filter" } }[event.key];
  if (!what) return false;
  Promise.resolve(does(what)).catch(failed);
  return true;
}

export const said = (decision) => !decision ? "" : decision.accepted === true ? "accepted by hand" : decision.accepted === false ? "rejected by hand" : "";
