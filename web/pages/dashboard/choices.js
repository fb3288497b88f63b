// The choice of a client, among those that exist now; the chosen one stays.

import { h } from "./dom.js";

/** `select.dataset.wanted` is what the address has asked for, before there was anything to choose. */
export function choices(select, clients) {
  const chosen = select.dataset.wanted ?? select.value;
  delete select.dataset.wanted;
  const there = [...select.options].slice(1).map((option) => option.value);
  if (there.join("\n") !== clients.join("\n")) {
    select.replaceChildren(select.options[0], ...clients.map((client) => h("option", { value: client }, client)));
  }
  select.value = clients.includes(chosen) ? chosen : "";
  select.closest("label").hidden = clients.length < 2;
}
