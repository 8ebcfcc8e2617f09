// The event stream: a full frame, then merge patches. Browsers' EventSource cannot send a token, so this reads the response itself.

// merge applies a merge patch (RFC 7396) in place and returns the result.
export function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  if (target === null || typeof target !== "object" || Array.isArray(target)) target = {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else target[name] = merge(target[name], value);
  }
  return target;
}

// Parser cuts text that comes in pieces into events.
export class Parser {
  rest = "";
  push(text) {
    this.rest += text;
    const parts = this.rest.split("\n\n");
    this.rest = parts.pop();
    return parts.map(parseEvent);
  }
}

function parseEvent(text) {
  const event = { data: "" };
  for (const line of text.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) event[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return event;
}

// cellsOf joins blocks of 48 cells; blocks that are absent are zero.
export function cellsOf(blocks, n) {
  const out = new Uint8Array(n);
  for (const [block, text] of Object.entries(blocks || {})) {
    const bytes = atob(text), from = block * 48;
    for (let i = 0; i < bytes.length && from + i < n; i++) out[from + i] = bytes.charCodeAt(i);
  }
  return out;
}

// markersOf are the readers in a row of the map.
export function markersOf(row) { return Object.values(row.markers || {}); }

const tokenKey = "lagoon.token";
export function setToken(token) { sessionStorage.setItem(tokenKey, token); }

// ask is one call of the API.
export async function ask(path, body, headers = {}, signal = undefined) {
  const token = sessionStorage.getItem(tokenKey);
  if (token && /[^\x20-\xff]/.test(token)) { // no header can hold it, so it is no token
    throw Object.assign(new Error("That is not the token."), { status: 401 });
  }
  if (token) headers.Authorization = "Bearer " + token;
  const options = { headers, signal, cache: "no-store" };
  if (body) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail || answer.statusText || "HTTP " + answer.status);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

const silence = 40_000; // more than two heartbeats
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// follow reads the stream for ever. on.frame gets the state after each event, on.link what to say about the connection, and on.token is
// awaited when the API wants one.
export async function follow(on) {
  let state = null, id = "", retry = 2000;
  const take = (event) => {
    if (event.retry) retry = Number(event.retry) || retry;
    if (event.event !== "full" && event.event !== "delta") return;
    const data = JSON.parse(event.data);
    state = event.event === "full" ? data : merge(state, data);
    id = event.id;
    on.frame(state);
  };
  for (;;) {
    const stop = new AbortController();
    let timer = setTimeout(() => stop.abort(), silence);
    try {
      const answer = await ask("api/v1/stream", null, id ? { "Last-Event-ID": id } : {}, stop.signal);
      on.link("live", true);
      const reader = answer.body.pipeThrough(new TextDecoderStream(), { signal: stop.signal }).getReader();
      const parser = new Parser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = setTimeout(() => stop.abort(), silence);
        for (const event of parser.push(value)) take(event);
      }
      on.link("the broker has ended the stream; connecting again", false);
    } catch (fault) {
      if (fault.status === 401) {
        await on.token(sessionStorage.getItem(tokenKey) ? "That is not the token." : "");
        continue;
      }
      on.link(fault.status ? fault.message : "no connection to the broker; trying again", false);
    } finally {
      clearTimeout(timer);
    }
    await pause(retry);
  }
}

// replay plays a recorded stream, a frame a second, again and again.
export async function replay(on, every = 1000) {
  const text = await (await fetch("page/demo.sse")).text();
  const events = new Parser().push(text).filter((e) => e.data);
  on.link("a recording, no broker", true);
  for (;;) {
    let state = null;
    for (const event of events) {
      const data = JSON.parse(event.data);
      state = event.event === "full" ? data : merge(state, data);
      on.frame(state);
      await pause(every);
    }
  }
}
