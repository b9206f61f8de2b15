// How does anything get onto the page? Through `h`, and so as text nodes only.
//
// Names and descriptions come from strangers and are read by models. Whatever is a string becomes a text node in which every
// character that is not seen, or that moves the ones around it, is shown as a box with its number. There is no other way
// in: the page's policy (`require-trusted-types-for 'script'; trusted-types 'none'`) has the browser refuse markup in strings.

const SVG = "http://www.w3.org/2000/svg";

/** Control, format, private, unassigned and ignorable characters, lone surrogates, other spaces than the plain one, and
 *  more than three marks on one letter. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{DI}]+|[^\S ]+|(?<=\p{M}{3})\p{M}+/gu;

const NAMES = {
  0x00: "NULL", 0x07: "BELL", 0x08: "BACKSPACE", 0x09: "TAB", 0x0a: "LINE FEED", 0x0d: "CARRIAGE RETURN",
  0x1b: "ESCAPE", 0x7f: "DELETE", 0xa0: "NO-BREAK SPACE", 0xad: "SOFT HYPHEN", 0x200b: "ZERO WIDTH SPACE",
  0x200c: "ZERO WIDTH NON-JOINER", 0x200d: "ZERO WIDTH JOINER", 0x200e: "LEFT-TO-RIGHT MARK",
  0x200f: "RIGHT-TO-LEFT MARK", 0x2028: "LINE SEPARATOR", 0x2029: "PARAGRAPH SEPARATOR",
  0x202a: "LEFT-TO-RIGHT EMBEDDING", 0x202b: "RIGHT-TO-LEFT EMBEDDING", 0x202c: "POP DIRECTIONAL FORMATTING",
  0x202d: "LEFT-TO-RIGHT OVERRIDE", 0x202e: "RIGHT-TO-LEFT OVERRIDE", 0x2060: "WORD JOINER",
  0x2066: "LEFT-TO-RIGHT ISOLATE", 0x2067: "RIGHT-TO-LEFT ISOLATE", 0x2068: "FIRST STRONG ISOLATE",
  0x2069: "POP DIRECTIONAL ISOLATE", 0xfe0f: "VARIATION SELECTOR-16", 0xfeff: "ZERO WIDTH NO-BREAK SPACE",
};

/** An element. Properties that are functions listen; `true` is an attribute without a value; null and false are none. */
export function h(tag, properties, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** An element of a drawing. */
export function s(tag, properties, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : said(String(value)));
  }
  add(element, children);
  return element;
}

/** Appends nodes, strings, and lists of both. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    if (child instanceof Node) element.append(child);
    else element.append(...seen(String(child)));
  }
}

/** The nodes that show a text; nothing of it is left out. */
export function seen(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > from) nodes.push(document.createTextNode(text.slice(from, found.index)));
    nodes.push(...boxes(found[0]));
    from = found.index + found[0].length;
  }
  if (from < text.length || nodes.length === 0) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

/** A run of characters that are not seen: tag characters as the ASCII that models read, others by number. */
function boxes(run) {
  const groups = [];
  for (const character of run) {
    const code = character.codePointAt(0);
    const isTag = code >= 0xe0020 && code <= 0xe007e;
    const last = groups.at(-1);
    if (isTag && last?.tag !== undefined) last.tag += String.fromCodePoint(code - 0xe0000);
    else if (isTag) groups.push({ tag: String.fromCodePoint(code - 0xe0000) });
    else if (last?.code === code) last.times += 1;
    else groups.push({ code, times: 1 });
  }
  const shown = groups.slice(0, BOXES_MAX).map(box);
  const more = groups.length - BOXES_MAX;
  if (more > 0) shown.push(mark("ch", `${more} more unseen`, "Further characters that are not seen"));
  return shown;
}

function box(group) {
  if (group.tag !== undefined) {
    return mark("ch hidden-text", `hidden: ${group.tag}`, "Unicode tag characters: nobody sees them, models read them");
  }
  const number = numbered(group.code);
  const times = group.times > 1 ? ` ×${group.times}` : "";
  return mark("ch", number + times, `${number} ${NAMES[group.code] ?? "a character that is not seen"}${times}`);
}

function mark(kind, text, title) {
  const element = document.createElement("span");
  element.className = kind;
  element.title = title;
  element.textContent = text;
  return element;
}

function numbered(code) {
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** An excerpt in which the gateway has written what is not seen as `⟨U+200B⟩` and `⟨tag:a⟩`: the same boxes. */
export function excerpt(text) {
  return text.replace(/⟨[^⟩]*$/u, "…").split(/((?:⟨tag:.⟩)+|⟨U\+[0-9A-F]{4,6}⟩)/u).filter(Boolean).map((part) => {
    if (part.startsWith("⟨tag:")) return box({ tag: part.replaceAll(/⟨tag:(.)⟩/gu, "$1") });
    if (part.startsWith("⟨U+")) return box({ code: parseInt(part.slice(3, -1), 16), times: 1 });
    return part;
  });
}

/** The same for places that hold no elements: attributes, titles. */
export function said(text) {
  return text.replace(UNSEEN, (run) => [...run].slice(0, BOXES_MAX).map((c) => `⟨${numbered(c.codePointAt(0))}⟩`).join(""));
}

/** A text of several lines, as its reader gets it: line ends are line ends, tabs are wide. A long one is cut, and can be shown. */
export function prose(text, most = PROSE_MAX) {
  const element = h("div", { class: "prose", dir: "auto" });
  const show = (until) => {
    const part = text.length > until ? text.slice(0, until) : text;
    element.replaceChildren();
    part.split(/\r\n|\n/).forEach((line, nth) => {
      if (nth > 0) element.append(document.createElement("br"));
      add(element, line.split("\t").flatMap((piece, at) => (at > 0 ? ["    ", piece] : [piece])));
    });
    const rest = text.length - part.length;
    if (rest > 0) {
      const next = Math.min(text.length, until + CHUNK);
      element.append(
        h("span", { class: "cut" }, "…"),
        h("button", { type: "button", class: "link", onclick: () => show(next) },
          next === text.length ? `Show the other ${count(rest)} characters` : `Show more (${count(rest)} characters are left)`),
      );
    }
  };
  show(most);
  return element;
}

/** A short text on one line; the whole of it is said when it is pointed at. */
export function short(text, most = 80) {
  const whole = String(text);
  const characters = [...whole.slice(0, most * 2 + 2)];
  if (characters.length <= most) return h("bdi", {}, whole);
  return h("bdi", { title: whole.slice(0, 1000) }, `${characters.slice(0, most).join("")}…`);
}

/** Puts other content in place, and leaves focus, opened parts and what was typed as they were. */
export function replace(element, ...content) {
  const active = element.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset.key ?? active?.id;
  const open = new Set([...element.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  element.replaceChildren();
  add(element, content);
  for (const one of element.querySelectorAll("details[data-key]")) one.open = one.open || open.has(one.dataset.key);
  if (!active || !key) return;
  const again = [...element.querySelectorAll("[data-key], [id]")].find((one) => (one.dataset.key ?? one.id) === key);
  again?.focus({ preventScroll: true });
}

const number = new Intl.NumberFormat("en");

/** A number as people read it. */
export function count(value) {
  return number.format(value).replaceAll(",", " ");
}

const PROSE_MAX = 2000;
const CHUNK = 50_000;
const BOXES_MAX = 32;

/** Set as they are: they are never markup, and what is typed must not be changed. */
const PROPERTIES = new Set(["checked", "disabled", "placeholder", "value"]);
