// Elements made of plain descriptions, and brought up to date in place, so that focus, selection and scrolling stay as they are
// when the figures change. This is the only place that makes elements; text becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

// An element: `h("td", {class: "number"}, "12")`. Children are texts, numbers, elements, lists of them, or null for none.
// `key` names an element among its siblings, `on` has its event handlers.
export function h(tag, attributes, ...children) {
  const { key, on, ...rest } = attributes ?? {};
  const some = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== "");
  return { tag, key, on, attributes: rest, children: some };
}

// Makes the children of `parent` what is described.
export function render(parent, ...children) {
  const focused = document.activeElement;
  patch(parent, h("", {}, ...children).children, false);
  // An element that was moved has lost the focus on the way.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function patch(parent, children, svg) {
  const keyed = new Map();
  for (const node of parent.childNodes) {
    if (node.key !== undefined) keyed.set(node.key, node);
  }
  let place = parent.firstChild;
  for (const child of children) {
    const node = existing(child, place, keyed) ?? create(child, svg);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    update(node, child, svg);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// The node that a description is about, if there is one already.
function existing(child, place, keyed) {
  if (isText(child)) return place?.nodeType === Node.TEXT_NODE ? place : null;
  const node = child.key === undefined ? place : keyed.get(child.key);
  const same = node?.nodeType === Node.ELEMENT_NODE && node.localName === child.tag && node.key === child.key;
  return same ? node : null;
}

function create(child, svg) {
  if (isText(child)) return document.createTextNode("");
  const node = svg || child.tag === "svg" ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  if (child.key !== undefined) node.key = child.key;
  return node;
}

function update(node, child, svg) {
  if (isText(child)) {
    if (node.data !== String(child)) node.data = String(child);
    return;
  }
  for (const { name } of [...node.attributes]) {
    if (!present(child.attributes[name])) node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(child.attributes)) {
    if (present(value) && node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  for (const [event, handler] of Object.entries(child.on ?? {})) node[`on${event}`] = handler;
  patch(node, child.children, svg || child.tag === "svg");
}

const isText = (child) => typeof child !== "object";
const present = (value) => value !== undefined && value !== null && value !== false;
