// Figures, times and names as people read them. Nothing is more precise than it is worth.

export const NONE = "–";

// Requests in a second: `12.3/s`.
export function rate(value) {
  return value === null || value === undefined ? NONE : `${short(value)}/s`;
}

// `99.8%`. What is almost all or almost none isn't rounded to all or none.
export function percent(value) {
  if (value === null || value === undefined) return NONE;
  if (value > 99.9 && value < 100) return "> 99.9%";
  if (value > 0 && value < 0.1) return "< 0.1%";
  return `${Number.isInteger(value) ? value : value.toFixed(1)}%`;
}

// Milliseconds: `0.8 ms`, `1.2 s`.
export function duration(value) {
  if (value === null || value === undefined) return NONE;
  return value < 1000 ? `${short(value)} ms` : `${short(value / 1000)} s`;
}

// Three figures at most.
export function short(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(value < 1 ? 2 : 3)));
}

// A span of time as kubectl prints it: `4s`, `12m`, `3h5m`, `2d4h`.
export function age(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const units = [["d", 86400, 3600, "h"], ["h", 3600, 60, "m"], ["m", 60, 1, "s"]];
  for (const [name, unit, smaller, smallerName] of units) {
    if (seconds < unit) continue;
    const rest = Math.floor((seconds % unit) / smaller);
    const whole = `${Math.floor(seconds / unit)}${name}`;
    return rest === 0 || (name === "m" && seconds >= 600) ? whole : `${whole}${rest}${smallerName}`;
  }
  return `${seconds}s`;
}

// `3m old, 23h57m left`, and how that is meant.
export function certificate(certificate, now) {
  if (!certificate) return { text: "none yet", tone: "bad" };
  const [issued, expires] = [Date.parse(certificate.issued), Date.parse(certificate.expires)];
  if (expires <= now) return { text: `expired ${age(now - expires)} ago`, tone: "bad" };
  return { text: `${age(now - issued)} old, ${age(expires - now)} left`, tone: "plain" };
}

// Whether a sidecar has the newest tables, and how that is meant.
export function tables(tables) {
  const { subscribed, behind, refused, controller_away: away } = tables;
  if (refused.length > 0) return { text: `${refused.length} of ${subscribed} refused`, tone: "bad" };
  if (behind.length > 0) return { text: `${behind.length} of ${subscribed} behind`, tone: "doubtful" };
  if (away) return { text: `last known (${subscribed})`, tone: "doubtful" };
  if (subscribed === 0) return { text: "none yet", tone: "bad" };
  return { text: `newest (${subscribed})`, tone: "good" };
}

// `web-v1:80` for `service/shop/web-v1:80` beside something of `shop`; other namespaces and kinds stay visible.
export function backend(id, namespace) {
  if (id === "") return "answered by the sidecar itself";
  const name = id.startsWith("service/") ? id.slice("service/".length) : id;
  return name.startsWith(`${namespace}/`) ? name.slice(namespace.length + 1) : name;
}

// The address of a page: every part of it is a name, whatever is in it.
export const address = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;
