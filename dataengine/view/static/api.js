// Requests to the page's server. An error response becomes an Error with the server's message.

let token = "";

export async function get(path, signal) {
  return answered(await fetch(path, { signal }));
}

export async function post(path, body) {
  const headers = { "content-type": "application/json", "x-dataengine-token": token };
  return answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) }));
}

export async function getSite() {
  const site = await get("/api/site");
  token = site.token;
  return site;
}

async function answered(response) {
  const found = await response.json().catch(() => ({ error: `the server responded with ${response.status}` }));
  if (!response.ok) throw new Error(found.error ?? `the server responded with ${response.status}`);
  return found;
}

export const imageOf = (site, side, id, width) =>
  `/image/${side}/${id}?v=${site[side].fingerprint}${width ? `&side=${width}` : ""}`;
