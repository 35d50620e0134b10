// What each page shows, as descriptions of elements made from its document (documents.rs).

import { h } from "./render.js";
import { plot, trend } from "./plot.js";
import * as words from "./words.js";

// A page by the parts of its address: what is asked for, its title, and how it is shown.
export function view(path) {
  const [what, ...name] = path;
  if (path.length === 0) return { document: "services", title: "Services", show: services };
  if (path.length === 1) return { document: what, title: what === "routes" ? "Routes" : "Pods", show: what === "routes" ? routes : pods };
  const show = { services: service, routes: route, pods: pod }[what];
  return { document: path.map(encodeURIComponent).join("/"), title: name.join("/"), show };
}

// How a table is sorted, by its name: what its user has chosen lasts as long as the page is open.
const sorting = new Map();

// Columns have a name, a cell, maybe a value to sort by (numbers and times are shown to the right).
function table(name, columns, rows, { key, empty, search, sorted }) {
  const chosen = sorting.get(name);
  const by = columns.find((column) => column.name === chosen?.column);
  let shown = rows.filter((row) => !search || row.text.toLowerCase().includes(search));
  if (by) shown = [...shown].sort((a, b) => compare(by.value(a), by.value(b)) * (chosen.down ? -1 : 1));
  if (shown.length === 0) return h("p", { class: "faint" }, rows.length === 0 ? empty : "nothing that contains this");
  const head = (column) => {
    const direction = chosen?.column !== column.name ? null : chosen.down ? "descending" : "ascending";
    const arrow = { ascending: " ↑", descending: " ↓" }[direction] ?? "";
    const sort = () => {
      sorting.set(name, { column: column.name, down: direction === null ? column.number === true : direction === "ascending" });
      sorted();
    };
    const label = column.value && sorted ? h("button", { type: "button", on: { click: sort } }, column.name, arrow) : column.name;
    return h("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": direction }, label);
  };
  const cell = (column, row) => h("td", { class: column.number ? "number" : column.long ? "long" : null }, column.cell(row));
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(head))),
    h("tbody", {}, shown.map((row) => h("tr", { key: key(row) }, columns.map((column) => cell(column, row)))))));
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  return (a ?? -1) - (b ?? -1);
}

const toned = (text, tone) => h("span", { class: tone === "plain" ? null : tone }, text);
const success = (figures) => toned(words.percent(figures.success), figures.success !== null && figures.success < 99 ? "bad" : "plain");

// The columns that everything with figures has.
const figureColumns = [
  { name: "Rate", number: true, cell: (row) => words.rate(row.figures.rate), value: (row) => row.figures.rate },
  { name: "Success", number: true, cell: (row) => success(row.figures), value: (row) => row.figures.success ?? 101 },
  { name: "p50", number: true, cell: (row) => words.duration(row.figures.p50), value: (row) => row.figures.p50 },
  { name: "p99", number: true, cell: (row) => words.duration(row.figures.p99), value: (row) => row.figures.p99 },
];

function bigFigures(figures) {
  const one = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h("dl", { class: "figures" },
    one("requests", words.rate(figures.rate)), one("success", success(figures)),
    one("failed", words.rate(figures.failed)),
    one("half within", words.duration(figures.p50)), one("99 of 100 within", words.duration(figures.p99)));
}

const serviceLink = (name) => h("a", { href: words.address("services", ...name.split("/")) }, name);
const podLink = (name) => h("a", { href: words.address("pods", ...name.split("/")) }, name);
const routeLink = (row) => h("a", { href: words.address("routes", row.kind, row.namespace, row.name) }, `${row.namespace}/${row.name}`);

function services(document, options) {
  const rows = document.page.map((row) => ({ ...row, text: row.name }));
  const columns = [
    { name: "Service", cell: (row) => serviceLink(row.name), value: (row) => row.name },
    ...figureColumns,
    { name: "As a backend", number: true, cell: (row) => asBackend(row.received), value: (row) => row.received.rate },
    { name: "Last two minutes", cell: (row) => trend(row.trend) },
    { name: "Routes", number: true, cell: (row) => row.routes, value: (row) => row.routes },
  ];
  return [
    h("h1", {}, "Services"),
    h("p", { class: "faint" }, `What sidecars were asked to send to each Service in the last ${document.window} seconds, and what each got as a backend.`),
    table("services", columns, rows, { key: (row) => row.name, empty: "There are no Services yet.", ...options }),
  ];
}

// What a Service got, whatever was asked for: a canary's own success.
const asBackend = (received) => (received.rate ? [words.rate(received.rate), ", ", success(received)] : words.NONE);

function service(document) {
  const { name, figures, received, points, routes: attached, sent, callers } = document.page;
  const curve = (label, tone, of, text) => ({ label, tone, text, points: points.map((point) => [point.time, of(point.figures)]) });
  return [
    h("h1", {}, `Service ${name}`),
    bigFigures(figures),
    received.rate ? h("p", {}, "As a backend: ", asBackend(received), `, half within ${words.duration(received.p50)}, 99 of 100 within ${words.duration(received.p99)}`) : null,
    h("h2", {}, "Requests in a second"),
    plot({ label: "requests in a second, over time", unit: words.short, curves: [
      curve("requests", "s0", (f) => f.rate, words.rate(figures.rate)),
      curve("failed", "sbad", (f) => f.failed, words.rate(figures.failed)),
    ] }),
    h("h2", {}, "Latency"),
    plot({ label: "latency over time", unit: words.duration, curves: [
      curve("half within", "s0", (f) => f.p50, words.duration(figures.p50)),
      curve("99 of 100 within", "s1", (f) => f.p99, words.duration(figures.p99)),
    ] }),
    h("h2", {}, "Routes"),
    routeTable(attached, {}),
    h("h2", {}, "Where requests went"),
    sentTable(sent, name.split("/")[0]),
    h("h2", {}, "Who called"),
    table("callers", [{ name: "Pod", cell: (row) => podLink(row.pod) }, ...figureColumns], callers,
      { key: (row) => row.pod, empty: "Nobody did lately." }),
  ];
}

function sentTable(sent, namespace) {
  const route = (row) => {
    if (row.route === "") return h("span", { class: "faint" }, "no route");
    const [kind, ...name] = row.route.split("/");
    const spelt = { httproute: "HTTPRoute", grpcroute: "GRPCRoute", tlsroute: "TLSRoute", tcproute: "TCPRoute" }[kind] ?? kind;
    return h("a", { href: words.address("routes", spelt, ...name) }, name.join("/"));
  };
  const columns = [
    { name: "Asked for", cell: (row) => row.parent },
    { name: "Route", cell: route },
    { name: "Rule", long: true, cell: (row) => row.rule },
    { name: "Backend", cell: (row) => words.backend(row.backend, namespace) },
    ...figureColumns,
  ];
  const key = (row) => [row.parent, row.route, row.rule, row.backend].join(" ");
  return table("sent", columns, sent, { key, empty: "Nowhere lately." });
}

function routeTable(rows, options) {
  const conditions = (row) => row.parents.flatMap((parent) => parent.conditions).map((condition) =>
    h("div", { class: condition.tone }, `${condition.type}=${condition.status}`));
  const on = (row) => row.parents.map((parent) => h("div", {}, serviceLink(parent.service), parent.role === "consumer" ? " (consumer)" : ""));
  const columns = [
    { name: "Kind", cell: (row) => row.kind, value: (row) => row.kind },
    { name: "Route", cell: routeLink, value: (row) => `${row.namespace}/${row.name}` },
    { name: "Attached to", cell: (row) => [row.parents.length > 0 ? on(row) : null, unattached(row)] },
    { name: "Conditions", cell: (row) => (row.parents.length > 0 && conditions(row).length === 0 ? toned("none yet", "doubtful") : conditions(row)) },
    ...figureColumns,
  ];
  const texts = rows.map((row) => ({ ...row, text: `${row.kind} ${row.namespace}/${row.name} ${row.parents.map((p) => p.reference).join(" ")}` }));
  const key = (row) => `${row.kind} ${row.namespace}/${row.name}`;
  return table("routes", columns, texts, { key, empty: "There are no routes.", ...options });
}

// A route that misses its Service looks as if it were attached, to whoever wrote it.
function unattached(row) {
  if (row.missed.length > 0) return h("div", { class: "bad" }, "misses its Service");
  return row.parents.length > 0 ? null : toned("nothing of the mesh", "doubtful");
}

function routes(document, options) {
  return [
    h("h1", {}, "Routes"),
    h("p", { class: "faint" }, `Rates are of the last ${document.window} seconds.`),
    routeTable(document.page, options),
  ];
}

function route(document) {
  const { kind, namespace, name, parents, missed, unmatched, figures, rules, extensions } = document.page;
  return [
    h("h1", {}, `${kind} ${namespace}/${name}`),
    bigFigures(figures),
    h("h2", {}, "Conditions"),
    missed.map((text) => h("p", { class: "bad" }, `Attached to nothing of the mesh: ${text}`)),
    parents.length + missed.length === 0 ? h("p", { class: "doubtful" }, "Attached to nothing of the mesh: no parentRef is a Service.") : null,
    parents.map((parent) => conditionsOf(parent, namespace)),
    unmatched > 0 ? h("p", { class: "bad" }, `No rule matched ${unmatched.toLocaleString("en")} requests for its Services since the sidecars started: sidecars answered them 404, or 400.`) : null,
    rules.map((rule) => rulePart(rule, namespace, document.window)),
    extensions.map((extension) => [
      h("h2", {}, `${extension.kind} ${extension.name}`),
      h("ul", {}, extension.settings.map((text) => h("li", {}, text)), extension.conditions.map(condition)),
    ]),
  ];
}

function conditionsOf(parent, namespace) {
  const clients = parent.role === "consumer" ? `for clients of namespace ${namespace}` : "for clients of every namespace";
  return [
    h("p", {}, "On ", serviceLink(parent.service), `, ${clients}:`),
    h("ul", {}, parent.conditions.length === 0 ? h("li", { class: "doubtful" }, "no conditions yet") : parent.conditions.map(condition)),
  ];
}

function condition(condition) {
  return h("li", {}, toned(`${condition.type}=${condition.status}`, condition.tone), ` ${condition.reason}: ${condition.message}`);
}

function rulePart(rule, namespace, window) {
  const rows = rule.backends.map((backend, place) => ({ ...backend, figures: rule.figures[place] }));
  // What sidecars answered themselves stands below the backends, as it does in `gamut routes`.
  if (rule.own.requests > 0) rows[rule.backends.length] = { id: "", weight: words.NONE, share: null, figures: rule.own_figures, ...rule.own };
  const lately = rule.points.at(-1)?.got;
  const columns = [
    { name: "Backend", cell: (row) => words.backend(row.id, namespace) },
    { name: "Weight", number: true, cell: (row) => row.weight },
    { name: "Set", number: true, cell: (row) => words.percent(row.share) },
    { name: "Got, last 10 s", number: true, cell: (row) => words.percent(lately?.[rows.indexOf(row)]) },
    { name: "Got in all", number: true, cell: (row) => words.percent(row.got) },
    { name: "Requests in all", number: true, cell: (row) => row.requests.toLocaleString("en") },
    { name: "Failed in all", number: true, cell: (row) => toned(row.failed.toLocaleString("en"), row.failed > 0 ? "bad" : "plain") },
    ...figureColumns,
  ];
  const matches = rule.matches.length > 0 ? rule.matches : ["every request"];
  return h("section", { key: `rule ${rule.name}` },
    h("h2", {}, `Rule ${rule.name}`),
    h("ul", {}, matches.map((text) => h("li", {}, h("code", {}, text))),
      [...rule.settings, ...rule.sessions_text].map((text) => h("li", { class: "faint" }, text))),
    rule.dropped ? h("p", { class: "bad" }, rule.dropped === "500" ? "Its requests are answered 500: the conditions say why." : "Not in force: the conditions say why.") : null,
    table(`backends of ${rule.name}`, columns, rows, { key: (row) => row.id, empty: "No backends: the rule answers by itself." }),
    rule.backends.length > 0 ? split(rule, namespace) : null,
    rule.outcomes ? outcomes(rule.outcomes) : null);
}

// Dashed as it was set, solid as it turned out.
function split(rule, namespace) {
  const tone = (place) => `s${place % 5}`;
  const name = (backend) => words.backend(backend.id, namespace);
  const lately = rule.points.at(-1)?.got;
  const got = rule.backends.map((backend, place) => ({
    label: `${name(backend)} got`, tone: tone(place), text: words.percent(lately?.[place]),
    points: rule.points.map((point) => [point.time, point.got?.[place]]),
  }));
  const set = rule.backends.map((backend, place) => ({
    label: `${name(backend)} set`, tone: tone(place), set: true, text: words.percent(backend.share),
    points: rule.points.map((point) => [point.time, point.set[place]]),
  }));
  const place = rule.backends.length;
  const own = rule.own.failed === 0 ? [] : [{
    label: "answered by sidecars with errors", tone: "sbad", text: words.percent(lately?.[place]),
    points: rule.points.map((point) => [point.time, point.got?.[place]]),
  }];
  return plot({ label: `the split of rule ${rule.name} over time`, unit: words.percent, most: 100, curves: [...set, ...got, ...own] });
}

function outcomes(outcomes) {
  const counts = Object.entries(outcomes).map(([name, count]) => `${name} ${count.toLocaleString("en")}`);
  return h("p", {}, `Sessions since the sidecars started: ${counts.join(", ")}.`);
}

function pods(document, options) {
  const rows = document.page.map((pod) => ({ ...pod, id: `${pod.namespace}/${pod.name}`, text: `${pod.namespace}/${pod.name} ${pod.ips.join(" ")} ${pod.sidecar?.known?.identity ?? ""}` }));
  const known = (row, show) => (row.sidecar?.known ? show(row.sidecar.known) : null);
  const identity = (row) => {
    if (!row.sidecar) return toned("not in the mesh", "faint");
    return row.sidecar.known ? row.sidecar.known.identity : toned(row.sidecar.silent, "bad");
  };
  const columns = [
    { name: "Pod", cell: (row) => podLink(row.id), value: (row) => row.id },
    { name: "Ready", cell: ready, value: (row) => String(row.ready) },
    { name: "Restarts", number: true, cell: (row) => toned(row.restarts, row.restarts > 0 ? "doubtful" : "plain"), value: (row) => row.restarts },
    { name: "Identity", long: true, cell: identity },
    { name: "Certificate", cell: (row) => known(row, (sidecar) => spoken(words.certificate(sidecar.certificate, document.now))) },
    { name: "Tables", cell: (row) => known(row, (sidecar) => spoken(words.tables(sidecar.tables))) },
  ];
  return [h("h1", {}, "Pods"), table("pods", columns, rows, { key: (row) => row.id, empty: "There are no pods yet.", ...options })];
}

const spoken = ({ text, tone }) => toned(text, tone);
const ready = (pod) => (pod.phase === "Running" ? toned(pod.ready ? "yes" : "no", pod.ready ? "good" : "doubtful") : toned(pod.phase, "doubtful"));

function pod(document) {
  const { namespace, name, sidecar, workload, ips, containers, proxy, sent } = document.page;
  const fact = (what, value) => (value === null || value === undefined || value === "" ? null : [h("dt", {}, what), h("dd", {}, value)]);
  const known = sidecar?.known;
  return [
    h("h1", {}, `Pod ${namespace}/${name}`),
    h("dl", { class: "facts" },
      fact("ready", ready(document.page)),
      fact("workload", workload),
      fact("addresses", ips.join(", ")),
      fact("sidecar", sidecar ? sidecar.silent && toned(sidecar.silent, "bad") : toned("none: not in the mesh", "faint")),
      fact("identity", known?.identity),
      known ? fact("certificate", spoken(words.certificate(known.certificate, document.now))) : null,
      fact("serial number", proxy?.certificate?.serial),
      fact("renewal", known?.renewal_error && toned(known.renewal_error, "bad")),
      known ? fact("tables", spoken(words.tables(known.tables))) : null,
      fact("controller", known?.tables.controller_away && toned(known.tables.controller_away, "doubtful")),
      proxy ? fact("connections of the app", connections(proxy.outbound)) : null,
      proxy ? fact("connections to the app", connections(proxy.inbound)) : null),
    h("h2", {}, "Containers"),
    table("containers", [
      { name: "Container", cell: (row) => row.name },
      { name: "Role", cell: (row) => row.role },
      { name: "State", long: true, cell: (row) => row.state },
      { name: "Restarts", number: true, cell: (row) => row.restarts },
    ], containers, { key: (row) => row.name, empty: "None." }),
    proxy ? [
      h("h2", {}, "What it called"),
      sentTable(sent, namespace),
      h("h2", {}, "Backends"),
      table("endpoints", endpointColumns, proxy.endpoints, { key: (row) => row.backend, empty: "It has called nobody yet." }),
      h("h2", {}, "Tables"),
      table("tables", tableColumns, proxy.tables, { key: (row) => row.key, empty: "None yet." }),
    ] : null,
  ];
}

const connections = ({ open, opened }) => `${open.toLocaleString("en")} open, ${opened.toLocaleString("en")} since the sidecar started`;

const endpointColumns = [
  { name: "Backend", cell: (row) => row.backend },
  { name: "In flight", number: true, cell: (row) => row.inFlight },
  { name: "Connecting", number: true, cell: (row) => row.connecting },
  { name: "Turned away", number: true, cell: (row) => row.shed },
  { name: "Ejected now", long: true, cell: (row) => row.ejected.map((one) => h("div", { class: "bad" }, `${one.pod ?? ""} ${one.address}, for ${words.duration(one.millisecondsLeft)}`)) },
];

const tableColumns = [
  { name: "Table", long: true, cell: (row) => row.key },
  { name: "Version", cell: (row) => h("code", {}, row.version ?? words.NONE) },
  { name: "Held for", number: true, cell: (row) => words.age(row.ageSeconds * 1000) },
  { name: "State", long: true, cell: (row) => tableState(row.state) },
];

function tableState({ state, missing, reason }) {
  if (state === "active") return toned("in force", "good");
  return state === "pending" ? toned(`waits for ${missing.join(", ")}`, "doubtful") : toned(`refused: ${reason}`, "bad");
}
