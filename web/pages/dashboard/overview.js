// The overview, polled every two seconds.

import { Feed } from "./api.js";
import { at, say, show } from "./dom.js";
import { choices } from "./choices.js";
import { failureBars, failures, healthFacts, joins, rejectBars, servers, stateBars, successTiles, troubleList } from "./overview_parts.js";
import { judge } from "./verdict.js";

const wanted = new URLSearchParams(location.search);
const windows = [...document.querySelectorAll("input[name=window]")];

const address = () => `/dashboard/api/overview?${new URLSearchParams({ window: windowName(), client: clientId() })}`;
const windowName = () => windows.find((radio) => radio.checked).value;
const clientId = () => at("client").dataset.wanted ?? at("client").value;

for (const radio of windows) radio.checked = radio.value === (wanted.get("window") ?? "1h");
if (!windows.some((radio) => radio.checked)) windows[1].checked = true;
at("client").dataset.wanted = wanted.get("client") ?? "";

function changed() {
  delete at("client").dataset.wanted;
  const query = new URLSearchParams();
  if (windowName() !== "1h") query.set("window", windowName());
  if (clientId()) query.set("client", clientId());
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  feed.about(address());
}
for (const chosen of [...windows, at("client")]) chosen.addEventListener("change", changed);

function display(overview) {
  choices(at("client"), overview.clients);
  const verdict = judge(overview);
  at("verdict").dataset.tone = verdict.tone;
  say(at("verdict-headline"), verdict.headline);
  show(at("verdict-troubles"), verdict.troubles, troubleList);
  show(at("success"), [overview.success, clientId()], ([success, client]) => successTiles(success, client));
  show(at("now"), [overview.states, clientId()], ([states, client]) => stateBars(states, client));
  show(at("join"), overview.time_to_join, joins);
  show(at("failed"), overview.failures, failureBars);
  show(at("rejects"), [overview.rejects, overview.requests], rejectBars);
  // Ages in the list are of this minute; the list itself changes when a session fails.
  show(at("newest"), [overview.newest_failures, clientId(), Math.floor(overview.at_ms / 30_000)], (data) => failures(data, overview.at_ms));
  show(at("servers"), [overview.health.agent_servers, overview.agents], servers);
  show(at("health"), overview.health, healthFacts);
}

const feed = new Feed(address(), display);
