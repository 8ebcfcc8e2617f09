// How figures look, the same everywhere as in the CLI: binary sizes, short times, "–" for what is not known.

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let n = Math.abs(bytes), u = 0;
  while (n >= 1024 && u < units.length - 1) { n /= 1024; u++; }
  return (bytes < 0 ? "-" : "") + (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + units[u];
}

export function speed(bytes) { return bytes > 0 ? size(bytes) + "/s" : "0"; }

// span is a time in at most two units.
export function span(seconds) {
  if (!(seconds >= 0)) return "–";
  if (seconds > 0 && seconds < 1) return latency(seconds);
  const s = Math.round(seconds);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + "m" + String(s % 60).padStart(2, "0") + "s";
  if (s < 86400) return Math.floor(s / 3600) + "h" + String(Math.floor(s % 3600 / 60)).padStart(2, "0") + "m";
  return Math.floor(s / 86400) + "d" + Math.floor(s % 86400 / 3600) + "h";
}

export function latency(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  if (seconds >= 10) return span(seconds);
  if (seconds >= 1) return seconds.toFixed(1) + " s";
  const ms = seconds * 1000;
  return (ms >= 100 ? ms.toFixed(0) : ms >= 0.1 || ms === 0 ? ms.toFixed(1) : ms.toFixed(2)) + " ms";
}

export function percent(part, whole) {
  if (!(whole > 0)) return "–";
  const p = 100 * part / whole;
  return (p > 0 && p < 1 ? "<1" : p < 100 && p > 99 ? ">99" : p.toFixed(0)) + " %";
}

export function count(n, what) { return n.toLocaleString("en") + " " + what + (n === 1 ? "" : "s"); }

// element makes a DOM element; children are elements or text. Text never becomes markup.
export function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") e.className = value;
    else if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(e.style, value);
    else if (value !== false && value !== undefined) e.setAttribute(key, value);
  }
  for (const c of children.flat()) if (c !== null && c !== undefined && c !== "") e.append(c);
  return e;
}
