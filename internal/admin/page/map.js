// The residency map: one row per partition, from the start of its log to its end. Only rows in view are drawn, so thousands cost nothing.

import { cellColour, tierColour, classColour, evictedColour } from "./colour.js";
import { cellsOf, markersOf } from "./stream.js";
import { size, span, percent, element } from "./format.js";

const gap = 12;
const dirty = 1, writeback = 2, evicted = 4;
const text = "#e4edf3", dim = "#9db0bd", ground = "#101c26", ink = "#06131d";
const font = '12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif', small = font.replace("12px", "10.5px");

export class ResidencyMap {
  // on.point(spot or null, x, y) shows what is under the pointer or the cursor, on.choose(spot) explains it.
  constructor(canvas, scroll, space, on) {
    Object.assign(this, { canvas, scroll, space, on, rows: [], readers: {}, tiers: [], scale: "full", cursor: null, under: null });
    this.pen = canvas.getContext("2d");
    scroll.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(scroll);
    canvas.addEventListener("pointermove", (e) => this.point(e));
    canvas.addEventListener("pointerleave", () => { this.under = null; this.on.point(null); this.draw(); });
    canvas.addEventListener("click", (e) => { const spot = this.spotAt(e.offsetX, e.offsetY); if (spot) this.on.choose(spot); });
    canvas.addEventListener("keydown", (e) => this.key(e));
    canvas.addEventListener("focus", () => { if (!this.cursor && this.rows.length) this.move(0, -1); });
    canvas.addEventListener("blur", () => { this.on.point(null); this.draw(); });
  }

  show(rows, readers, tiers) {
    Object.assign(this, { rows, readers, tiers });
    this.space.style.height = rows.length * this.rowHeight + "px";
    this.most = rows.reduce((most, r) => Math.max(most, r.bytes), 1);
    this.pen.font = font;
    const longest = rows.reduce((best, r) => r.topic.length > best.length ? r.topic : best, "");
    this.names = Math.min(260, this.pen.measureText(longest + "/0000").width + 8);
    this.draw();
    if (this.under) this.again();
    else if (document.activeElement === this.canvas && this.cursor) this.announce(false);
  }

  // Many rows are lower.
  get crowded() { return this.rows.length > 40; }
  get rowHeight() { return this.crowded ? 30 : 38; }
  get barTop() { return this.crowded ? 11 : 14; }
  get barHeight() { return this.crowded ? 10 : 14; }
  // Places of things. x is within the bar, ratio the place in the log.
  get left() { return Math.min(this.names, Math.max(90, this.width * 0.25)); }
  get right() { return this.width < 640 ? 64 : 128; }
  get span() { return Math.max(40, this.width - this.left - this.right - 2 * gap); }
  x(row, ratio) {
    if (this.scale === "end") return this.span * (1 - Math.log1p((1 - ratio) * 300) / Math.log1p(300));
    return ratio * this.length(row);
  }
  ratio(row, x) {
    if (this.scale === "end") return 1 - Math.expm1((1 - x / this.span) * Math.log1p(300)) / 300;
    return x / this.length(row);
  }
  length(row) { return this.scale === "bytes" ? Math.max(3, this.span * row.bytes / this.most) : this.span; }

  draw() {
    const height = Math.min(this.rows.length * this.rowHeight, this.scroll.clientHeight) || 0;
    this.width = this.scroll.clientWidth;
    const dpr = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(this.width * dpr) || this.canvas.height !== Math.round(height * dpr)) {
      this.canvas.width = Math.round(this.width * dpr);
      this.canvas.height = Math.round(height * dpr);
      this.canvas.style.height = height + "px";
    }
    const pen = this.pen;
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.fillStyle = ground;
    pen.fillRect(0, 0, this.width, height);
    const top = this.scroll.scrollTop, first = Math.floor(top / this.rowHeight);
    for (let i = first; i < this.rows.length && i * this.rowHeight - top < height; i++) this.drawRow(this.rows[i], i * this.rowHeight - top);
  }

  drawRow(row, y) {
    const pen = this.pen, n = row.cells, bar = y + this.barTop, from = this.left + gap, key = row.topic + "/" + row.partition;
    pen.textBaseline = "middle";
    pen.font = font;
    pen.textAlign = "right";
    pen.fillStyle = text;
    pen.fillText(fit(pen, key, this.left - 4), this.left, bar + this.barHeight / 2);
    pen.textAlign = "left";
    const end = from + this.span + gap;
    if (n > 0) pen.fillText(percent(row.resident_bytes, row.bytes), end, bar + this.barHeight / 2);
    if (n > 0 && this.right > 100) {
      pen.fillStyle = dim;
      pen.fillText("of " + size(row.bytes), end + 46, bar + this.barHeight / 2);
    }
    if (n === 0) {
      pen.fillStyle = dim;
      pen.fillText("empty", from, bar + this.barHeight / 2);
      return;
    }
    const cells = cellsOf(row.resident, n), flags = cellsOf(row.flags, n), tierOf = tierLookup(row, this.tiers);
    const length = Math.round(this.length(row));
    const cellAt = (x) => Math.min(n - 1, Math.max(0, Math.floor(this.ratio(row, x + 0.5) * n)));
    this.runs(length, (x) => { const c = cellAt(x); return cellColour(tierOf(c), cells[c]); }, (x, next, colour) => {
      pen.fillStyle = colour;
      pen.fillRect(from + x, bar, next - x, this.barHeight);
    });
    this.runs(length, (x) => (flags[cellAt(x)] & (dirty | writeback)) !== 0, (x, next, on) => on && hatch(pen, from + x, bar, Math.max(4, next - x), this.barHeight));
    pen.fillStyle = evictedColour;
    for (let c = 0; c < n; c++) {
      if (!(flags[c] & evicted)) continue;
      const x = from + this.x(row, c / n), alone = !(flags[c - 1] & evicted) && !(flags[c + 1] & evicted);
      // One cell is a tick, a stretch of them a line: what is resident stays to be seen.
      pen.fillRect(x, alone ? bar + this.barHeight - 4 : bar + this.barHeight - 1, Math.max(2, from + this.x(row, (c + 1) / n) - x), alone ? 7 : 2.5);
    }
    for (const spot of [this.under, document.activeElement === this.canvas ? this.cursor : null]) {
      if (!spot || spot.key !== key) continue;
      const x = this.x(row, spot.cell / n), w = Math.max(3, this.x(row, (spot.cell + 1) / n) - x);
      pen.strokeStyle = "#ffffff";
      pen.strokeRect(from + x - 0.5, bar - 1.5, w + 1, this.barHeight + 3);
    }
    this.drawMarkers(row, from, bar);
  }

  // runs calls draw for each stretch of pixels for which value gives the same.
  runs(length, value, draw) {
    for (let x = 0; x < length;) {
      const v = value(x);
      let next = x + 1;
      while (next < length && value(next) === v) next++;
      draw(x, next, v);
      x = next;
    }
  }

  // drawMarkers: real-time readers below the bar, the others above it with a ring for the share of time that they wait. Those in the same
  // place are one marker with a number.
  drawMarkers(row, from, bar) {
    const groups = new Map();
    for (const m of markersOf(row)) {
      const x = from + this.x(row, (m.cell + 0.5) / row.cells), up = m.class === "realtime", place = (up ? "u" : "d") + Math.round(x / 10);
      if (!groups.has(place)) groups.set(place, { x, up, list: [] });
      groups.get(place).list.push(m);
    }
    const pen = this.pen, taken = [];
    const rank = (m) => ["stopped", "catching_up", "stalled", "lagging"].indexOf(m.class);
    for (const g of groups.values()) {
      g.list.sort((a, b) => rank(b) - rank(a) || b.lag_seconds - a.lag_seconds);
      const worst = g.list[0], colour = classColour[worst.class] || "#fff";
      const tip = g.up ? bar + this.barHeight + 1 : bar - 1, base = g.up ? tip + 7 : tip - 7;
      pen.beginPath();
      pen.moveTo(g.x, tip);
      pen.lineTo(g.x - 5, base);
      pen.lineTo(g.x + 5, base);
      pen.closePath();
      pen.fillStyle = colour;
      pen.fill();
      pen.strokeStyle = ink;
      pen.stroke();
      const wait = Math.max(...g.list.map((m) => this.readers[m.reader]?.throttle?.wait_ratio_1m || 0));
      if (!g.up && wait >= 0.01) {
        pen.beginPath();
        pen.arc(g.x, tip - 4, 6.5, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * Math.min(1, wait));
        pen.lineWidth = 2;
        pen.strokeStyle = colour;
        pen.stroke();
        pen.lineWidth = 1;
      }
      const label = [g.list.length > 1 ? "×" + g.list.length : "", g.up ? "" : worst.name, g.up ? "" : span(worst.lag_seconds)].filter(Boolean).join(" ");
      if (!label) continue;
      pen.font = small;
      const w = pen.measureText(label).width, flip = g.x + 12 + w > from + this.span + gap, left = flip ? g.x - 10 - w : g.x + 10;
      // A label that would lie on another one is left out: the card has it.
      if (taken.some((t) => t.up === g.up && left < t.right + 4 && left + w > t.left - 4)) continue;
      taken.push({ up: g.up, left: Math.min(left, g.x - 8), right: Math.max(left + w, g.x + 8) });
      pen.fillStyle = g.up ? dim : colour;
      pen.fillText(label, left, g.up ? bar + this.barHeight + 5 : bar - 5);
    }
  }

  // spotAt is what is at a place of the canvas.
  spotAt(x, y) {
    const row = this.rows[Math.floor((y + this.scroll.scrollTop) / this.rowHeight)];
    if (!row) return null;
    const key = row.topic + "/" + row.partition, at = x - this.left - gap;
    if (row.cells === 0 || at < -8 || at > this.length(row) + 8) return null;
    const ratio = Math.min(1, Math.max(0, this.ratio(row, at)));
    const near = markersOf(row).map((m) => ({ m, far: Math.abs(this.x(row, (m.cell + 0.5) / row.cells) - at) })).filter((o) => o.far < 8);
    near.sort((a, b) => a.far - b.far);
    return { key, row, cell: Math.min(row.cells - 1, Math.floor(ratio * row.cells)), reader: near.length ? near[0].m.reader : null };
  }

  point(e) {
    this.last = e;
    this.under = this.spotAt(e.offsetX, e.offsetY);
    this.on.point(this.under, e.clientX, e.clientY);
    this.draw();
  }

  again() {
    this.under = this.spotAt(this.last.offsetX, this.last.offsetY);
    this.on.point(this.under, this.last.clientX, this.last.clientY);
  }

  move(down, right) {
    let at = this.rows.findIndex((r) => r.topic + "/" + r.partition === this.cursor?.key);
    at = Math.min(this.rows.length - 1, Math.max(0, at < 0 ? 0 : at + down));
    const row = this.rows[at];
    if (!row) return;
    const was = this.cursor ? this.cursor.cell / Math.max(1, this.cursor.row.cells) : 1;
    let cell = down ? Math.floor(was * row.cells) : (this.cursor?.cell ?? row.cells) + right;
    cell = Math.max(0, Math.min(row.cells - 1, cell));
    this.cursor = { key: row.topic + "/" + row.partition, row, cell, reader: null };
    const y = at * this.rowHeight;
    if (y < this.scroll.scrollTop) this.scroll.scrollTop = y;
    if (y + this.rowHeight > this.scroll.scrollTop + this.scroll.clientHeight) this.scroll.scrollTop = y + this.rowHeight - this.scroll.clientHeight;
    this.draw();
    this.announce(true);
  }

  announce(aloud) {
    const at = this.rows.findIndex((r) => r.topic + "/" + r.partition === this.cursor.key);
    if (at < 0) return;
    this.cursor.row = this.rows[at];
    this.cursor.cell = Math.min(this.cursor.cell, Math.max(0, this.cursor.row.cells - 1));
    const box = this.canvas.getBoundingClientRect();
    const x = this.left + gap + this.x(this.cursor.row, this.cursor.cell / Math.max(1, this.cursor.row.cells));
    this.on.point(this.cursor, box.left + x, box.top + (at + 1) * this.rowHeight - this.scroll.scrollTop, aloud);
  }

  key(e) {
    const far = e.shiftKey ? 10 : 1;
    const keys = { ArrowUp: [-far, 0], ArrowDown: [far, 0], ArrowLeft: [0, -far], ArrowRight: [0, far], Home: [0, -1e9], End: [0, 1e9], PageUp: [-10, 0], PageDown: [10, 0] };
    if (e.key in keys) this.move(...keys[e.key]);
    else if ((e.key === "Enter" || e.key === " ") && this.cursor) this.on.choose(this.cursor);
    else if (e.key === "Escape") this.on.point(null);
    else return;
    e.preventDefault();
  }
}

function fit(pen, name, width) {
  if (pen.measureText(name).width <= width) return name;
  const tail = name.slice(name.lastIndexOf("/"));
  let head = name.slice(0, name.lastIndexOf("/"));
  while (head.length > 1 && pen.measureText(head + "…" + tail).width > width) head = head.slice(0, -1);
  return head + "…" + tail;
}

function hatch(pen, x, y, w, h) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, w, h);
  pen.clip();
  pen.strokeStyle = ink;
  pen.lineWidth = 1.2;
  pen.beginPath();
  for (let at = x - h; at < x + w; at += 4) {
    pen.moveTo(at, y + h);
    pen.lineTo(at + h, y);
  }
  pen.stroke();
  pen.restore();
}

function tierLookup(row, tiers) {
  const spans = row.tiers || [];
  return (cell) => {
    // The last span that holds it: where two tiers meet in a cell, the newer segment counts.
    for (let i = spans.length - 1; i >= 0; i--) if (cell >= spans[i].first && cell < spans[i].next) return Math.max(0, tiers.indexOf(spans[i].tier));
    return 0;
  };
}

export function tierAt(row, cell) {
  for (const s of [...(row.tiers || [])].reverse()) if (cell >= s.first && cell < s.next) return s.tier;
  return "";
}

// describe says in words what a cell is; segments, when they are known, are those of the partition.
export function describe(spot, readers, now, segments) {
  const { row, cell } = spot, share = cellsOf(row.resident, row.cells)[cell] || 0, flag = cellsOf(row.flags, row.cells)[cell] || 0;
  const from = cell * row.cell_bytes, to = Math.min(row.bytes, from + row.cell_bytes), lines = [];
  const resident = share === 0 ? "nothing" : share === 255 ? "all" : percent(share, 255);
  lines.push(`${resident} of ${size(to - from)} resident, tier ${tierAt(row, cell)}`);
  const seg = segmentAt(segments, from + (to - from) / 2);
  if (seg) lines.push(`segment ${seg.base_offset} to ${seg.next_offset - 1}, ${seg.state}, ${size(seg.bytes)}, ${percent(seg.resident_bytes, seg.bytes)} resident`);
  const marks = [flag & dirty ? "not on the device yet" : "", flag & writeback ? "being written" : "", flag & evicted ? "held pages until lately that the kernel took" : ""].filter(Boolean);
  if (marks.length) lines.push(marks.join("; "));
  const here = markersOf(row).filter((m) => Math.abs(m.cell - cell) <= Math.max(1, row.cells / 200)).sort((a, b) => b.lag_seconds - a.lag_seconds);
  for (const m of here.slice(0, 4)) {
    const r = readers[m.reader], by = r?.throttle?.limited_by;
    lines.push(`${m.name} is here: ${m.class}${m.class === "realtime" ? "" : ", " + span(m.lag_seconds) + " behind"}${by ? ", held by " + by : ""}`);
  }
  if (here.length > 4) lines.push(`and ${here.length - 4} more readers`);
  lines.push(`${size(row.bytes - from)} before the end; looked at ${!row.seen ? "not yet" : row.sampled_at ? span(Math.max(0, (now - Date.parse(row.sampled_at)) / 1000)) + " ago" : "just now"}`);
  return { title: `${row.topic}/${row.partition}`, lines };
}

// segmentAt finds the segment that holds a byte of the log, counted from its start, with the offset there: exact at the segment's ends.
export function segmentAt(segments, pos) {
  let before = 0;
  for (const s of segments || []) {
    if (pos < before + s.bytes) return { ...s, offset: Math.min(s.next_offset - 1, Math.floor(s.base_offset + (pos - before) / s.bytes * (s.next_offset - s.base_offset))) };
    before += s.bytes;
  }
  return null;
}

// legend explains the signs.
export function legend(tiers) {
  const ramp = (i) => {
    const c = element("canvas", { width: 64, height: 1 });
    for (let x = 0; x < 64; x++) { const p = c.getContext("2d"); p.fillStyle = cellColour(i, Math.round(x * 255 / 63)); p.fillRect(x, 0, 1, 1); }
    return c;
  };
  const sign = (draw) => { const c = element("canvas", { width: 32, height: 32, class: "sign" }), p = c.getContext("2d"); p.scale(2, 2); draw(p); return c; };
  const triangle = (p, up, colour) => { p.fillStyle = colour; p.beginPath(); p.moveTo(8, up ? 4 : 12); p.lineTo(3, up ? 12 : 4); p.lineTo(13, up ? 12 : 4); p.fill(); };
  return [
    ...tiers.map((t, i) => element("span", {}, t + ": absent", ramp(i), "resident")),
    element("span", {}, sign((p) => { p.fillStyle = tierColour(0); p.fillRect(0, 1, 16, 14); hatch(p, 0, 1, 16, 14); }), "dirty, being written"),
    element("span", {}, sign((p) => { p.fillStyle = evictedColour; p.fillRect(7, 3, 2, 10); }), "evicted lately"),
    element("span", {}, sign((p) => triangle(p, true, classColour.realtime)), "real-time reader"),
    element("span", {}, sign((p) => triangle(p, false, classColour.lagging)), "lagging reader, ring: time it waits"),
  ];
}
