// How does the page talk to the gateway? JSON over the API, with the proof that the page is ours, and problems as RFC 9457.

/** A refusal of the API, or no answer at all. */
export class Problem extends Error {
  constructor({ status, word, title, detail, problems, requestId }) {
    super(title);
    this.status = status;
    this.word = word;
    this.title = title;
    this.detail = detail ?? null;
    this.problems = problems ?? [];
    this.requestId = requestId ?? null;
  }
}

/** Tells whoever listens that nobody is signed in any more. */
export const bus = new EventTarget();

let csrfToken = null;

/** What `/me` gave: sent with every write. */
export function proveWith(token) {
  csrfToken = token;
}

/** The address of a call; `parts` are put in as data. */
export function path(strings, ...parts) {
  return String.raw({ raw: strings }, ...parts.map((part) => encodeURIComponent(part)));
}

/** Adds the parameters that are not empty. */
export function query(address, parameters) {
  const search = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return search.size > 0 ? `${address}?${search}` : address;
}

/** What is there, with the tag of its version. */
export async function get(address, { signal } = {}) {
  return call(address, { signal });
}

/** Every page of a list, up to a bound. */
export async function all(address, { signal, most = 2000 } = {}) {
  const items = [];
  let next = null;
  do {
    const page = (await get(query(address, { after: next }), { signal })).data;
    items.push(...page.items);
    next = page.next;
  } while (next !== null && items.length < most);
  return { items, next };
}

/** Does something. `tag` says what was looked at. */
export async function post(address, body, { tag, signal, method = "POST" } = {}) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrfToken ?? "" };
  if (tag) headers["If-Match"] = tag;
  return call(address, { method, headers, body: JSON.stringify(body), signal });
}

async function call(address, options) {
  let answer;
  try {
    answer = await fetch(`/api/v1${address}`, { ...options, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ status: 0, word: "unreachable", title: "The gateway does not answer", detail: "The page will ask again." });
  }
  const requestId = answer.headers.get("x-request-id");
  const body = await read(answer);
  if (answer.ok) return { data: body, tag: answer.headers.get("etag"), status: answer.status };
  const word = String(body?.type ?? "").replace("urn:portcullis:problem:", "") || "unknown";
  const problem = new Problem({ status: answer.status, title: `The gateway answered ${answer.status}`, ...body, word, requestId });
  if (answer.status === 401) bus.dispatchEvent(new Event("signed-out"));
  throw problem;
}

async function read(answer) {
  const text = await answer.text();
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null;
  }
}
