// The plots, drawn by Vega-Lite, and their downloads.
const dark = matchMedia("(prefers-color-scheme: dark)");
const copy = (value) => JSON.parse(JSON.stringify(value));
const views = new Map(); // by the element that shows a plot

// `ast` lets Vega interpret its expressions: the page forbids evaluating text as code.
const options = (more) => ({ ast: true, actions: false, ...more });
async function draw(target, spec) {
  views.get(target)?.view.finalize();
  const { view } = await vegaEmbed(target, spec, options({
    renderer: data.runs.length > 200 && target.id ? "canvas" : "svg",
    config: dark.matches ? data.themes.dark : data.themes.light,
  }));
  views.set(target, { view, spec });
  view.resize().runAsync();
  saveButtons(target);
}
function signal(target, name, value) {
  views.get(target)?.view.signal(name, value).runAsync();
}
// The value that a parameter has from the start.
function begin(spec, name, value) {
  spec.params.find((param) => param.name === name).value = value;
}

// Downloads: the plot as it is filtered now, on white paper whatever the page's colours are.
function saveButtons(target) {
  if (target.parentElement.querySelector(".save")) return;
  const name = target.dataset.figure ? `${target.dataset.figure}-${Number(target.dataset.panel) + 1}` : target.id;
  const buttons = ["PNG", "SVG"].map((format) => {
    const button = element("button", { type: "button", textContent: format });
    button.setAttribute("aria-label", `Download as ${format}: ${name.replace("plot-", "")}`);
    button.addEventListener("click", () => savePlot(target, format, `${name.replace("plot-", "")}.${format.toLowerCase()}`));
    return button;
  });
  target.after(element("div", { className: "save" }, ...buttons));
  // The table of verdicts draws the same differences: their picture can be saved there, too.
  if (target.dataset.figure !== "differences") return;
  const copies = buttons.map((button) => {
    const again = button.cloneNode(true);
    again.addEventListener("click", () => button.click());
    return again;
  });
  document.querySelector("[data-name=Verdicts]").closest(".scroll").previousElementSibling.append(...copies);
}
async function savePlot(target, format, name) {
  const { view, spec } = views.get(target), paper = copy(spec);
  for (const param of paper.params ?? []) if ("value" in param) param.value = view.signal(param.name);
  const hidden = element("div", { className: "paper" });
  hidden.style.width = `${target.clientWidth}px`;
  document.body.append(hidden);
  try {
    const config = { ...data.themes.light, background: "#ffffff" };
    const printed = (await vegaEmbed(hidden, paper, options({ renderer: "svg", config }))).view;
    await printed.resize().runAsync();
    if (format === "SVG") {
      download(name, await printed.toSVG(), "image/svg+xml");
    } else {
      const canvas = await printed.toCanvas(2);
      download(name, await new Promise((done) => canvas.toBlob(done)), "image/png");
    }
    printed.finalize();
  } finally {
    hidden.remove();
  }
}

// Which colour: by the options of a factor, or by the status where nothing varies.
const groupOf = (run) => run.choices[$("colour").value];
function levels() {
  const factor = data.factors.find((f) => f.name === $("colour").value);
  return factor ? factor.levels : [...new Set(data.runs.map(groupOf))];
}

// The figures that are also written for paper. Costs follow the colour and the filter.
const figures = [...document.querySelectorAll("[data-figure]")];
const runOfCell = new Map(data.runs.filter((r) => r.cell !== null).map((r) => [r.cell, r]));
const shownCells = () => {
  const shown = new Array(runOfCell.size).fill(false);
  for (const run of visible) if (run.cell !== null) shown[run.cell] = true;
  return shown;
};
async function drawFigure(target) {
  const { figure, panel } = target.dataset, spec = copy(data.figures[figure][panel]);
  if (figure === "costs") {
    for (const row of Object.values(spec.datasets).flat()) row.level = groupOf(runOfCell.get(row.cell));
    Object.assign(spec.layer[1].encoding.color, { scale: { domain: levels() }, title: $("colour").value });
  }
  if (figure === "costs") begin(spec, "shown", shownCells());
  await draw(target, spec);
}
const costs = figures.filter((target) => target.dataset.figure === "costs");
function filterCosts() {
  const shown = shownCells(), any = shown.some(Boolean);
  for (const target of costs) {
    target.hidden = !any;
    if (any) signal(target, "shown", shown);
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

