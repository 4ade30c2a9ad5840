"use strict";
// Without this script a page is complete: it only sorts, searches, folds and explains.
const SHOWN = 40, FEW = 12;

function make(tag, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function valueOf(cell) {
  const text = cell.dataset.v ?? cell.textContent.trim();
  const number = text === "" ? NaN : Number(text.replace(/[,\u00a0%×x]/g, "").split("±")[0].trim());
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
}

function sortBy(table, column, head) {
  const down = head.getAttribute("aria-sort") === "descending" ? false
    : head.getAttribute("aria-sort") === "ascending" ? true : head.classList.contains("n");
  const rows = [...table.tBodies[0].rows].map(row => [valueOf(row.cells[column]), row]);
  const empty = value => value === "" ? 1 : 0;
  rows.sort(([a], [b]) => empty(a) - empty(b) || (down ? compare(b, a) : compare(a, b)));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function enhance(table) {
  const rows = () => [...table.tBodies[0].rows], count = rows().length;
  const update = [];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (count < 2 || !head.textContent) return;
    const button = make("button", head.textContent);
    button.type = "button";
    button.onclick = () => { sortBy(table, column, head); update.forEach(run => run()); };
    head.replaceChildren(button);
  });
  if (count <= FEW) return;
  const tools = make("div", "", "tools"), label = make("label", "search "), input = make("input");
  const found = make("span"), more = make("button", "", "plain");
  const texts = new Map();
  const textOf = row => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  };
  let all = count <= SHOWN;
  input.type = "search";
  found.setAttribute("role", "status");
  more.type = "button";
  more.onclick = () => { all = true; show(); };
  function show() {
    const part = input.value.trim().toLowerCase();
    let hits = 0;
    for (const row of rows()) {
      const hit = !part || textOf(row).includes(part);
      row.hidden = !hit || (!all && hits >= SHOWN);
      hits += hit;
    }
    const shown = all ? hits : Math.min(hits, SHOWN);
    found.textContent = `${shown.toLocaleString("en")} of ${count.toLocaleString("en")} shown`;
    more.textContent = `show all ${hits.toLocaleString("en")}`;
    more.hidden = shown === hits;
  }
  input.oninput = show;
  update.push(show);
  label.append(input);
  tools.append(label, found, more);
  table.closest(".wide").before(tools);
  show();
}

function explain() {
  const tip = make("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const hide = () => { tip.hidden = true; light(null); };
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + 14 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 8 : y + 14}px`;
  };
  const light = name => {
    for (const map of document.querySelectorAll(".plot.map")) {
      map.classList.toggle("some", name !== null);
      for (const group of map.querySelectorAll("g[data-cluster]"))
        group.classList.toggle("hit", group.dataset.cluster === name);
    }
  };
  const over = event => {
    const target = event.target.closest("[data-tip]"), of = event.target.closest("[data-cluster]");
    if (target) show(target, event.clientX ?? 0, event.clientY ?? 0); else tip.hidden = true;
    light(of ? of.dataset.cluster : null);
  };
  document.addEventListener("pointermove", over);
  document.addEventListener("pointerleave", hide);
  document.addEventListener("focusin", event => {
    const target = event.target.closest("[data-tip]");
    if (!target) return hide();
    const box = target.getBoundingClientRect();
    show(target, box.left, box.bottom);
    light(target.closest("[data-cluster]")?.dataset.cluster ?? null);
  });
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
}

function themes() {
  const nav = document.querySelector("nav"), root = document.documentElement;
  if (!nav) return;
  const button = make("button", "◐", "plain");
  button.type = "button";
  button.setAttribute("aria-label", "light or dark");
  button.onclick = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
  nav.append(button);
}

document.querySelectorAll("table.data").forEach(enhance);
explain();
themes();
