// The stages of a session and how long each took: one row for each attempt, all on one time axis.

import { drawn, h, s, table } from "./dom.js";
import { STAGES, duration, sayFailure } from "./words.js";

const ROW = 58;
const LABEL = 20;
const BAR = 26;
const AXIS = 26;
const MIN_TICK_PX = 76;
const LABEL_CHAR_PX = 8;
const TOOK_CHAR_PX = 8.5;
// A talk of an hour must not leave a pixel for the second in which its agent came.
const TALK_SHARE = 0.35;

/** `stages` as the API has them, `zeroMs` the moment at which the session was asked for. */
export function timeline(stages, attempts, zeroMs) {
  if (!stages.length) return h("p", { class: "empty" }, "Nothing has been noted yet.");
  return drawn((width) => drawing(stages, attempts, zeroMs, width));
}

export function stageTable(stages, zeroMs) {
  if (!stages.length) return null;
  const many = stages.some(({ generation }) => generation !== stages[0].generation);
  const cells = (what, attempt, after, took) => (many ? [what, attempt, after, took] : [what, after, took]);
  return table(
    "Which part took how long",
    cells("What", "Attempt", "After", "Took"),
    stages.map((stage) =>
      cells(
        [h("i", { class: "key", "data-stage": stage.name, "aria-hidden": "true" }), nameOf(stage)],
        String(stage.generation),
        duration(stage.began_at_ms - zeroMs),
        duration(stage.took_ms) + (stage.open ? ", so far" : ""),
      ),
    ),
    { stacked: false },
  );
}

const nameOf = ({ name, reason }) => (STAGES[name] ?? name) + (reason ? ` (${sayFailure(reason)})` : "");

/** Times to pixels: all in proportion, but of a talk no more than its share. */
export function scale(stages, width) {
  const talk = ({ name }) => name === "session";
  const rest = stages.filter((stage) => !talk(stage)).reduce((sum, { took_ms }) => sum + took_ms, 0);
  const talks = stages.filter(talk);
  const longest = talks.length ? (rest * TALK_SHARE) / (1 - TALK_SHARE) / talks.length : 0;
  let weight = 0;
  const pieces = stages.map((stage) => {
    const from = weight;
    const cut = talk(stage) && rest > 0 && stage.took_ms > longest;
    weight += cut ? longest : stage.took_ms;
    return { stage, from, to: weight, cut };
  });
  const unit = width / (weight || 1);
  return pieces.map(({ stage, from, to, cut }) => ({ stage, x: from * unit, width: (to - from) * unit, cut }));
}

function drawing(stages, attempts, zeroMs, width) {
  const pieces = scale(stages, width);
  const generations = [...new Set(stages.map(({ generation }) => generation))];
  const height = generations.length * ROW + AXIS;
  return s(
    "svg",
    { class: "timeline", width, height, role: "img", "aria-label": summary(stages, generations) },
    ticks(pieces, zeroMs, width, height),
    generations.map((generation, row) => [
      rowLabel(label(generation, attempts), row * ROW + 14, width),
      pieces.filter(({ stage }) => stage.generation === generation).map((piece) => bar(piece, row * ROW + LABEL)),
    ]),
  );
}

// SVG wraps nothing; the attempts' table has all of it.
function rowLabel(text, y, width) {
  const most = Math.floor(width / LABEL_CHAR_PX);
  return s("text", { class: "row-label", x: 0, y }, text.length > most ? `${text.slice(0, most - 1)}…` : text);
}

function bar({ stage, x, width, cut }, y) {
  const words = `${nameOf(stage)}: ${duration(stage.took_ms)}${stage.open ? ", so far" : ""}`;
  const took = duration(stage.took_ms);
  return s(
    "g",
    { "data-stage": stage.name },
    s("title", {}, words),
    s("rect", { class: "stage", x: x + 0.5, y, width: Math.max(2, width - 1), height: BAR, rx: 3 }),
    cut ? s("path", { class: "cut", d: `M${x + width - 16} ${y - 2}l-5 ${BAR + 4}M${x + width - 10} ${y - 2}l-5 ${BAR + 4}` }) : null,
    width > took.length * TOOK_CHAR_PX + (cut ? 34 : 12) ? s("text", { class: "took", x: x + 6, y: y + 17 }, took) : null,
  );
}

// At the ends of stages, where the next one's would not touch it.
function ticks(pieces, zeroMs, width, height) {
  let last = -Infinity;
  const places = pieces.map(({ stage, x }) => [x, stage.began_at_ms - zeroMs]);
  const { stage } = pieces.at(-1);
  const end = stage.began_at_ms + stage.took_ms - zeroMs;
  const inner = places.filter(([x]) => {
    if (x - last < MIN_TICK_PX || x > width - MIN_TICK_PX) return false;
    last = x;
    return true;
  });
  return [...inner, [width, end]].map(([x, ms]) =>
    s(
      "g",
      { class: "tick" },
      s("line", { x1: Math.min(x + 0.5, width - 0.5), x2: Math.min(x + 0.5, width - 0.5), y1: 0, y2: height - AXIS + 4 }),
      s("text", { x: x >= width ? width : x, y: height - 6, "text-anchor": x >= width ? "end" : x < 8 ? "start" : "middle" }, duration(ms)),
    ),
  );
}

function label(generation, attempts) {
  const attempt = attempts.find((each) => each.generation === generation);
  const end = [attempt?.outcome?.replaceAll("_", " "), attempt?.reason && sayFailure(attempt.reason)].filter(Boolean).join(": ");
  return `Attempt ${generation}${end ? ` – ${end}` : ""}`;
}

const summary = (stages, generations) =>
  `Timeline with ${generations.length === 1 ? "one attempt" : `${generations.length} attempts`}; the table below has the same: ` +
  stages.map((stage) => `${nameOf(stage)} ${duration(stage.took_ms)}`).join(", ") + ".";
