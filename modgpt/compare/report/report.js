// Sorting, filtering and plots of a report. The table's rows are in the order of data.runs.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const body = $("table").tBodies[0];
  const rows = [...body.rows];
  let visible = data.runs;

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const views = new Map(); // by the element that shows a plot

  // `ast` lets Vega interpret its expressions: the page forbids evaluating text as code.
  async function draw(element, spec) {
    views.get(element)?.finalize();
    const { view } = await vegaEmbed(element, spec, {
      ast: true, renderer: data.runs.length > 200 && element.id ? "canvas" : "svg",
      config: dark.matches ? data.themes.dark : data.themes.light,
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: element.dataset.figure || element.id,
    });
    views.set(element, view);
    view.resize().runAsync();
  }
  function signal(element, name, value) {
    views.get(element)?.signal(name, value).runAsync();
  }
  // The value that a parameter has from the start.
  function begin(spec, name, value) {
    spec.params.find((param) => param.name === name).value = value;
  }

  // Which colour: by the options of a factor, or by the status where nothing varies.
  const groupOf = (run) => run.choices[$("colour").value];
  function levels() {
    const factor = data.factors.find((f) => f.name === $("colour").value);
    return factor ? factor.levels : [...new Set(data.runs.map(groupOf))];
  }

  // The figures that are also written for paper. Costs follow the colour and the filter, effects their menu.
  const figures = [...document.querySelectorAll("[data-figure]")];
  const runOfCell = new Map(data.runs.filter((r) => r.cell !== null).map((r) => [r.cell, r]));
  const shownCells = () => {
    const shown = new Array(runOfCell.size).fill(false);
    for (const run of visible) if (run.cell !== null) shown[run.cell] = true;
    return shown;
  };
  async function drawFigure(element) {
    const { figure, panel } = element.dataset, spec = copy(data.figures[figure][panel]);
    if (figure === "costs") {
      for (const row of Object.values(spec.datasets).flat()) row.level = groupOf(runOfCell.get(row.cell));
      Object.assign(spec.layer[1].encoding.color, { scale: { domain: levels() }, title: $("colour").value });
    }
    if (figure === "costs") begin(spec, "shown", shownCells());
    if (figure === "main_effects") begin(spec, "kind", $("effect-kind").value);
    await draw(element, spec);
  }
  const costs = figures.filter((element) => element.dataset.figure === "costs");
  function filterCosts() {
    const shown = shownCells(), any = shown.some(Boolean);
    for (const element of costs) {
      element.hidden = !any;
      if (any) signal(element, "shown", shown);
    }
    if ($("no-costs")) $("no-costs").hidden = any;
  }

  const AXES = {
    steps: { title: "step", scale: () => 1 },
    tokens: { title: "tokens", scale: (r) => r.per_step },
    flops: { title: "training FLOPs", scale: (r) => 3 * r.flops * r.per_step },
    seconds: { title: "wall time (s)", scale: (r) => r.speed && r.per_step / r.speed },
  };
  const shownRuns = () => {
    const passing = new Set(visible);
    return data.runs.map((run) => passing.has(run));
  };
  async function drawCurves() {
    const axis = AXES[$("curve-x").value], kind = $("curve-y").value, type = $("curve-scale").value;
    const values = data.runs.flatMap((run, i) => {
      const scale = axis.scale(run), [steps, losses] = run[kind];
      if (!scale) return [];
      return steps.map((step, k) => ({ run: i, name: run.name, level: groupOf(run), x: step * scale, loss: losses[k] }));
    }).filter((row) => type === "linear" || (row.x > 0 && row.loss > 0));
    const spec = { ...copy(data.explore.curves), datasets: { runs: values } };
    for (const { encoding } of spec.layer) {
      encoding.x.title = axis.title;
      const scale = type === "log" ? { type } : { zero: false }; // a logarithmic axis never has a zero
      encoding.x.scale = { nice: false, ...scale };
      encoding.y.scale = { nice: false, padding: 8, ...scale };
      encoding.color.scale = { domain: levels() };
    }
    logged = new Set(values.map((row) => row.run));
    begin(spec, "shown", shownRuns());
    if (!(pointed = withPoints())) spec.layer.pop();
    hideEmptyCurves();
    if (logged.size) await draw($("plot-curves"), spec);
  }
  let logged = new Set(); // the runs that have a curve
  let pointed = false; // whether the plot has a point per value
  const withPoints = () => $("curve-y").value === "val" && visible.length <= 60;
  function hideEmptyCurves() {
    const any = shownRuns().some((shown, i) => shown && logged.has(i));
    $("plot-curves").hidden = !any;
    $("no-curves").hidden = any;
    return !any;
  }
  function filterCurves() {
    if (hideEmptyCurves()) return;
    if (pointed !== withPoints()) drawCurves();
    else signal($("plot-curves"), "shown", shownRuns());
  }

  const experts = data.runs.some((r) => r.load);
  function fillExperts() {
    if (!experts) return;
    $("experts-section").hidden = $("to-experts").hidden = false;
    const select = $("expert-run"), before = select.value, own = visible.filter((r) => r.load);
    select.replaceChildren(...own.map((r) => new Option(r.name, r.name)));
    if (own.some((r) => r.name === before)) select.value = before;
    drawExperts();
  }
  function drawExperts() {
    const own = visible.filter((r) => r.load), run = own.find((r) => r.name === $("expert-run").value);
    $("plot-load").hidden = $("plot-final").hidden = !run;
    $("expert-words").textContent = "No run with experts passes the filter.";
    if (!run) return;
    const last = (r) => r.load.map(([, values]) => values.at(-1) ?? 0);
    const even = 1 / run.load.length, final = last(run);
    const values = run.load.flatMap(([steps, shares], i) => steps.map((step, k) => ({
      expert: `expert ${i}`, step, share: shares[k], even, last: k === steps.length - 1,
    })));
    draw($("plot-load"), { ...copy(data.explore.load), datasets: { load: values } });
    draw($("plot-final"), { ...copy(data.explore.final), datasets: { load: values } });
    const most = own.map((r) => Math.max(...last(r)) * r.load.length).sort((a, b) => a - b);
    $("expert-words").textContent = `The dashed line is an even share. At the end the busiest expert of this run has ` +
      `${(Math.max(...final) / even).toFixed(2)} times an even share. Over the ${own.length} shown runs with experts the median ` +
      `is ${most[Math.floor(most.length / 2)].toFixed(2)} and the largest ${most.at(-1).toFixed(2)}.`;
  }

  // Filter: a row stays when all its options are ticked and it contains every word.
  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
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

  // Sort: numbers as numbers, rows without a value last in both directions.
  function sort(header, column) {
    const up = header.getAttribute("aria-sort") !== "ascending", numeric = header.classList.contains("number");
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map((row) => {
      const cell = row.cells[column], shown = cell.textContent;
      return { row, key: shown === "" ? null : numeric ? Number(cell.dataset.v) : shown };
    });
    const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    keyed.sort((a, b) => (a.key === null) - (b.key === null) || (a.key === null ? 0 : (up ? 1 : -1) * compare(a.key, b.key)));
    body.append(...keyed.map((k) => k.row));
  }

  for (const header of $("table").tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => sort(header, header.cellIndex));
  }
  if (innerWidth < 600) document.querySelector("details.filters").open = false;
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
  $("effect-kind")?.addEventListener("change", () => {
    for (const element of figures) {
      if (element.dataset.figure === "main_effects") signal(element, "kind", $("effect-kind").value);
    }
  });
  function drawAll() { figures.forEach(drawFigure); drawCurves(); fillExperts(); filterCosts(); }
  dark.addEventListener("change", drawAll);
  filter();
  drawAll();
})();
