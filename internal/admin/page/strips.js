// Strip charts: a line per series over the last minutes. A small one of our own: nothing else is needed here.

import { element } from "./format.js";

const keep = 600; // points, one a frame
const font = '11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';

export class Strip {
  static cursor = null; // share of the width, for all strips
  static all = [];

  // round gives the top of the scale for the largest value, which counts as least at least.
  constructor(canvas, title, caption, format, least, round) {
    Object.assign(this, { canvas, title, caption, format, least, round, times: [], series: new Map() });
    Strip.all.push(this);
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (e) => { Strip.cursor = e.offsetX / canvas.clientWidth; Strip.all.forEach((s) => s.draw()); });
    canvas.addEventListener("pointerleave", () => { Strip.cursor = null; Strip.all.forEach((s) => s.draw()); });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // add takes the values of one moment: name: {value, colour}, value undefined where there is none.
  add(time, values) {
    if (time < this.times[this.times.length - 1]) { // a recording begins again
      this.times = [];
      this.series.clear();
    }
    this.times.push(time);
    for (const [name, v] of Object.entries(values)) {
      if (!this.series.has(name)) this.series.set(name, { points: new Array(this.times.length - 1).fill(undefined), colour: v.colour, dash: v.dash });
    }
    for (const [name, s] of this.series) s.points.push(values[name]?.value);
    if (this.times.length > keep) {
      this.times.shift();
      for (const s of this.series.values()) s.points.shift();
    }
    this.draw();
  }

  draw() {
    const w = this.canvas.clientWidth, h = this.canvas.clientHeight, dpr = window.devicePixelRatio || 1;
    if (!w || !h) return;
    this.canvas.width = Math.round(w * dpr);
    this.canvas.height = Math.round(h * dpr);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    const left = 64, bottom = 16, top = 6, right = 4, n = this.times.length;
    let most = this.least;
    for (const s of this.series.values()) for (const v of s.points) if (v > most) most = v;
    most = this.round(most);
    const begin = n ? Math.min(this.times[0], this.times[n - 1] - 60_000) : 0, length = n ? this.times[n - 1] - begin : 1;
    const x = (t) => left + (w - left - right) * (t - begin) / length, y = (v) => top + (h - top - bottom) * (1 - v / most);
    pen.font = font;
    pen.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      pen.strokeStyle = "#22344499";
      pen.beginPath();
      pen.moveTo(left, y(share * most));
      pen.lineTo(w - right, y(share * most));
      pen.stroke();
      pen.fillStyle = "#9db0bd";
      pen.textAlign = "right";
      pen.fillText(this.format(share * most), left - 6, y(share * most));
    }
    if (n > 1) {
      pen.textAlign = "left";
      pen.fillText(new Date(begin).toLocaleTimeString("en-GB"), left, h - 6);
      pen.textAlign = "right";
      pen.fillText(new Date(this.times[n - 1]).toLocaleTimeString("en-GB"), w - right, h - 6);
    }
    for (const s of this.series.values()) {
      pen.strokeStyle = s.colour;
      pen.lineWidth = 1.6;
      pen.setLineDash(s.dash || []);
      pen.beginPath();
      let down = false;
      s.points.forEach((v, i) => {
        if (v === undefined || v === null) { down = false; return; }
        pen[down ? "lineTo" : "moveTo"](x(this.times[i]), y(v));
        down = true;
      });
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.lineWidth = 1;
    let at = n - 1;
    if (Strip.cursor !== null && n > 1) {
      const t = begin + length * (Strip.cursor * w - left) / (w - left - right);
      at = this.times.reduce((best, v, i) => Math.abs(v - t) < Math.abs(this.times[best] - t) ? i : best, 0);
      pen.strokeStyle = "#8fd6ff88";
      pen.beginPath();
      pen.moveTo(x(this.times[at]), top);
      pen.lineTo(x(this.times[at]), h - bottom);
      pen.stroke();
    }
    this.describe(at);
  }

  describe(at) {
    const keys = [...this.series].map(([name, s]) => {
      const v = s.points[at];
      return { name, colour: s.colour, value: v === undefined || v === null ? "–" : this.format(v) };
    });
    const said = keys.map((k) => k.name + " " + k.value).join(", ");
    if (said === this.said) return;
    this.said = said;
    this.canvas.setAttribute("aria-label", this.title + ": " + said);
    this.caption.replaceChildren(element("b", {}, this.title), " ", ...keys.map((k) =>
      element("span", { class: "key" }, element("i", { class: "swatch", style: { background: k.colour } }), k.name, element("b", {}, k.value))));
  }
}

// decimal is the next 1, 2 or 5 times a power of ten.
export function decimal(v) {
  const p = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].find((m) => m * p >= v * 0.999) * p;
}
