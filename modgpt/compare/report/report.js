// The jobs: their filter, which the plots follow, and their commands. Then everything is started.
const body = $("table").tBodies[0];
const rows = [...body.rows]; // in the order of data.runs

// A row stays when all its options are ticked and it contains every word.
function filter() {
  const words = wordsOf($("search").value);
  const off = [...document.querySelectorAll("fieldset[data-factor]")].map((set) => [
    set.dataset.factor, new Set([...set.querySelectorAll("input:not(:checked)")].map((box) => box.value)),
  ]);
  visible = data.runs.filter((run, i) => {
    const content = words.length ? rows[i].textContent.toLowerCase() : "";
    const shown = off.every(([name, values]) => !values.has(run.choices[name])) && words.every((w) => content.includes(w));
    rows[i].hidden = !shown;
    return shown;
  });
  $("showing").textContent = `Showing ${visible.length} of ${rows.length} jobs`;
}
let waiting = 0;
function filterSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { filter(); filterCurves(); filterCosts(); fillExperts(); }, 120);
}

// The command is shown as well as copied: a browser may refuse the clipboard.
async function copyCommand(button) {
  const { command } = data.runs[rows.indexOf(button.closest("tr"))];
  const copied = await copyText(command);
  $("command").hidden = false;
  $("command").replaceChildren(`${copied ? "Copied" : "Copy"}: `, element("code", { textContent: command }));
}
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
body.addEventListener("click", (event) => {
  if (event.target.classList.contains("copy")) copyCommand(event.target);
});

document.querySelectorAll("table.data").forEach(prepare);
for (const f of data.factors) $("colour").add(new Option(f.name, f.name));
$("colour").add(new Option("status", "status"));
document.querySelectorAll("fieldset input").forEach((box) => box.addEventListener("change", filterSoon));
$("search").addEventListener("input", filterSoon);
$("reset").addEventListener("click", () => {
  $("search").value = "";
  document.querySelectorAll("fieldset input").forEach((box) => { box.checked = true; });
  filterSoon();
});
for (const id of ["curve-x", "curve-y", "curve-scale"]) $(id).addEventListener("change", drawCurves);
$("colour").addEventListener("change", () => { drawCurves(); costs.forEach(drawFigure); });
$("expert-run").addEventListener("change", drawExperts);
const drawAll = () => Promise.all([...figures.map(drawFigure), drawCurves(), fillExperts(), filterCosts()]);
dark.addEventListener("change", drawAll);

const before = kept();
if (before) restore(before);
filter();
drawAll().then(() => before && restorePlaces(before));
refreshing();
