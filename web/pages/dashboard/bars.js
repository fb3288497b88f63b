// A table of counts, drawn as bars: as a table, screen readers can read it, too.

import { h } from "./dom.js";
import { number } from "./words.js";

/** `rows` are { key, label, count, tone, href }; `empty` is said when there are none. */
export function bars(caption, heads, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const most = Math.max(1, ...rows.map(({ count }) => count));
  return h(
    "table",
    { class: "bars" },
    h("caption", { class: "unseen" }, caption),
    h("thead", { class: "unseen" }, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map((row) => line(row, most))),
  );
}

function line({ key, label, count, tone, href, shown }, most) {
  const bar = h("span", { class: "bar-line", "data-tone": tone ?? "main", "aria-hidden": "true" });
  bar.style.width = `${(100 * count) / most}%`;
  return h(
    "tr",
    { "data-name": key },
    h("th", { scope: "row" }, href ? h("a", { href, "data-key": `${key}-link` }, label) : label),
    h("td", {}, h("span", { class: "bar-ground" }, bar), h("span", { class: "bar-count" }, shown ?? number(count))),
  );
}
