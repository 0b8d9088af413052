"""Parameters of the page's address that are no part of a filter; `static/address.js` has the filter's names."""

PAGE_PARAMETERS = frozenset({
    "start", "n", "v", "side", "view", "id", "at", "tile", "boxes", "layers", "zoom", "least", "pair", "edit", "object",
    "crops", "order", "colour", "open", "on", "seed", "outcome",
})  # fmt: skip
