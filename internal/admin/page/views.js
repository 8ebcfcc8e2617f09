// What the page shows beside the map and the strips: tiles, tiers, tables, events, the explanation of one read.

import { size, speed, span, latency, percent, count, element } from "./format.js";
import { tierColour, classColour } from "./colour.js";
import { markersOf } from "./stream.js";

// signal finds a measured signal of the adaptive budgets: the worst over the devices.
export function signal(throttle, name) {
  let worst;
  for (const d of throttle?.devices || []) {
    for (const s of d.signals || []) if (s.signal === name && (!worst || s.measured > worst.measured)) worst = s;
  }
  return worst;
}

function tile(label, value, note, tone) {
  return element("div", { class: "tile " + (tone || "") }, element("span", {}, label), element("b", {}, value), element("span", { title: note }, note || "\u00a0"));
}

export function tiles(state) {
  const { status, readers, throttle } = state, out = [];
  if (status) {
    const failed = (status.checks || []).filter((c) => !c.ok);
    const tone = failed.some((c) => c.severity === "error") ? "bad" : failed.length ? "warn" : "good";
    out.push(tile("Broker", status.state, failed.length ? failed[0].name + ": " + (failed[0].text || "failed") : "up " + span(status.uptime_seconds), tone));
  }
  for (const [name, label] of [["fetch", "Tail p99"], ["produce", "Produce p99"]]) {
    const s = signal(throttle, name), harm = s && s.limit && s.measured > s.limit;
    out.push(tile(label, s ? latency(s.measured) : "–", s && s.undisturbed ? "alone " + latency(s.undisturbed) : s ? "no level known yet" : "not measured", harm ? "warn" : s ? "good" : ""));
  }
  const real = readers?.classes?.realtime;
  if (readers) {
    const missed = Object.values(readers.classes || {}).reduce((n, c) => n + c.refill_bytes_1m, 0), all = (real?.page_cache_bytes_1m || 0) + missed;
    out.push(tile("Real time from cache", all ? percent(all - missed, all) : "–",
      real ? count(real.readers, "reader") + (missed ? ", " + size(missed) + " from a device" : ", " + speed(real.rate_bytes_per_second)) : "no real-time reader", all ? (missed ? "warn" : "good") : ""));
    const behind = ["catching_up", "lagging", "stalled"].map((c) => readers.classes?.[c]).filter(Boolean);
    out.push(tile("Behind", String(behind.reduce((n, c) => n + c.readers, 0)), behind.length ? span(Math.max(...behind.map((c) => c.lag_seconds))) + " at most" : "nobody"));
  }
  for (const d of throttle?.devices || []) {
    if (!d.used_bytes_per_second && !d.queued && !d.in_flight && throttle.devices.length > 1 && d.state !== "reduced") continue;
    out.push(tile("Cold reads of " + d.tier, speed(d.used_bytes_per_second), d.limit_bytes_per_second ? "of " + speed(d.limit_bytes_per_second) + (d.state ? ", " + d.state : "") : "no limit needed", d.state === "reduced" ? "warn" : ""));
  }
  return out;
}

// tierBars needs the frame before for rates.
export function tierBars(tiers, migrations, rates) {
  return tiers.map((t, i) => {
    const share = (n) => Math.max(0, Math.min(100, 100 * n / (t.capacity_bytes || 1))) + "%";
    const may = Math.min(t.used_bytes + t.free_bytes, t.max_used_bytes || Infinity); // what watermarks are shares of
    const other = Math.max(0, t.capacity_bytes - t.free_bytes - t.used_bytes);
    const moving = migrations?.migrations || [];
    const way = (side, word) => moving.filter((m) => m[side] === t.name).map((m) => `${word} ${m.topic}/${m.partition} ${percent(m.done_bytes, m.bytes)}`);
    const notes = [`${size(t.resident_bytes)} resident`, `read ${speed(rates[t.name] || 0)} by ${t.read_mode}`, t.queued_reads ? `${t.queued_reads} waiting` : "", ...way("to", "moving in"), ...way("from", "moving out"),
      t.next_to_move?.length ? `then ${t.next_to_move[0].topic}/${t.next_to_move[0].partition} to ${t.next_to_move[0].to}` : ""].filter(Boolean);
    const label = `tier ${t.name}: ${size(t.used_bytes)} of ${size(t.capacity_bytes)} used by Lagoon, ${size(other)} by others`;
    return element("div", { class: "tier" },
      element("div", { class: "tier-head" }, element("i", { class: "swatch", style: { background: tierColour(i) } }), element("b", {}, t.name), element("span", { class: "dim" }, `${t.class}, ${t.class_from}`),
        element("span", { class: "grow" }), t.state === "ok" ? "" : element("b", { class: "bad" }, t.state.toUpperCase()), `${size(t.used_bytes)} of ${size(t.capacity_bytes)}`),
      element("div", { class: "gauge", role: "img", "aria-label": label, title: label },
        element("i", { style: { width: share(t.used_bytes), background: tierColour(i) } }), element("i", { class: "other", style: { left: share(t.used_bytes), width: share(other) } }),
        ...[t.low_watermark_ratio, t.high_watermark_ratio].filter((r) => r > 0 && r < 1).map((r) => element("i", { class: "mark", style: { left: share(r * may) } }))),
      element("small", {}, notes.join("  ·  ")), t.error ? element("small", { class: "bad" }, t.error) : "");
  });
}

const who = (r) => r.group || r.client_id || r.id;
const columns = [
  ["Reader", (r) => who(r), (r) => element("span", { title: `${r.id}, client ${r.client_id || "unknown"} at ${r.peer}` }, who(r))],
  ["Partition", (r) => r.topic + "/" + String(r.partition).padStart(6, "0"), (r) => r.topic + "/" + r.partition],
  ["Class", (r) => r.class, (r) => element("span", { class: "class", title: r.class_reason }, element("i", { class: "swatch", style: { background: classColour[r.class] } }), r.class.replace("_", " "))],
  ["Behind", (r) => r.lag_bytes, (r) => r.lag_bytes > 0 ? size(r.lag_bytes) : "0", true],
  ["Lag", (r) => r.lag_seconds, (r) => span(r.lag_seconds), true],
  ["ETA", (r) => r.eta_seconds, (r) => r.class === "realtime" || r.eta_seconds < 0 ? "–" : span(r.eta_seconds), true],
  ["Rate", (r) => r.rate_bytes_per_second, (r) => speed(r.rate_bytes_per_second), true],
  ["Lane", (r) => r.lane, (r) => [r.lane, r.io_mode && "by " + r.io_mode].filter(Boolean).join(" ")],
  ["Tier", (r) => r.tier, (r) => r.tier],
  ["Limited by", (r) => r.throttle.limited_by, (r) => r.throttle.limited_by ? r.throttle.limited_by + (r.throttle.limit_bytes_per_second ? ", " + speed(r.throttle.limit_bytes_per_second) : "") : "–"],
  ["Waits", (r) => r.throttle.wait_ratio_1m, (r) => r.throttle.wait_ratio_1m > 0 ? percent(r.throttle.wait_ratio_1m, 1) : "–", true],
];
const mostRows = 200;

// Table is a table that sorts by a click on a column's head.
export class Table {
  constructor(table, columns, sort, down) {
    Object.assign(this, { table, columns, sort, down, rows: [] });
    this.heads = columns.map(([name, , , number], i) => element("th", { scope: "col", class: number ? "number" : "" },
      element("button", { type: "button", onclick: () => { this.down = this.sort === i ? !this.down : Boolean(number); this.sort = i; this.show(this.rows); } }, name)));
    this.body = element("tbody");
    table.replaceChildren(element("thead", {}, element("tr", {}, this.heads)), this.body);
  }

  show(rows) {
    this.rows = rows;
    const key = this.columns[this.sort][1];
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return (x < y ? -1 : x > y ? 1 : 0) * (this.down ? -1 : 1);
    });
    this.heads.forEach((h, i) => { if (i === this.sort) h.setAttribute("aria-sort", this.down ? "descending" : "ascending"); else h.removeAttribute("aria-sort"); });
    const lines = sorted.slice(0, mostRows).map((r) => element("tr", {}, this.columns.map(([, , cell, number]) => element("td", { class: number ? "number" : "" }, cell(r)))));
    if (sorted.length > mostRows) lines.push(element("tr", {}, element("td", { colspan: this.columns.length, class: "dim" }, `and ${sorted.length - mostRows} more: narrow the topic down`)));
    if (!sorted.length) lines.push(element("tr", {}, element("td", { colspan: this.columns.length, class: "dim" }, "none")));
    this.body.replaceChildren(...lines);
  }
}

export function readersTable(table) { return new Table(table, columns, 3, true); }

export function mapTable(table) {
  return new Table(table, [
    ["Partition", (r) => r.topic + "/" + String(r.partition).padStart(6, "0"), (r) => r.topic + "/" + r.partition],
    ["Log", (r) => r.bytes, (r) => size(r.bytes), true],
    ["Resident", (r) => r.resident_bytes, (r) => size(r.resident_bytes), true],
    ["Share", (r) => r.resident_bytes / (r.bytes || 1), (r) => percent(r.resident_bytes, r.bytes), true],
    ["Dirty", (r) => r.dirty_bytes, (r) => size(r.dirty_bytes), true],
    ["Being written", (r) => r.writeback_bytes, (r) => size(r.writeback_bytes), true],
    ["Evicted pages", (r) => r.refault_pages, (r) => String(r.refault_pages), true],
    ["Tiers, oldest first", (r) => r.tiers?.length || 0, (r) => (r.tiers || []).map((t) => `${t.tier} ${percent(t.next - t.first, r.cells)}`).join(", ")],
    ["Readers", (r) => markersOf(r).length || 0, (r) => markersOf(r).slice(0, 4).map((m) => `${m.name} (${m.class.replace("_", " ")}${m.class === "realtime" ? "" : ", " + span(m.lag_seconds)})`).join(", ") + (markersOf(r).length > 4 ? ", …" : "")],
  ], 0, false);
}

export function eventLines(events) {
  const list = Object.entries(events || {}).sort((a, b) => b[0] - a[0]).slice(0, 50);
  if (!list.length) return [element("li", { class: "dim" }, "Nothing since somebody looks.")];
  return list.map(([, e]) => element("li", {}, element("time", { datetime: e.at }, new Date(e.at).toLocaleTimeString("en-GB")), element("b", {}, e.kind), e.text));
}

export function explanation(x) {
  return [
    element("p", { class: "verdict" }, x.lane ? `Lane ${x.lane}${x.io_mode ? " by " + x.io_mode : ""}: ${x.expect || x.reason}` : x.expect || x.reason || "Nothing can be read there."),
    element("ol", {}, x.steps.map((s) => element("li", {}, element("b", {}, s.step), element("span", {}, s.text)))),
  ];
}
