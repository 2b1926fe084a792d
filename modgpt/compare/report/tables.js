// Every table of the class `data` sorts by its headings, filters by words, and downloads as CSV.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
let visible = data.runs; // the jobs that pass the filter
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function download(name, content, type) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
const fileName = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "table";

// The value of a cell: a number where the column has numbers, null for an empty one.
function value(cell, numeric) {
  const text = cell.dataset.v ?? cell.textContent.trim();
  if (cell.textContent.trim() === "" || text === "") return null;
  if (!numeric) return text;
  const number = parseFloat(text.replace(/[,<\s]/g, ""));
  return Number.isNaN(number) ? null : number;
}

// Rows without a value come last in both directions.
function sort(table, column, up) {
  const header = table.tHead.rows[0].cells[column], numeric = header.classList.contains("number");
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.classList.add("sorted");
  const body = table.tBodies[0];
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const keyed = [...body.rows].map((row) => ({ row, key: value(row.cells[column], numeric) }));
  keyed.sort((a, b) => (a.key === null) - (b.key === null) || (a.key === null ? 0 : (up ? 1 : -1) * compare(a.key, b.key)));
  body.append(...keyed.map(({ row }) => row));
}

const wordsOf = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
function filterRows(table, text) {
  const words = wordsOf(text);
  for (const row of table.tBodies[0].rows) {
    const content = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => content.includes(word));
  }
}

// The rows that are shown, in their order. No cell is a formula to a spreadsheet.
function csv(table) {
  const wanted = [...table.tHead.rows[0].cells].flatMap((cell, i) => ("skip" in cell.dataset ? [] : [i]));
  const harmless = (text) => (/^[=+\-@\t\r\n]/.test(text) && !NUMBER.test(text) ? `'${text}` : text);
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const content = (cell) => {
    const shown = cell.textContent.trim().replace(/\s+/g, " ");
    return shown === "" ? "" : cell.dataset.v ?? shown;
  };
  const rows = [table.tHead.rows[0], ...[...table.tBodies[0].rows].filter((row) => !row.hidden)];
  return rows.map((row) => wanted.map((i) => quoted(harmless(content(row.cells[i])))).join(",") + "\r\n").join("");
}

function prepare(table) {
  const name = table.dataset.name;
  const bar = element("div", { className: "bar" });
  if (!("shared" in table.dataset)) {
    const box = element("input", { type: "search", placeholder: "filter", autocomplete: "off" });
    box.setAttribute("aria-label", `Filter: ${name}`);
    box.addEventListener("input", () => filterRows(table, box.value));
    bar.append(box);
  }
  const save = element("button", { type: "button", textContent: "CSV" });
  save.setAttribute("aria-label", `Download as CSV: ${name}`);
  save.addEventListener("click", () => download(`${fileName(name)}.csv`, csv(table), "text/csv"));
  bar.append(save);
  table.closest(".scroll").before(bar);
  for (const header of table.tHead.rows[0].cells) {
    if ("skip" in header.dataset) continue;
    const button = element("button", { type: "button" }, ...header.childNodes);
    button.addEventListener("click", () => sort(table, header.cellIndex, header.getAttribute("aria-sort") !== "ascending"));
    header.append(button);
  }
}
