// The console: asks the coordinator's API every two seconds and shows what it says. Everything that
// comes from it is set as text, never as markup.
"use strict";

const EVERY_MS = 2000;
const LOOKS = 150; // of the throughput: five minutes
const VIEWS = ["overview", "partitions", "schemas", "letters", "audit"];
const paces = new Map(); // sink -> [{ at, delivered }]
const shown = new WeakMap(); // element -> the markup of its children
let status = null;

const by = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const number = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const moment = (ms) => (ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "–");

async function ask(path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const options = { headers, cache: "no-store" };
  if (body) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["content-type"] = "application/json";
  }
  const answer = await fetch(path, options);
  const json = await answer.json().catch(() => null);
  if (answer.status === 401) signIn();
  if (json && json.code && json.message) {
    throw new Error(json.hint ? `${json.message} (${json.hint})` : json.message);
  }
  if (!answer.ok || !json) throw new Error(`the coordinator answered ${answer.status}`);
  return json;
}

function trouble(text) {
  by("trouble").hidden = !text;
  by("trouble").textContent = text || "";
}

const view = () => {
  const wanted = location.hash.slice(1);
  return VIEWS.includes(wanted) ? wanted : "overview";
};

function choose() {
  for (const name of VIEWS) {
    by(`view-${name}`).hidden = name !== view();
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// Replaces children only when something changed and none is being pressed; focus stays where it is.
function fill(parent, children) {
  const text = children.map((child) => child.outerHTML).join("");
  if (shown.get(parent) === text || parent.querySelector(":active")) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  shown.set(parent, text);
  parent.replaceChildren(...children);
  if (focused) parent.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function reason(found) {
  return make("li", { class: found.severity },
    make("p", {}, make("code", { class: found.severity }, `${found.severity} ${found.code}`), ` ${found.message}`),
    found.way_out ? make("p", { class: "quiet" }, `Way out: ${found.way_out}`) : null);
}

function service([name, part]) {
  const state = part && part.state ? part.state : "unknown";
  return make("span", {}, `${name} `, make("span", { class: `badge ${state.toLowerCase()}` }, state));
}

function remember(sink) {
  const delivered = sink.workers.reduce((sum, worker) => sum + worker.counters.delivered, 0);
  const workers = sink.workers.map((worker) => worker.id).sort().join(" ");
  const looks = paces.get(sink.sink_id) || [];
  looks.push({ at: status.at_ms, delivered, workers });
  if (looks.length > LOOKS) looks.shift();
  paces.set(sink.sink_id, looks);
}

// Records per second between each two looks of the same workers.
function rates(sink) {
  const looks = paces.get(sink.sink_id) || [];
  const rate = (look, before) => Math.max(0, ((look.delivered - before.delivered) * 1000) / (look.at - before.at));
  return looks.slice(1).map((look, at) => {
    const before = looks[at];
    return look.workers === before.workers && look.at > before.at ? rate(look, before) : 0;
  });
}

function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(1, ...values);
  const points = values.map((value, at) => `${at + LOOKS - values.length},${(30 - (28 * value) / most).toFixed(1)}`);
  svg.setAttribute("class", "pace");
  svg.setAttribute("viewBox", `0 0 ${LOOKS} 31`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `throughput of the last minutes, at most ${number(most)} records/s`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

function facts(sink) {
  const rate = rates(sink).at(-1);
  const rows = [
    ["Lag", `${number(sink.lag_records)} records · ${duration(sink.lag_seconds)}`],
    ["Delivers", rate === undefined ? "–" : `${number(rate)} records/s`],
    ["Caught up in", sink.lag_records === 0 ? "now" : duration(sink.catch_up_seconds)],
    ["Workers", sink.workers.map((worker) => `${worker.id} (${worker.version})`).join(", ") || "none"],
    ["Last flush", moment(sink.last_flush_ms)],
  ];
  if (sink.directive_reason) rows.push(["Reason", sink.directive_reason]);
  if (sink.last_error) rows.push(["Last error", sink.last_error.message]);
  return make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function card(sink) {
  const held = sink.directive !== "run";
  const act = held ? "Resume" : "Pause";
  const button = make("button", { type: "button", "data-key": `${act} ${sink.sink_id}`,
    "aria-label": `${act} sink ${sink.sink_id}`, onclick: () => command(act, sink.sink_id) }, act);
  const retry = !held && sink.holds.length
    ? make("button", { type: "button", "data-key": `Retry ${sink.sink_id}`,
      "aria-label": `Try again what sink ${sink.sink_id} holds`, onclick: () => command("Resume", sink.sink_id) }, "Try again")
    : null;
  return make("article", { class: "card", "aria-label": `Sink ${sink.sink_id}` },
    make("header", {}, make("h2", {}, sink.sink_id), make("span", { class: `badge ${sink.status}` }, sink.status.replace("_", " ")),
      sink.lag_level !== "ok" ? make("span", { class: `badge ${sink.lag_level}` }, `lag ${sink.lag_level}`) : null),
    facts(sink), sparkline(rates(sink)), make("p", { class: "buttons" }, retry, button));
}

function row(cells) {
  return make("tr", {}, ...cells.map((cell) => (cell instanceof Node ? cell : make("td", {}, cell ?? "–"))));
}

const count = (value) => make("td", { class: "number" }, number(value));

function partition(at) {
  const state = at.state || "unknown";
  return row([at.sink_id, at.topic, count(at.partition), make("td", {}, make("span", { class: `badge ${state}` }, state)),
    count(at.watermark), count(at.end), count(at.lag), count(at.queue_depth), at.worker]);
}

function showStatus() {
  by("pipeline").textContent = status.pipeline_id;
  by("verdict").textContent = status.verdict;
  by("verdict").className = `badge ${status.verdict}`;
  by("updated").textContent = `${moment(status.at_ms)}${status.coordinator.leader ? "" : " · this coordinator does not lead"}`;
  document.title = `${status.verdict} · ${status.pipeline_id}`;
  status.sinks.forEach(remember);
  fill(by("reasons"), status.reasons.map(reason));
  fill(by("services"), [["Connector", status.source.connector], ["Kafka", status.kafka], ["Registry", status.schema_registry],
    ["Connect", status.connect], ["Redis", status.redis]].map(service));
  fill(by("sinks"), status.sinks.map(card));
  const select = by("of-sink");
  const known = [...select.options].map((option) => option.value);
  for (const sink of status.sinks.filter((sink) => !known.includes(sink.sink_id))) {
    select.append(make("option", { value: sink.sink_id }, sink.sink_id));
  }
  const shown = status.partitions.filter((at) => !select.value || at.sink_id === select.value);
  fill(by("partition-rows"), shown.map(partition));
}

function change(verdict) {
  const versions = `${verdict.previous_version ?? verdict.previous} → ${verdict.this_version ?? verdict.this}`;
  const word = verdict.compatible ? "compatible" : verdict.accepted ? "accepted" : "incompatible";
  const tone = verdict.compatible || verdict.accepted ? "ok" : "critical";
  const topic = verdict.subject.replace(/-(key|value)$/, "");
  const accept = word === "incompatible"
    ? make("button", { type: "button", "data-key": `accept ${topic}`, onclick: () => accepts(topic) }, "Accept") : null;
  return row([moment(verdict.at_ms), verdict.subject, versions,
    make("td", {}, make("span", { class: `badge ${tone}` }, word), " ", accept),
    verdict.changes.map((field) => [field.field, field.effect, field.detail].filter(Boolean).join(" ").replaceAll("_", " ")).join("; ")]);
}

async function showSchemas() {
  const schemas = await ask("/v1/schemas");
  fill(by("schema-rows"), [...schemas.changes].reverse().map(change));
  fill(by("open-questions"), schemas.open.map((open) => make("p", { class: "degraded" },
    `${open.question.subject}: schema ${open.question.this} cannot be judged: ${open.reason}`)));
}

const place = (letter) => `${letter.topic}[${letter.partition}]@${letter.offset}`;

function letterRow(letter) {
  const error = `${letter.error_type}: ${letter.error_message}`;
  const open = make("button", { type: "button", "data-key": `show ${letter.sink} ${place(letter)}`,
    "aria-label": `Show ${place(letter)}`, onclick: () => showLetter(letter) }, "Show");
  return row([moment(letter.at_ms), letter.sink, place(letter), letter.key ? JSON.stringify(letter.key) : "–", error,
    make("td", {}, make("span", { class: `badge ${letter.state}` }, letter.state)), make("td", {}, open)]);
}

async function showLetters() {
  const query = new URLSearchParams({ limit: "200" });
  if (by("letter-state").value) query.set("state", by("letter-state").value);
  if (by("letter-error").value) query.set("error_type", by("letter-error").value);
  const found = await ask(`/v1/dlq?${query}`);
  const counts = found.counts.map((of) => `${of.sink} ${of.error_type}: ${of.open} open, ${of.replayed} replayed, ` +
    `${of.superseded} superseded, ${of.dropped} dropped`);
  if (found.left_off) counts.push(`${found.left_off} more are not shown`);
  by("letter-counts").textContent = counts.join(" · ") || "No dead letters";
  fill(by("letter-rows"), found.letters.map(letterRow));
}

const datum = (of) => (of.json !== undefined ? JSON.stringify(of.json, null, 2) : of.hex ? `${of.error}\n${of.hex}` : "none");

async function showLetter(letter) {
  try {
    const at = [letter.sink, letter.topic, letter.partition, letter.offset].map(encodeURIComponent).join("/");
    const whole = await ask(`/v1/dlq/${at}`);
    by("letter-title").textContent = place(whole);
    by("letter-message").textContent = `${whole.error_type}: ${whole.error_message}`;
    by("letter-key").textContent = datum(whole.key_datum);
    by("letter-value").textContent = datum(whole.value_datum);
    by("letter-headers").replaceChildren(...whole.headers.flatMap((header) => [make("dt", {}, header.name), make("dd", {}, header.value)]));
    by("letter-replay").hidden = by("letter-drop").hidden = whole.state !== "open";
    const dialog = by("letter");
    dialog.returnValue = "cancel";
    dialog.showModal();
    dialog.addEventListener("close", () => settle(whole, dialog.returnValue), { once: true });
  } catch (error) {
    trouble(error.message);
  }
}

async function settle(letter, how) {
  const filter = { sink: letter.sink, topic: letter.topic, partition: letter.partition, offset: letter.offset };
  if (how === "replay") {
    const reason = await confirmed(`Replay ${place(letter)}?`, "It goes to the sink again, in the order of its key; never over something newer.", false);
    if (reason !== null) await give({ type: "replay", filter, dry_run: false, rate: null });
  } else if (how === "drop") {
    const reason = await confirmed(`Drop ${place(letter)}?`, "It is given up. The letter stays in its topic.", true);
    if (reason !== null) await give({ type: "drop_letters", filter, reason });
  }
}

async function showAudit() {
  const trail = await ask("/v1/audit");
  fill(by("audit-rows"), trail.entries.map((entry) => row([moment(entry.at_ms), entry.by, entry.action])));
}

// Asks a person, and gives the reason, or null.
function confirmed(title, text, wantsReason) {
  by("confirm-title").textContent = title;
  by("confirm-text").textContent = text;
  by("reason-field").hidden = !wantsReason;
  by("reason").value = "";
  const dialog = by("confirm");
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "do" ? by("reason").value : null), { once: true });
  });
}

async function give(order) {
  try {
    await ask("/v1/commands", { by: "console", command: order });
    trouble("");
    await look();
  } catch (error) {
    trouble(error.message);
  }
}

async function command(act, sink) {
  const text = act === "Pause"
    ? "Its workers hold what they have and keep their partitions. Other sinks go on. It goes on where it stopped."
    : "It goes on where it stopped; what was stopped by name is tried again.";
  const reason = await confirmed(`${act} ${sink}?`, text, act === "Pause");
  if (reason === null) return;
  await give(act === "Pause" ? { type: "pause", sink, topic: null, reason } : { type: "resume", sink, topic: null });
}

async function accepts(topic) {
  const reason = await confirmed(`Accept the schema of ${topic}?`, "What is held by its incompatible changes goes on.", true);
  if (reason !== null) await give({ type: "accept_schema", topic, id: null, reason });
}

function signIn() {
  const dialog = by("token-dialog");
  if (dialog.open) return;
  by("token").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
}

async function look() {
  try {
    status = await ask("/v1/status");
    showStatus();
    if (view() === "schemas") await showSchemas();
    if (view() === "letters") await showLetters();
    if (view() === "audit") await showAudit();
    trouble("");
  } catch (error) {
    trouble(`Nothing new: ${error.message}`);
  }
}

async function again() {
  if (!document.hidden) await look();
  setTimeout(again, EVERY_MS);
}

by("sign-in").addEventListener("click", signIn);
by("token-dialog").addEventListener("close", () => {
  if (by("token-dialog").returnValue === "do") sessionStorage.setItem("token", by("token").value);
  look();
});
by("letter-filter").addEventListener("submit", (event) => { event.preventDefault(); look(); });
by("of-sink").addEventListener("change", () => status && showStatus());
addEventListener("hashchange", () => { choose(); look(); });
choose();
again();
