// A page that is written again while jobs run: it loads itself again, and keeps filters and places.
const KEPT = `modgpt ${location.pathname}`;

// What the reader has set, by names that a later page has as well.
const controls = () => [...document.querySelectorAll("select[id], input[type=search]")].map((control) => [control.id || control.getAttribute("aria-label"), control]);
const boxes = () => [...document.querySelectorAll("fieldset[data-factor] input")].map((box) => [`${box.closest("fieldset").dataset.factor}=${box.value}`, box]);
const folds = () => [...document.querySelectorAll("details")].map((fold) => [fold.className || fold.querySelector("summary").textContent, fold]);
const sorted = () => [...document.querySelectorAll("table.sorted")].map((table) => [table.dataset.name, table.querySelector("th[aria-sort]")]);
const scrolled = () => [...document.querySelectorAll(".scroll")].map((part) => [part.getAttribute("aria-label"), part]);

function keep() {
  const of = (pairs, read) => Object.fromEntries(pairs.map(([name, found]) => [name, read(found)]));
  const state = {
    controls: of(controls(), (control) => control.value),
    boxes: of(boxes(), (box) => box.checked),
    folds: of(folds(), (fold) => fold.open),
    sorted: of(sorted(), (header) => [header.textContent, header.getAttribute("aria-sort") === "ascending"]),
    scrolled: of(scrolled(), (part) => [part.scrollLeft, part.scrollTop]),
    place: [scrollX, scrollY],
  };
  sessionStorage.setItem(KEPT, JSON.stringify(state));
}

function kept() {
  try {
    const state = JSON.parse(sessionStorage.getItem(KEPT));
    sessionStorage.removeItem(KEPT);
    return state;
  } catch {
    return null; // a browser may refuse storage to pages from files
  }
}

// Before the plots are drawn; the places come after it, when the page has its height.
function restore(state) {
  const set = (pairs, values, write) => pairs.forEach(([name, found]) => name in values && write(found, values[name]));
  set(controls(), state.controls, (control, value) => {
    if (control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value)) control.value = value;
    const table = control.closest(".bar")?.nextElementSibling.querySelector("table");
    if (table) filterRows(table, value);
  });
  set(boxes(), state.boxes, (box, checked) => { box.checked = checked; });
  set(folds(), state.folds, (fold, open) => { fold.open = open; });
  for (const table of document.querySelectorAll("table.data")) {
    const [label, up] = state.sorted[table.dataset.name] ?? [];
    const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === label);
    if (header) sort(table, header.cellIndex, up);
  }
}
function restorePlaces(state) {
  const places = Object.entries(state.scrolled);
  for (const [name, part] of scrolled()) {
    const [left, top] = places.find(([kept]) => kept === name)?.[1] ?? [0, 0];
    part.scrollTo(left, top);
  }
  scrollTo(...state.place);
}

// Loads the page again, as long as somebody still writes it.
function refreshing() {
  const live = $("live");
  if (!live || !data.refresh) return;
  const say = (text) => { live.querySelector("span").textContent = ` ${text}`; };
  const wait = Math.max(5, data.refresh) * 1000, age = Date.now() - data.made * 1000;
  if (age > 5 * wait + 60000) return say("Nothing has written this page for a while: run modgpt compare --watch again.");
  say(`This page loads itself again every ${Math.round(wait / 1000)} s.`);
  setTimeout(function again() {
    if (document.hidden || document.activeElement?.type === "search") return setTimeout(again, 2000);
    try { keep(); } catch { /* then the page begins at its head */ }
    location.reload();
  }, wait);
}
