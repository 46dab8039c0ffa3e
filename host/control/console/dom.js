// Elements, and the update of a page in place: what has the focus keeps it, and nothing jumps.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "polyline", "polygon", "line", "rect", "title"]);
const PLACE = "kept-element";
const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "ondrop", "ondragover", "ondragleave"];

/** Makes an element. Attributes that begin with "on" are handlers; false and null leave an attribute out. Text is never read as HTML. */
export function h(tag, attributes, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Makes the children of `parent` equal to `wanted`, and keeps the elements that are the same. */
export function update(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = parent.firstChild;
  for (const next of wanted) {
    if (next === null || next === undefined || next === false) continue;
    const node = typeof next === "string" ? document.createTextNode(next) : next;
    const known = node.kept ?? (node.dataset?.key ? keyed.get(node.dataset.key) : at);
    if (node.kept) {
      // A kept element is not moved within its parent, because a move takes the focus away.
      if (known.parentNode === parent) while (at !== known) at = removed(at);
      else parent.insertBefore(known, at);
      if (at === known) at = at.nextSibling;
    } else if (known && isSame(known, node)) {
      if (known === at) at = at.nextSibling;
      else parent.insertBefore(known, at);
      become(known, node);
    } else {
      for (const place of node.querySelectorAll?.(PLACE) ?? []) place.replaceWith(place.kept);
      parent.insertBefore(node, at);
    }
  }
  while (at) at = removed(at);
}

/** Removes a node; returns the one after it. */
function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** A place in a page for an element that is the same each time the page is shown, with all that the user has entered in it. */
export function keep(element) {
  const place = document.createElement(PLACE);
  place.kept = element;
  element.isKept = true;
  return place;
}

function isSame(known, node) {
  return !known.isKept && known.nodeType === node.nodeType && known.nodeName === node.nodeName && known.dataset?.key === node.dataset?.key;
}

function become(known, node) {
  if (known.nodeType === Node.TEXT_NODE) {
    if (known.data !== node.data) known.data = node.data;
    return;
  }
  // What the user has typed, chosen or opened stays.
  const kept = { INPUT: ["value", "checked"], TEXTAREA: [], DETAILS: ["open"] }[known.nodeName] ?? [];
  for (const { name } of [...known.attributes]) {
    if (!node.hasAttribute(name) && !kept.includes(name)) known.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (!kept.includes(name) && known.getAttribute(name) !== value) known.setAttribute(name, value);
  }
  for (const name of HANDLERS) known[name] = node[name] ?? null;
  if (known.nodeName !== "TEXTAREA") update(known, [...node.childNodes]);
}

/** A table. Columns: {title, cell(row), kind}; kinds: number, short, wide, mono. `detail` is shown below a chosen row. */
export function table(caption, columns, rows, { key, nothing = "None.", chosen, detail } = {}) {
  if (rows.length === 0) return h("p", { class: "nothing" }, nothing);
  const head = columns.map(({ title, kind }) => h("th", { role: "columnheader", scope: "col", class: kind }, title || h("span", { class: "muted" }, "\u00a0")));
  const line = (row) => {
    const isChosen = chosen?.(row);
    const cells = columns.map(({ title, cell, kind }) => h("td", { role: "cell", class: kind, "data-title": title }, cell(row)));
    const more = isChosen && detail && h("tr", { role: "row", class: "detail", "data-key": `${key(row)} detail` }, h("td", { role: "cell", colspan: columns.length }, detail(row)));
    return [h("tr", { role: "row", "data-key": key?.(row), class: isChosen && "chosen" }, cells), more];
  };
  const body = rows.map(line);
  // The roles stay where a narrow page shows rows as blocks.
  const all = h("table", { role: "table" }, h("caption", {}, caption), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), h("tbody", { role: "rowgroup" }, body));
  // A region that scrolls must be reachable with the keyboard.
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, all);
}

export function button(text, onclick, attributes) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

export function field(text, control, attributes) {
  return h("label", attributes, h("span", {}, text), control);
}

export function choice(name, options, onchange) {
  const all = options.map(([value, text, isChosen]) => h("option", { value, selected: isChosen }, text));
  return h("select", { name, onchange }, all);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export function badge(text, kind) {
  return h("span", { class: `badge ${kind ?? "muted"}` }, text);
}

/** Tells what has happened, also to screen readers. */
export function say(text, isBad = false) {
  const said = document.getElementById("said");
  said.replaceChildren(h("span", { class: isBad && "bad" }, text));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => said.replaceChildren(), isBad ? 15000 : 6000);
}

/** Asks before something that is hard to undo; resolves to whether the user agrees. */
export function ask(title, text, yes) {
  const [dialog, agree, refuse] = ["dialog", "dialog-yes", "dialog-no"].map((id) => document.getElementById(id));
  document.getElementById("dialog-title").textContent = title;
  document.getElementById("dialog-text").textContent = text;
  agree.textContent = yes;
  return new Promise((resolve) => {
    const close = (agreed) => {
      dialog.onclose = null;
      if (dialog.open) dialog.close();
      resolve(agreed);
    };
    agree.onclick = () => close(true);
    refuse.onclick = () => close(false);
    dialog.onclose = () => close(false);
    dialog.showModal();
    refuse.focus();
  });
}

export const count = (number) => (number ?? 0).toLocaleString("en");

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  const digits = perSecond > 0 && perSecond < 10 ? 1 : 0;
  return perSecond.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A duration given in nanoseconds. */
export function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  if (ns < 1e6) return `${(ns / 1e3).toFixed(ns < 1e4 ? 1 : 0)} µs`;
  return `${(ns / 1e6).toFixed(ns < 1e7 ? 1 : 0)} ms`;
}

/** The host's time, in UTC as in the log. */
export const time = (text) => (text ? text.replace("T", " ").replace(/\.\d+/, "") : "–");

export function since(text) {
  const seconds = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return "less than a minute";
}
