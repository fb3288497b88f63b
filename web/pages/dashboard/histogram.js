// A histogram of times, drawn as columns, with the percentiles in it.

import { drawn, h, s, table } from "./dom.js";
import { duration, many, number } from "./words.js";

const HEIGHT = 190;
const TOP = 34; // room for the percentiles' names
const BOTTOM = 24;
const MIN_LABEL_PX = 46;

/** `data` is { count, mean_ms, p50_ms, p95_ms, p99_ms, buckets: [{ up_to_ms, count }] }, the last bucket's up_to_ms is null. */
export function histogram(data, empty) {
  if (!data.count) return h("p", { class: "empty" }, empty);
  const buckets = trimmed(data.buckets);
  const marks = [
    ["p50", data.p50_ms],
    ["p95", data.p95_ms],
    ["p99", data.p99_ms],
  ].filter(([, ms]) => ms !== null);
  return [
    h("p", { class: "figures" }, `Half of ${many(data.count, "join")} within `, h("b", {}, duration(data.p50_ms)), ", 95 % within ", h("b", {}, duration(data.p95_ms)), ", 99 % within ", h("b", {}, duration(data.p99_ms)), "."),
    drawn((width) => drawing(data, buckets, marks, width)),
    h(
      "details",
      { "data-key": "join-table" },
      h("summary", { "data-key": "join-summary" }, "As a table"),
      table("Joins by the time that they took", ["Took", "Joins"], buckets.map((bucket) => [range(bucket), number(bucket.count)]), { stacked: false }),
    ),
  ];
}

// Nothing before the first and after the last that has something, but one on each side.
function trimmed(buckets) {
  const all = buckets.map((bucket, index) => ({ ...bucket, from_ms: index ? buckets[index - 1].up_to_ms : 0 }));
  const filled = all.map(({ count }, index) => (count ? index : -1)).filter((index) => index >= 0);
  return all.slice(Math.max(0, filled[0] - 1), Math.max(filled.at(-1) + 2, filled[0] + 4));
}

const range = ({ from_ms, up_to_ms }) => (up_to_ms === null ? `longer than ${duration(from_ms)}` : `${from_ms ? `${short(from_ms)} – ` : "up to "}${short(up_to_ms)}`);
const short = (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);

function drawing(data, buckets, marks, width) {
  const column = width / buckets.length;
  const most = Math.max(...buckets.map(({ count }) => count));
  const base = HEIGHT - BOTTOM;
  const every = Math.ceil(MIN_LABEL_PX / column);
  const place = (ms) => {
    const index = buckets.findIndex(({ up_to_ms }) => up_to_ms === null || ms <= up_to_ms);
    if (index < 0) return width;
    const { from_ms, up_to_ms } = buckets[index];
    return (index + (up_to_ms === null ? 0.5 : Math.max(0, ms - from_ms) / (up_to_ms - from_ms))) * column;
  };
  return s(
    "svg",
    { class: "histogram", width, height: HEIGHT, role: "img", "aria-label": summary(data) },
    s("line", { class: "axis", x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }),
    buckets.map(({ count, ...bucket }, index) => {
      const height = count ? Math.max(2, ((base - TOP) * count) / most) : 0;
      return s(
        "g",
        {},
        s("title", {}, `${range(bucket)}: ${number(count)}`),
        s("rect", { class: "reach", x: index * column, y: 0, width: column, height: base }),
        s("rect", { class: "column", x: index * column + 1, y: base - height, width: Math.max(1, column - 2), height, rx: Math.min(3, column / 4) }),
        (index + 1) % every === 0 && bucket.up_to_ms !== null && index < buckets.length - 1
          ? s("text", { class: "tick", x: (index + 1) * column, y: HEIGHT - 6, "text-anchor": "middle" }, short(bucket.up_to_ms))
          : null,
      );
    }),
    percentiles(marks.map(([name, ms]) => [name, place(ms)]), width, base),
  );
}

// Each name stands beside its line, on a level of its own where they would touch.
function percentiles(marks, width, base) {
  let last = -Infinity;
  let level = 0;
  return marks.map(([name, x]) => {
    level = x - last < 34 ? level + 1 : 0;
    last = x;
    const y = 10 + level * 11;
    const right = x > width - 32;
    return s(
      "g",
      { class: "percentile" },
      s("line", { x1: x, x2: x, y1: y - 8, y2: base }),
      s("text", { x: right ? x - 4 : x + 4, y, "text-anchor": right ? "end" : "start" }, name),
    );
  });
}

const summary = ({ count, p50_ms, p95_ms, p99_ms }) =>
  `Distribution of the time to join of ${many(count, "session")}: half within ${duration(p50_ms)}, 95 % within ${duration(p95_ms)}, 99 % within ${duration(p99_ms)}.`;
