// What the page does: it asks the server for JSON while it is looked at, and shows it.
//
// Text comes into the page as text nodes only, never as markup. A view is a function from answers to nodes; `morph` brings
// what stands there to what it should be, so that focus, selection and open details stay.
"use strict";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2000;
const RATE_POLL_MS = 1000;
const KEPT_SAMPLES = 600;
const SHOWN_BYTES = 128;

// ---- nodes ----

function fill(node, attrs, children) {
  for (const [name, value] of Object.entries(attrs || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
  return node;
}
const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
const s = (tag, attrs, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attrs, children);

/** Makes `from` look like `to`, and keeps what is the same. */
function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.dataset?.key !== to.dataset?.key) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  }
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  morphAll(from, [...to.childNodes]);
}
function morphAll(parent, nodes) {
  const old = [...parent.childNodes];
  nodes.forEach((node, at) => (at < old.length ? morph(old[at], node) : parent.append(node)));
  old.slice(nodes.length).forEach((node) => node.remove());
}
function show(parent, ...nodes) {
  const holder = document.createElement("div");
  fill(holder, {}, nodes);
  morphAll(parent, [...holder.childNodes]);
}

// ---- words and numbers ----

const int = new Intl.NumberFormat("en");
const count = (n) => (n === null || n === undefined ? "-" : int.format(n));
function bytes(n) {
  if (n === null || n === undefined) return "-";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
}
function micros(us) {
  if (!us) return "-";
  if (us < 1000) return `${us} \u00b5s`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : 1)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
}
function span(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const words = [];
  for (const [unit, size] of parts) {
    const n = Math.floor(seconds / size);
    if (n > 0 || (unit === "s" && words.length === 0)) { words.push(`${n} ${unit}`); seconds -= n * size; }
    if (words.length === 2) break;
  }
  return words.join(" ");
}
/** The largest unit of a time, and the rest. */
const halves = (text) => { const [number, unit, ...rest] = text.split(" "); return [`${number} ${unit}`, rest.join(" ")]; };
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const moment = (ms) => new Date(ms).toLocaleString("en-GB");
const perSecond = (n) => (n < 10 && n % 1 ? n.toFixed(1) : count(Math.round(n)));
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || `${one}s`}`;

const STATES = {
  serving: ["good", "Serving"], draining: ["warn", "Draining"], read_only: ["bad", "Read-only"],
  fenced: ["bad", "Fenced"], starting: ["warn", "Starting"], unknown: ["warn", "Unknown"],
};
const stateWord = (state) => STATES[state] || ["bad", "No answer"];

const ICONS = {
  good: ["M4 10.5l4 4 8-9", "Good"], note: ["M10 5v.5M10 9v6", "For your information"],
  warn: ["M10 4v7M10 14.5v.5", "Take note"], bad: ["M5 5l10 10M15 5L5 15", "Bad"],
};
function icon(grade) {
  const [path, label] = ICONS[grade] || ICONS.note;
  return s("svg", { viewBox: "0 0 20 20", role: "img", "aria-label": label, class: grade },
    s("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 2.6, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

const tile = (name, value, unit) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, unit && h("small", {}, ` ${unit}`)));
const empty = (strong, rest) => h("div", { class: "empty" }, h("strong", {}, strong), rest);
const badge = (grade, text) => h("span", { class: `badge ${grade}` }, text);

/** A table: heads are [text, class]; the first cell of a row is its head. */
function table(caption, heads, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) =>
        h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: heads[at][1] }, cell)))))));
}
/** The width of a card's inside, so that pictures are drawn at their size. */
const room = () => Math.max(280, $("content").clientWidth - 42);
const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter((pair) => pair).map(([name, value]) =>
  h("div", {}, h("dt", {}, name), h("dd", {}, value))));

// ---- asking ----

class Refused extends Error {
  constructor(code, text) { super(text); this.code = code; }
}
async function ask(path, as = "json") {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.ok) return as === "json" ? answer.json() : answer.text();
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.error || `the server answered ${answer.status}`);
}

// ---- views ----

let samples = [];
async function newSamples() {
  const after = samples.length ? samples[samples.length - 1].at_ms : 0;
  const answer = await ask(`api/v1/rates?after=${after}`);
  samples = samples.concat(answer.samples).slice(-KEPT_SAMPLES);
}
const rate = (sample, kind) => (sample && sample.span_ms ? (sample[kind].count * 1000) / sample.span_ms : 0);

const views = {
  overview: {
    title: "Overview",
    lead: "How this server fares, and what would be lost now.",
    async load() { await newSamples(); return heard; },
    draw(o) {
      const last = o.last;
      return [
        h("dl", { class: "tiles" },
          tile("Reads", count(Math.round(rate(last, "read"))), "a second"),
          tile("Writes", count(Math.round(rate(last, "write"))), "a second"),
          tile("Write time", micros(last && last.write.p99_us), "p99"),
          tile("In flight", count(o.requests_in_flight), o.requests_in_flight === 1 ? "request" : "requests"),
          tile("Data", bytes(o.data_bytes), "in tables"),
          tile("Memtables", bytes(o.memtable_bytes)),
          o.leads !== null && tile("Leads", count(o.leads), `of ${plural(o.regions, "region")}`),
          tile("Up for", ...halves(span(o.uptime_seconds)))),
        h("div", { class: "grid" },
          h("section", { class: "card" }, h("h2", {}, "What would be lost now"),
            h("ul", { class: "words" }, o.health.map((word) =>
              h("li", {}, icon(word.grade), h("div", {}, h("strong", {}, word.subject), word.text))))),
          h("div", {},
            h("section", { class: "card" }, h("h2", {}, "Requests a second"), chart("Requests a second", samples, [
              ["read", "Reads", (one) => rate(one, "read")], ["write", "Writes", (one) => rate(one, "write")]], perSecond)),
            h("section", { class: "card" }, h("h2", {}, "Checks"),
              h("ul", { class: "checks" }, o.checks.map((check) =>
                h("li", { class: check.wrong ? "bad" : "good" }, h("span", { class: "dot" }),
                  h("span", {}, check.name, check.wrong ? `: ${check.wrong}` : h("span", { class: "quiet" }, " passes")))))))),
      ];
    },
  },

  stores: {
    title: "Stores and regions",
    lead: "Who belongs to the cluster, who leads, and how far each copy is.",
    load: () => ask("api/v1/cluster"),
    draw(c) {
      if (!c.stores.length) return [h("section", { class: "card" }, empty("A standalone server", "It has no other stores and no regions. `basalt demo` shows three."))];
      const alive = c.stores.filter((store) => !store.removed);
      const removed = c.stores.length - alive.length;
      return [
        h("section", { class: "card" }, table(`${plural(alive.length, "store")}${removed ? `, and ${removed} removed` : ""}`,
          [["Store"], ["State"], ["Leads", "num"], ["Regions", "num"], ["Address"], ["Up for"], ["Version"]],
          alive.map((store) => {
            const [grade, word] = store.reachable ? stateWord(store.state) : ["bad", "No answer"];
            return [[`Store ${store.id}`, store.this && h("span", { class: "soft" }, " (this one)")],
              [h("span", { class: grade }, h("span", { class: "dot" }), ` ${word}`), (store.reason || store.why) && h("div", { class: "soft" }, store.reason || store.why)],
              count(store.leads), count(store.regions), h("span", { class: "mono" }, store.address),
              store.uptime_seconds === null ? "-" : span(store.uptime_seconds), store.version || "-"];
          }))),
        c.regions.length ? c.regions.map(regionCard) : h("section", { class: "card" }, empty("No region is known here", "A store gets one when it is added: basalt member add.")),
      ];
    },
  },

  engine: {
    title: "Engine",
    lead: "The levels of each column family. A box is a table, as wide as the keys it spans; boxes of one level below the first never overlap.",
    load: () => ask("api/v1/engine"),
    draw(e) {
      if (!e.engines.length) return [h("section", { class: "card" }, empty("No engine is open", "The store is starting or has stopped."))];
      return e.engines.map((engine) => [
        h("section", { class: "card" },
          h("h2", {}, engine.name === "raft" ? "Engine of Raft logs" : "Engine of data"),
          engine.read_only && h("p", { class: "bad" }, `Takes no writes: ${engine.read_only}`),
          engine.stall && h("p", { class: "warn" }, `Writers wait: ${engine.stall}`),
          facts([["Last sequence", count(engine.last_seq)], ["Log", `${bytes(engine.log_bytes)} in ${plural(engine.log_segments, "segment")}`],
            ["Flushes", `${count(engine.flushes)} (${bytes(engine.flushed_bytes)})`],
            ["Compactions", `${count(engine.compactions)} (${bytes(engine.compacted_bytes_written)} written), ${count(engine.trivial_moves)} moves`],
            ["Stalls", `${count(engine.stalls)} writes, ${engine.stalled_seconds.toFixed(2)} s`], ["Snapshots held", count(engine.snapshots)],
            ["Block cache", `${bytes(engine.cache.bytes)} of ${bytes(engine.cache.capacity)}`]]),
          h("details", {}, h("summary", {}, "Times of calls"), table("Times of calls since the start; of gets, writes and seeks some are timed",
            [["Call"], ["Timed", "num"], ["Mean", "num"], ["p50", "num"], ["p99", "num"], ["Longest", "num"]],
            Object.entries(engine.times).map(([name, t]) => [name, count(t.count), micros(t.mean_us), micros(t.p50_us), micros(t.p99_us), micros(t.max_us)])))),
        engine.families.map((family) => familyCard(engine, family)),
      ]);
    },
  },

  rates: {
    title: "Rates and times",
    lead: "Second by second, of the last ten minutes. Times are right within a quarter.",
    every: RATE_POLL_MS,
    async load() { await newSamples(); return samples; },
    draw(all) {
      const two = (of) => [["read", "Reads", (one) => of(one.read, one)], ["write", "Writes", (one) => of(one.write, one)]];
      const card = (title, lines, unit) => h("section", { class: "card" }, h("h2", {}, title), chart(title, all, lines, unit));
      return [h("div", { class: "grid wide" },
        card("Requests a second", two((kind, one) => (kind.count * 1000) / one.span_ms), perSecond),
        card("99 of 100 took at most", two((kind) => kind.p99_us), micros),
        card("Half took at most", two((kind) => kind.p50_us), micros),
        card("Written in the background, a second", [
          ["read", "Flushes", (one) => (one.flushed_bytes * 1000) / one.span_ms],
          ["write", "Compactions", (one) => (one.compacted_bytes * 1000) / one.span_ms]], bytes),
        card("Requests in flight", [["read", "In flight", (one) => one.in_flight]], perSecond),
        card("Answered with an error, a second", [["fail", "Failed", (one) => ((one.read.failed + one.write.failed + one.other.failed) * 1000) / one.span_ms]], perSecond))];
    },
  },

  slow: {
    title: "Slow requests",
    lead: "The newest requests that took longer than the setting slow-request-time, with the time of each stage.",
    load: () => ask("api/v1/slow"),
    draw(a) {
      const note = `Threshold ${count(a.threshold_ms)} ms; ${plural(a.seen, "slow request")} since the start`;
      return [h("section", { class: "card" }, !a.requests.length
        ? empty("No slow request so far", `None took ${count(a.threshold_ms)} ms. basalt config set slow-request-time=50ms shows more.`)
        : table(`${note}, the newest ${a.requests.length} here`,
          [["When"], ["Method"], ["Answer"], ["Took", "num"], ["Arriving", "num"], ["Working", "num"], ["Request", "num"], ["Large answer", "num"]],
          a.requests.map((r) => [clock(r.at_ms), r.method, r.code, `${count(r.took_ms)} ms`, `${count(r.arriving_ms)} ms`, `${count(r.working_ms)} ms`, bytes(r.request_bytes), bytes(r.answer_bytes)])))];
    },
  },

  keys: {
    title: "Keys",
    lead: "A page of keys in order. Nothing can be changed here.",
    every: 0,
    form: "find",
    async load() {
      const { cf, prefix, from } = browse;
      return ask(`api/v1/keys?cf=${encodeURIComponent(cf)}&prefix=${prefix}&from=${from}&limit=50`);
    },
    draw(page) {
      const values = page.shows === "values";
      const heads = [["Key"], ["Value bytes", "num"]].concat(values ? [["Value"]] : []);
      return [h("section", { class: "card" }, !page.keys.length
        ? empty("No keys here", `Family ${page.cf} has no key ${browse.prefix ? "with this prefix" : "yet. Try: basalt put hello world"}.`)
        : table(`${plural(page.keys.length, "key")} of family ${page.cf}${values ? "" : "; values are not shown (setting status-browse)"}`, heads,
          page.keys.map((one) => [h("span", { class: "mono" }, readable(one.key, one.key_bytes)), count(one.value_bytes)]
            .concat(values ? [h("span", { class: "mono" }, readable(one.value.slice(0, 2 * SHOWN_BYTES), one.value_bytes))] : []))),
      h("p", { class: "row" }, browse.from && h("button", { type: "button", class: "plain", "data-go": "" }, "From the start"),
        page.next && h("button", { type: "button", "data-go": page.next }, "Next page")))];
    },
  },

  log: {
    title: "Log",
    lead: "The newest lines of this process, the newest first. Keys and values are never in them.",
    load: () => ask("api/v1/log"),
    draw(a) {
      const grade = { ERROR: "bad", WARN: "warn", INFO: "good" };
      return [h("section", { class: "card" }, !a.lines.length
        ? empty("No lines yet", `Lines of level ${a.level} and above are kept, the newest ${a.kept}.`)
        : h("ul", { class: "lines" }, a.lines.slice().reverse().map((line) =>
          h("li", {}, h("span", { class: "soft" }, moment(line.at_ms), " "), h("b", { class: grade[line.level] || "soft" }, line.level),
            ` ${line.text} `, h("span", { class: "soft" }, line.target)))))];
    },
  },

  config: {
    title: "Settings",
    lead: "What is in force, and where each value comes from. basalt config set changes those that are online.",
    every: 10000,
    load: () => ask("api/v1/config"),
    draw(a) {
      const groups = [...new Set(a.settings.map((one) => one.group))];
      return groups.map((group) => h("section", { class: "card" }, table(group,
        [["Setting"], ["Value"], ["Comes from"], ["Changes"], ["Meaning"]],
        a.settings.filter((one) => one.group === group).map((one) => [
          h("code", {}, one.name), h("span", { class: "mono" }, one.value || "-"),
          one.origin === "default" ? h("span", { class: "soft" }, "default") : badge("note", one.origin),
          one.online ? "online" : h("span", { class: "soft" }, "restart"),
          [one.meaning, h("div", { class: "soft" }, one.range)]]))));
    },
  },

  profile: {
    title: "Profile",
    lead: "Where the time goes, and where the memory is.",
    form: "take",
    load: () => ask("api/v1/memory"),
    draw(m) {
      const p = m.process;
      return [h("section", { class: "card" }, h("h2", {}, "Memory"),
        facts([["Anonymous", bytes(p.anonymous)], ["Resident", bytes(p.resident)], ["Of mapped files", bytes(p.file)], ["Peak", bytes(p.peak)],
          ["Swapped", bytes(p.swapped)], ["Threads", count(p.threads)], ["Open files", count(p.open_files)]]),
        h("h3", {}, "What the engines account for"),
        table("Bytes by engine", [["Engine"], ["Memtables", "num"], ["Block cache", "num"], ["Open tables", "num"], ["Pinned", "num"], ["Append indexes", "num"], ["Append tails", "num"], ["Total", "num"], ["Budget", "num"]],
          m.engines.map(({ name, memory: b }) => [name, bytes(b.memtables), bytes(b.block_cache), bytes(b.tables), bytes(b.pinned), bytes(b.append_indexes), bytes(b.append_tails), bytes(b.total), b.budget === null ? "none" : bytes(b.budget)])),
        h("p", { class: "hint" }, m.note))];
    },
  },
};

function regionCard(region) {
  const whole = !region.start_key && !region.end_key;
  const border = (hex, open) => (hex ? readable(hex.slice(0, 64), hex.length / 2) : open);
  return h("section", { class: "card", "data-key": `region-${region.id}` },
    h("h2", {}, `Region ${region.id}: `, region.leader === null ? h("span", { class: "bad" }, "no leader") : `led by store ${region.leader}`),
    region.reasons.map((reason) => h("p", { class: "warn" }, reason)),
    table(`Copies of region ${region.id}`, [["Copy"], ["Role"], ["Alive"], ["Applied", "num"], ["Behind the leader", "num"], ["Is sent"]],
      region.peers.map((peer) => [`Store ${peer.store_id}`,
        peer.role === "leader" ? badge("good", "leader") : peer.role || "-",
        peer.alive ? h("span", { class: "good" }, "yes") : h("span", { class: "bad" }, "no"),
        count(peer.applied), peer.lag === null ? "-" : plural(peer.lag, "entry", "entries"), peer.role === "leader" ? "-" : peer.progress || "-"])),
    facts([["Keys", whole ? "all" : h("span", { class: "mono" }, `${border(region.start_key, "first")} to ${border(region.end_key, "last")}`)],
      ["Term", count(region.term)], ["Committed", count(region.committed)], ["Last entry", count(region.last_index)], ["Log", bytes(region.log_bytes)]]));
}

/** The levels of a family as a picture, and as a table. */
function familyCard(engine, family) {
  const title = h("h2", {}, `${engine.name === "raft" ? "Raft" : "Family"} `, h("code", {}, family.name), " ",
    h("span", { class: "soft" }, family.append ? "append family" : family.logged ? "logged" : "unlogged"));
  if (family.append) {
    return h("section", { class: "card", "data-key": `cf-${engine.name}-${family.name}` }, title,
      h("p", { class: "soft" }, "Its store is the log itself: it has no levels."),
      facts([["Prefixes", count(family.append.prefixes)], ["Entries", count(family.append.entries)], ["Index", bytes(family.append.index_bytes)]]));
  }
  const deepest = Math.max(1, ...family.levels.filter((level) => level.tables > 0).map((level) => level.level), ...family.running_into);
  const levels = family.levels.slice(0, deepest + 1);
  const [left, right, row, top] = [40, 112, 30, 4];
  const wide = room();
  const across = wide - left - right;
  const place = (rank) => left + (family.ranks > 1 ? (rank * across) / (family.ranks - 1) : 0);
  const rows = [];
  const text = (x, y, words, kind) => s("text", { x, y, class: kind }, words);
  const y0 = top;
  rows.push(text(0, y0 + 17, "mem", "strong"), s("rect", { class: "rail", x: left, y: y0, width: across, height: 24, rx: 4 }));
  // Memtables of all families of the engine are drawn to one scale.
  const full = Math.max(1 << 20, ...engine.families.map((one) => one.memtable_bytes + one.immutable_bytes));
  const fresh = (family.memtable_bytes / full) * across;
  rows.push(s("rect", { class: "memtable", x: left, y: y0, width: Math.max(family.memtable_bytes ? 2 : 0, fresh), height: 24, rx: 4 }, s("title", {}, `Memtable: ${bytes(family.memtable_bytes)}`)));
  if (family.immutable_memtables) {
    rows.push(s("rect", { class: "frozen", x: left + fresh + 2, y: y0, width: Math.max(2, (family.immutable_bytes / full) * across - 2), height: 24, rx: 4 },
      s("title", {}, `${plural(family.immutable_memtables, "memtable")} being flushed: ${bytes(family.immutable_bytes)}`)));
  }
  rows.push(text(left + across + 8, y0 + 17, bytes(family.memtable_bytes + family.immutable_bytes)));
  let y = y0 + row + 8;
  for (const level of levels) {
    const tables = family.tables.filter((one) => one.level === level.level);
    // Tables of L0 overlap: the newest stands on top of the others, each in a lane of its own.
    const lanes = level.level === 0 ? Math.max(1, Math.min(tables.length, 8)) : 1;
    const height = level.level === 0 ? Math.max(24, lanes * 9) : 24;
    const thick = level.level === 0 ? Math.max(5, height / lanes - 2) : 24;
    rows.push(text(0, y + 17, `L${level.level}`, "strong"), s("rect", { class: "rail", x: left, y, width: across, height, rx: 4 }));
    tables.forEach((one, at) => {
      const x = place(one.first);
      const width = Math.max(3, place(one.last) - x - 1);
      rows.push(s("rect", { class: one.compacting ? "table busy" : "table", x, y: level.level === 0 ? y + (at % lanes) * (height / lanes) : y, width, height: thick, rx: 3 },
        s("title", {}, `Table ${one.number}: ${bytes(one.bytes)}, ${plural(one.entries, "entry", "entries")}${one.compacting ? ", being compacted" : ""}`)));
    });
    if (family.running_into.includes(level.level)) {
      rows.push(s("rect", { class: "into", x: left + 1, y: y + 1, width: across - 2, height: height - 2, rx: 4 }, s("title", {}, `A compaction writes into level ${level.level}`)));
    }
    rows.push(text(left + across + 8, y + 17, level.tables ? `${bytes(level.bytes)} in ${count(level.tables)}` : "empty"));
    y += height + 8;
  }
  const busy = family.tables.filter((one) => one.compacting).length;
  const all = family.levels.reduce((sum, level) => sum + level.tables, 0);
  const words = `Levels of family ${family.name}: ${plural(all, "table")}; ${family.running_into.length ? `${plural(family.running_into.length, "compaction")} running over ${plural(busy, "table")}` : "no compaction is running"}`;
  return h("section", { class: "card", "data-key": `cf-${engine.name}-${family.name}` }, title,
    family.stall && h("p", { class: "warn" }, `Writers wait: ${family.stall}`),
    s("svg", { class: "lsm", viewBox: `0 0 ${wide} ${y}`, role: "img", "aria-label": words }, rows),
    h("p", { class: "swatches" }, [["fresh", "memtable"], ["idle", "table"], ["busy", "being flushed or compacted"]].map(([kind, word]) =>
      h("span", {}, h("span", { class: `swatch ${kind}` }), word))),
    facts([["Compactions", family.running_into.length ? `${family.running_into.length} running, into ${family.running_into.map((level) => `L${level}`).join(", ")}` : "none running"],
      ["To be rewritten", bytes(family.pending_compaction_bytes)], ["Reads look at", plural(family.read_amplification, "place")],
      ["Written per byte", family.write_amplification.toFixed(2)], ["Size per byte of the last level", family.space_amplification.toFixed(2)],
      family.value_files > 0 && ["Large values", `${bytes(family.value_live_bytes)} of ${bytes(family.value_bytes)} in ${plural(family.value_files, "file")}`],
      family.tables_left_out > 0 && ["Not drawn", plural(family.tables_left_out, "table")]]),
    h("details", {}, h("summary", {}, "Levels as a table"), table(`Levels of ${family.name}`, [["Level"], ["Tables", "num"], ["Bytes", "num"]],
      family.levels.map((level) => [`L${level.level}`, count(level.tables), bytes(level.bytes)]))));
}

/** Lines over time, and the same as a table by minute. `lines` are [class, name, value of a sample]. */
function chart(name, all, lines, unit) {
  if (all.length < 2) return empty("Nothing to draw yet", "The first samples come within two seconds.");
  const [tall, left, bottom, top] = [190, 62, 22, 12];
  const wide = room() > 760 ? 540 : room();
  const end = all[all.length - 1].at_ms;
  const width = Math.max(60000, Math.min(600000, end - all[0].at_ms));
  const shown = all.filter((one) => one.at_ms >= end - width);
  const highest = Math.max(...lines.map(([, , of]) => Math.max(...shown.map(of))));
  const most = nice(highest);
  const x = (at) => left + ((at - (end - width)) / width) * (wide - left - 4);
  const y = (value) => tall - bottom - (value / most) * (tall - bottom - top);
  const grid = [0, 0.5, 1].map((part) => [
    s("line", { class: "axis", x1: left, x2: wide, y1: y(most * part), y2: y(most * part) }),
    s("text", { x: left - 8, y: y(most * part) + 4, "text-anchor": "end" }, part === 0 ? "0" : unit(most * part))]);
  const now = lines.map(([, word, of]) => `${word} ${unit(of(shown[shown.length - 1])) || 0}`).join(", ");
  const minutes = new Map();
  for (const one of all) {
    const minute = Math.floor(one.at_ms / 60000);
    if (!minutes.has(minute)) minutes.set(minute, []);
    minutes.get(minute).push(one);
  }
  const mean = (of, list) => list.reduce((sum, one) => sum + of(one), 0) / list.length;
  return h("div", {},
    s("svg", { class: "chart", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `${name}, last ${span(width / 1000)}. Now: ${now}. Highest: ${unit(highest)}.` },
      grid,
      s("text", { x: left, y: tall - 5 }, `${span(width / 1000)} ago`), s("text", { x: wide - 2, y: tall - 5, "text-anchor": "end" }, "now"),
      lines.map(([kind, , of]) => s("polyline", { class: kind, points: shown.map((one) => `${x(one.at_ms).toFixed(1)},${y(of(one)).toFixed(1)}`).join(" ") }))),
    h("ul", { class: "key" }, lines.map(([kind, word, of]) => h("li", { class: kind },
      s("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, s("line", { x1: 0, x2: 26, y1: 5, y2: 5 })), `${word}: ${unit(of(shown[shown.length - 1])) || 0}`))),
    h("details", {}, h("summary", {}, "As a table"), table(`${name}: mean of each minute`, [["Minute"], ...lines.map(([, word]) => [word, "num"])],
      [...minutes].reverse().map(([minute, list]) => [clock(minute * 60000), ...lines.map(([, , of]) => unit(mean(of, list) < 1 ? 0 : Math.round(mean(of, list))) || 0)]))));
}
/** A round number at or above `value`. */
function nice(value) {
  if (!(value > 0)) return 10;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= value);
}

// ---- keys: bytes and how they are written ----

const browse = { cf: "default", prefix: "", from: "" };
const hexOf = (list) => [...list].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) || [], (pair) => parseInt(pair, 16));
/** Bytes as text where they are text, else escaped; the command line takes it back with --escaped. */
function readable(hex, length) {
  const list = bytesOf(hex);
  const rest = list.length < length ? ` ... (${plural(length, "byte")})` : "";
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(list);
    if (!/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/.test(text)) return (text || (length ? "" : "(empty)")) + rest;
  } catch { /* not text */ }
  const escaped = [...list].map((byte) => (byte === 92 ? "\\\\" : byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`));
  return escaped.join("") + rest;
}
/** The bytes that were typed, in hex; throws a sentence. */
function typed(text, form) {
  if (form === "hex") {
    const digits = text.replace(/\s/g, "");
    if (digits.length % 2 || /[^0-9a-fA-F]/.test(digits)) throw new Error("Hex has two digits a byte.");
    return digits.toLowerCase();
  }
  const list = [];
  const known = { n: 10, r: 13, t: 9, 0: 0, "\\": 92 };
  for (let at = 0; at < text.length;) {
    const point = String.fromCodePoint(text.codePointAt(at));
    at += point.length;
    if (point !== "\\") { list.push(...new TextEncoder().encode(point)); continue; }
    const letter = text[at];
    const pair = text.slice(at + 1, at + 3);
    if (letter === "x" && /^[0-9a-fA-F]{2}$/.test(pair)) { list.push(parseInt(pair, 16)); at += 3; }
    else if (letter in known) { list.push(known[letter]); at += 1; }
    else throw new Error("There are the escapes \\\\ \\n \\r \\t \\0 and \\xNN.");
  }
  return hexOf(list);
}

// ---- the frame ----

let current = "";
let round = 0;
let paused = false;
let timer = 0;
let heard = null;

function trouble(text) { $("trouble").textContent = text; }
function news(text) { $("news").textContent = text; }

/** What stands above every view. */
function frame(o) {
  const [grade, word] = stateWord(o.state);
  show($("state"), h("span", { class: grade }, h("span", { class: "dot" }), ` ${word}`), o.reason && h("span", { class: "soft" }, o.reason));
  const who = o.store_id === null ? "standalone server" : `store ${o.store_id} of cluster ${o.cluster_name}`;
  $("who").textContent = `${who}, version ${o.version}`;
  document.title = `${o.state === "serving" ? "" : `${word}: `}Basalt, ${o.store_id === null ? "standalone" : `store ${o.store_id}`}`;
  if (heard && heard.state !== o.state) news(`State: ${word}`);
  if (heard && heard.leads !== o.leads && o.leads !== null) news(o.leads ? `This store leads ${plural(o.leads, "region")} now` : "This store leads no region now");
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  const view = views[current];
  try {
    const o = await ask("api/v1/overview");
    if (mine !== round) return;
    frame(o);
    heard = o;
    const answer = await view.load();
    if (mine !== round) return;
    show($("content"), view.draw(answer));
    trouble("");
    $("token").hidden = true;
    $("view").hidden = false;
    $("fresh").textContent = `As of ${clock(o.now_ms)}.`;
  } catch (error) {
    if (mine !== round) return;
    if (error.code === 401) {
      $("token").hidden = false;
      $("view").hidden = true;
      trouble(sessionStorage.getItem("token") ? error.message : "");
      return;
    }
    if (!(error instanceof Refused)) {
      trouble("The server gives no answer; trying again.");
      show($("state"), h("span", { class: "bad" }, h("span", { class: "dot" }), " No answer"));
    } else {
      trouble("");
      show($("content"), h("section", { class: "card" }, empty(error.code === 403 ? "Not shown here" : "This did not work", error.message)));
    }
  }
  const every = view.every === undefined ? POLL_MS : view.every;
  if (every && !paused && !document.hidden) timer = setTimeout(refresh, every);
}

function turn() {
  const wanted = location.hash.slice(1);
  const next = views[wanted] ? wanted : "overview";
  const isFirst = current === "";
  if (next === current) return;
  current = next;
  const view = views[current];
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.getAttribute("href") === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("title").textContent = view.title;
  $("lead").textContent = view.lead;
  for (const form of ["find", "take"]) $(form).hidden = view.form !== form;
  show($("content"), h("p", { class: "empty" }, "Loading ..."));
  show($("drawn"));
  if (!isFirst) { $("title").focus({ preventScroll: true }); window.scrollTo(0, 0); }
  refresh();
}

window.addEventListener("hashchange", turn);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) clearTimeout(timer);
  else refresh();
});

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token-text").value);
  $("token-text").value = "";
  refresh();
});

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    Object.assign(browse, { cf: $("find-cf").value, prefix: typed($("find-prefix").value, $("find-form").value), from: "" });
  } catch (error) {
    trouble(error.message);
    return;
  }
  refresh();
});

$("content").addEventListener("click", (event) => {
  const button = event.target.closest("[data-go]");
  if (!button) return;
  browse.from = button.dataset.go;
  refresh();
  $("title").focus();
});

$("take").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("take").querySelector("button");
  const seconds = Number($("take-seconds").value);
  button.disabled = true;
  news("Taking a profile");
  show($("drawn"), h("p", { class: "empty" }, `Sampling for ${plural(seconds, "second")} ...`));
  try {
    const text = await ask(`debug/profile?seconds=${seconds}`, "text");
    const drawn = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    if (drawn.nodeName !== "svg") throw new Error("the picture does not parse");
    $("drawn").replaceChildren(h("section", { class: "card flame" }, h("h2", {}, "CPU profile"), document.importNode(drawn, true)));
    news("The profile is there");
  } catch (error) {
    show($("drawn"), h("section", { class: "card" }, empty("No profile", error.message)));
  }
  button.disabled = false;
});

turn();
