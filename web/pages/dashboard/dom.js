// Writes to the page: text and elements, never HTML, and only where something differs.

export const at = (id) => document.getElementById(id);

/** The path under which a proxy serves Usher, or "". A link of ours is written without it. */
const PREFIX = document.documentElement.dataset.prefix ?? "";
export const served = (path) => (path.startsWith("/") ? PREFIX + path : path);
export const unserved = (path) => (path.startsWith(`${PREFIX}/`) ? path.slice(PREFIX.length) : path);

const SVG = "http://www.w3.org/2000/svg";

/** An element; a child may be a text, an element, a list of them, or nothing. */
export const h = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** The same of a drawing. */
export const s = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : name === "href" ? served(value) : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Writes only a changed text: screen readers read a live region out again when it is written. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const shown = new WeakMap();

/**
 * Have `place` show what `render(data)` gives, unless it shows that already. The focus in it stays, by
 * the focused element's `data-key`.
 */
export function show(place, data, render) {
  const now = JSON.stringify(data) ?? "";
  if (shown.get(place) === now) return;
  shown.set(place, now);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const opened = new Set([...place.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  place.replaceChildren(...[render(data)].flat(Infinity).filter(Boolean));
  for (const details of place.querySelectorAll("details")) details.open = opened.has(details.dataset.key);
  if (focused) [...place.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused)?.focus();
}

/** A drawing that is made anew for each width that its place gets; `draw(width)` gives an `svg`. */
export function drawn(draw) {
  const place = h("div", { class: "drawing" });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - width) < 1) return;
    width = contentRect.width;
    place.replaceChildren(draw(width));
  }).observe(place);
  return place;
}

/** A table; `heads` are its columns' names, `rows` lists of cells, of which the first names the row. */
export function table(caption, heads, rows, { stacked = true } = {}) {
  return h(
    "table",
    { class: stacked ? "stacked" : "", role: "table" },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((head) => h("th", { scope: "col", role: "columnheader" }, head)))),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((cells) =>
        h(
          "tr",
          { role: "row" },
          cells.map((cell, column) =>
            column
              ? h("td", { role: "cell", "data-head": heads[column] }, cell)
              : h("th", { scope: "row", role: "rowheader", "data-head": heads[column] }, cell),
          ),
        ),
      ),
    ),
  );
}
