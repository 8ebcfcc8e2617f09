// The page: keeps the newest state of the stream and draws it, at most once per frame of the screen and only while it is seen.

import { follow, replay, ask, setToken, markersOf } from "./stream.js";
import { ResidencyMap, describe, legend, segmentAt } from "./map.js";
import { Strip, decimal } from "./strips.js";
import { tierColour } from "./colour.js";
import { latency, size, speed, percent, count, element } from "./format.js";
import { tiles, tierBars, signal, readersTable, mapTable, eventLines, explanation } from "./views.js";

const $ = (id) => document.getElementById(id);
const demo = new URLSearchParams(location.search).has("demo");
let state = null, drawn = false, tierNames = [], lastRead = null, rates = {};

const map = new ResidencyMap($("map"), $("map-scroll"), $("map-space"), { point, choose });
const readers = readersTable($("readers"));
const table = element("table", {});
$("map-table").append(table);
const rowsTable = mapTable(table);
const tail = new Strip($("latency"), "Latency p99", $("latency-title"), latency, 0.002, decimal);
const catchup = new Strip($("catchup"), "Cold reads", $("catchup-title"), speed, 1 << 20, (v) => 2 ** Math.ceil(Math.log2(v)));

function frame(next) {
  state = next;
  const now = Date.parse(state.now), fetch = signal(state.throttle, "fetch"), produce = signal(state.throttle, "produce");
  tail.add(now, { tail: { value: fetch?.measured, colour: "#8fd6ff" }, produce: { value: produce?.measured, colour: "#ffd84d", dash: [5, 3] } });
  const names = (state.tiers?.tiers || []).map((t) => t.name);
  const cold = {};
  for (const d of state.throttle?.devices || []) cold[d.tier] = { value: d.used_bytes_per_second, colour: tierColour(Math.max(0, names.indexOf(d.tier))), dash: names.indexOf(d.tier) ? [5, 3] : [] };
  catchup.add(now, cold);
  countReads(now);
  if (!drawn) requestAnimationFrame(draw);
  drawn = true;
}

// countReads makes rates of the tiers' totals.
function countReads(now) {
  const totals = Object.fromEntries((state.tiers?.tiers || []).map((t) => [t.name, t.read_bytes_total]));
  if (lastRead && now > lastRead.now) {
    for (const [name, n] of Object.entries(totals)) rates[name] = Math.max(0, n - (lastRead.totals[name] ?? n)) * 1000 / (now - lastRead.now);
  }
  lastRead = { now, totals };
}

function chosenRows() {
  const wanted = $("filter").value.trim().toLowerCase(), internal = $("internal").checked;
  const rows = Object.values(state.cache?.rows || {}).filter((r) => (internal || !r.topic.startsWith("__")) && (!wanted || (r.topic + "/" + r.partition).toLowerCase().includes(wanted)));
  const byName = (a, b) => a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition;
  const lag = (r) => Math.max(0, ...markersOf(r).map((m) => m.lag_seconds));
  const orders = { name: byName, bytes: (a, b) => b.bytes - a.bytes || byName(a, b), lag: (a, b) => lag(b) - lag(a) || byName(a, b) };
  return rows.sort(orders[$("order").value]);
}

function draw() {
  drawn = false;
  if (!state || document.hidden) return;
  document.documentElement.dataset.frames = Number(document.documentElement.dataset.frames || 0) + 1;
  $("tiles").replaceChildren(...tiles(state));
  const tiers = state.tiers?.tiers || [], names = tiers.map((t) => t.name);
  $("tiers").replaceChildren(...tierBars(tiers, state.tiers?.migrations, rates));
  if (names.join() !== tierNames.join()) {
    tierNames = names;
    $("legend").replaceChildren(...legend(names));
  }
  const rows = chosenRows(), all = Object.keys(state.cache?.rows || {}).length;
  const bytes = rows.reduce((n, r) => n + r.bytes, 0), resident = rows.reduce((n, r) => n + r.resident_bytes, 0);
  $("map-sum").textContent = `${count(rows.length, "partition")}, ${size(resident)} of ${size(bytes)} resident (${percent(resident, bytes)}), by ${state.cache?.method || "–"}`;
  const asTable = $("as-table").getAttribute("aria-pressed") === "true";
  $("map-empty").hidden = rows.length > 0;
  $("map-empty").textContent = all === 0 ? "No topics yet. Write something: echo hello | kcat -P -b HOST:9092 -t greetings" : "No topic matches.";
  $("map-scroll").hidden = asTable || rows.length === 0;
  $("map-table").hidden = !asTable || rows.length === 0;
  $("map").setAttribute("aria-label", `Residency of ${count(rows.length, "partition")}`);
  map.scale = $("scale").value;
  if (asTable) rowsTable.show(rows);
  else map.show(rows, state.readers?.readers || {}, names);
  const list = Object.values(state.readers?.readers || {}), wanted = $("filter").value.trim().toLowerCase();
  readers.show(list.filter((r) => !wanted || (r.topic + "/" + r.partition).toLowerCase().includes(wanted)));
  $("readers-sum").textContent = state.readers ? `${count(state.readers.total, "reader")}` + (list.length < state.readers.total ? `, the ${list.length} furthest behind` : "") : "";
  $("events").replaceChildren(...eventLines(state.events?.events));
}

const redraw = () => { if (!drawn) requestAnimationFrame(draw); drawn = true; };
for (const id of ["filter", "order", "scale", "internal"]) $(id).addEventListener("input", redraw);
document.addEventListener("visibilitychange", redraw);
$("as-table").addEventListener("click", () => {
  $("as-table").setAttribute("aria-pressed", String($("as-table").getAttribute("aria-pressed") !== "true"));
  redraw();
});

// segments of the partition that somebody points at, for some seconds.
const segments = new Map();
function segmentsOf(row) {
  const key = row.topic + "/" + row.partition, known = segments.get(key);
  if (!demo && (!known || Date.now() - known.at > 5000)) {
    const entry = { at: Date.now(), list: known?.list, answer: null };
    entry.answer = ask(`api/v1/topics/${encodeURIComponent(row.topic)}/partitions/${row.partition}/segments`).then((a) => a.json()).then((a) => { entry.list = a.segments; return entry.list; }, () => []);
    segments.set(key, entry);
    if (segments.size > 100) segments.delete(segments.keys().next().value);
  }
  return segments.get(key);
}

function point(spot, x, y, aloud) {
  const card = $("card");
  if (!spot) {
    card.hidden = true;
    return;
  }
  const what = describe(spot, state.readers?.readers || {}, Date.parse(state.now), segmentsOf(spot.row)?.list);
  card.replaceChildren(element("b", {}, what.title), ...what.lines.map((l) => element("p", {}, l)));
  card.hidden = false;
  const box = card.getBoundingClientRect();
  card.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  card.style.top = Math.max(4, y + 18 + box.height > innerHeight ? y - box.height - 14 : y + 18) + "px";
  if (aloud) $("map-said").textContent = what.title + ": " + what.lines.join("; ");
}

async function choose(spot) {
  const { row } = spot, title = `${row.topic}/${row.partition}`;
  $("card").hidden = true;
  $("explain-title").textContent = `How would ${title} be read here?`;
  $("explain-as").replaceChildren();
  if (!$("explain").open) $("explain").showModal();
  if (demo) {
    $("explain-body").replaceChildren("This is a recording: there is no broker to ask. On a broker, this shows the whole decision for the read: position, segment, tier, class, lane, method, budget and cost.");
    return;
  }
  const list = await segmentsOf(row).answer, at = (spot.cell + 0.5) * row.cell_bytes;
  const here = segmentAt(list, Math.min(at, row.bytes - 1));
  const those = Object.values(state.readers?.readers || {}).filter((r) => r.topic === row.topic && r.partition === row.partition).slice(0, 8);
  const buttons = [element("button", { type: "button", onclick: () => run(null) }, `offset ${here ? here.offset : row.start_offset}`)];
  for (const r of those) buttons.push(element("button", { type: "button", onclick: () => run(r) }, `${r.group || r.client_id} at ${r.fetch_offset}`));
  $("explain-as").replaceChildren(...buttons);
  async function run(reader) {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(reader ? those[i - 1] === reader : i === 0)));
    const query = { topic: row.topic, partition: row.partition, offset: reader ? reader.fetch_offset : here ? here.offset : row.start_offset };
    if (reader) Object.assign(query, { client: reader.client_id, group: reader.group });
    try {
      const answer = await (await ask("api/v1/explain/fetch", query)).json();
      $("explain-title").textContent = `How would ${title} be read at ${query.offset}?`;
      $("explain-body").replaceChildren(...explanation(answer));
    } catch (fault) {
      $("explain-body").replaceChildren(element("p", { role: "alert" }, fault.message));
    }
  }
  await run(those.find((r) => r.id === spot.reader) || null);
}
$("explain-close").addEventListener("click", () => $("explain").close());

// token asks for the token until the form is sent.
function token(fault) {
  $("main").hidden = true;
  $("login").hidden = false;
  $("login-fault").textContent = fault;
  link("a token is needed", false);
  $("token").focus();
  return new Promise((done) => $("login").addEventListener("submit", (e) => {
    e.preventDefault();
    setToken($("token").value.trim());
    $("token").value = "";
    $("login").hidden = true;
    $("main").hidden = false;
    done();
  }, { once: true }));
}

function link(text, good) {
  $("link").textContent = text;
  $("link").className = good ? "link" : "link bad";
}

if (demo) replay({ frame, link });
else follow({ frame, link, token });
