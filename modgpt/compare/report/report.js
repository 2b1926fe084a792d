// Sorting, filtering and plots of a report. The table's rows are in the order of data.runs.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const body = $("table").tBodies[0];
  const rows = [...body.rows];
  let visible = data.runs;

  // Okabe and Ito's colours, told apart with every kind of colour vision; lighter ones on dark ground.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#444444"];
  const DARK = ["#56b4e9", "#e69f00", "#2fc49a", "#e59ac4", "#f0e442", "#ff8a5b", "#b7a3ff", "#c8c8c8"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
  const palette = () => (dark.matches ? DARK : LIGHT);
  const look = (i) => ({
    color: palette()[i % 8],
    dash: DASHES[Math.floor(i / 8) % 4],
    symbol: SYMBOLS[i % 8],
  });
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = () => innerWidth < 600;
  // Plotly reads a few tags in its texts; names are none.
  const text = (s) => String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;

  function layout(x, y, more = {}) {
    const axis = (title, rest) => ({
      title: { text: title, standoff: 8 }, gridcolor: css("--line"), zerolinecolor: css("--line"),
      linecolor: css("--line"), automargin: true, ...rest,
    });
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: css("--page"), plot_bgcolor: css("--page"),
      font: { color: css("--text"), family: "system-ui, sans-serif", size: narrow() ? 11 : 12 },
      margin: { l: 50, r: 12, t: 10, b: 44 }, hovermode: "closest",
      hoverlabel: { bgcolor: css("--soft"), bordercolor: css("--line"), font: { color: css("--text") }, namelength: 0 },
      legend: { orientation: "h", y: -0.2, yanchor: "top" }, showlegend: true,
      xaxis: axis(x, xaxis), yaxis: axis(y, yaxis), ...rest,
    };
  }
  function draw(id, traces, plan) {
    Plotly.react(id, traces, plan, { responsive: true, displayModeBar: false });
  }

  // Which colour: by the options of a factor, or by the status where nothing varies.
  const groupsOf = (run) => run.choices[$("colour").value];
  function levels() {
    const factor = data.factors.find((f) => f.name === $("colour").value);
    return factor ? factor.levels : [...new Set(data.runs.map(groupsOf))];
  }

  const AXES = {
    steps: { title: "step", scale: () => 1 },
    tokens: { title: "tokens", scale: (r) => r.per_step },
    flops: { title: "training FLOPs", scale: (r) => 3 * r.costs.flops_per_token * r.per_step },
    seconds: { title: "wall time (s)", scale: (r) => r.speed && r.per_step / r.speed },
  };
  function drawCurves() {
    const axis = AXES[$("curve-x").value], kind = $("curve-y").value, type = $("curve-scale").value;
    const many = visible.length > 60;
    // One trace per colour, its curves separated by gaps: a trace per run would be slow with thousands.
    const traces = levels().map((level, i) => {
      const x = [], y = [], names = [];
      for (const run of visible) {
        const scale = axis.scale(run), [steps, values] = run[kind];
        if (groupsOf(run) !== level || !scale || !steps.length) continue;
        steps.forEach((step, k) => { x.push(step * scale); y.push(values[k]); names.push(text(run.name)); });
        x.push(null); y.push(null); names.push("");
      }
      const { color, dash } = look(i);
      return {
        type: "scatter", mode: kind === "val" && !many ? "lines+markers" : "lines", name: text(level), x, y, text: names,
        line: { color, dash, width: many ? 1 : 1.6 }, marker: { color, size: 4 }, opacity: many ? 0.7 : 0.9,
        hovertemplate: "%{text}<br>%{x:,.4s}: %{y:.4f}",
      };
    }).filter((t) => t.x.length);
    $("plot-curves").hidden = !traces.length;
    $("no-curves").hidden = Boolean(traces.length);
    if (traces.length) draw("plot-curves", traces, layout(axis.title, "loss (nats per token)", { xaxis: { type }, yaxis: { type } }));
  }

  function drawEffects() {
    if (!$("plot-effects")) return;
    const kind = $("effect-kind").value, traces = [], annotations = [], shapes = [];
    const factors = [...new Set(data.effects.map((e) => e.factor))];
    // Labels stand beside the points, or above them where the screen is too narrow for that.
    const above = narrow(), longest = Math.max(...data.effects.map((e) => Math.max(e.option.length + 12, e.factor.length)));
    let line = 0;
    const label = (y, s, color, bold) => annotations.push({
      x: 0, xref: "paper", xanchor: above ? "left" : "right", y, text: bold ? `<b>${text(s)}</b>` : text(s), showarrow: false,
      font: { color, size: narrow() ? 11 : 12 },
    });
    factors.forEach((factor, i) => {
      const { color, symbol } = look(i), points = [];
      label(line, factor, css("--text"), true);
      line -= 1;
      for (const e of data.effects.filter((e) => e.factor === factor)) {
        label(line, `${e.option}${e.baseline ? " (baseline)" : ""}`, css("--dim"), false);
        const value = kind === "difference" && e.baseline ? 0 : e[kind];
        if (value !== null) points.push({ ...e, value, y: line - (above ? 0.48 : 0), low: e[`${kind}_low`], high: e[`${kind}_high`] });
        line -= above ? 1.3 : 1;
      }
      line -= 0.4;
      const tie = (p) => p.low !== null && p.low <= 0 && p.high >= 0;
      traces.push({
        type: "scatter", mode: "markers", x: points.map((p) => p.value), y: points.map((p) => p.y),
        error_x: {
          type: "data", symmetric: false, color, thickness: 1.6, width: 4,
          array: points.map((p) => (p.high === null ? 0 : p.high - p.value)),
          arrayminus: points.map((p) => (p.low === null ? 0 : p.value - p.low)),
        },
        marker: { size: 9, symbol: points.map((p) => symbol + (tie(p) ? "-open" : "")), color, line: { width: 1.6, color } },
        text: points.map((p) => `${text(p.factor)}=${text(p.option)} ${p.low === null ? "" : `<br>${p.low.toFixed(4)} to ${p.high.toFixed(4)}`}`),
        hovertemplate: "%{text}<br>%{x:+.4f}",
      });
    });
    shapes.push({ type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { color: css("--dim"), width: 1 } });
    $("plot-effects").style.height = `${Math.round(-line * 25 + 70)}px`;
    draw("plot-effects", traces, layout("change of the final loss (nats per token)", "", {
      showlegend: false, annotations, shapes, margin: { l: above ? 8 : Math.min(300, 16 + 7 * longest), r: 12, t: 8, b: 44 }, xaxis: { zeroline: false },
      yaxis: { visible: false, range: [line + 0.3, 0.8], fixedrange: true },
    }));
  }

  // A combination by what it has other than the baseline.
  const choicesOf = (run) => data.factors.filter((f) => run.choices[f.name] !== f.levels[0])
    .map((f) => `${f.name}=${run.choices[f.name]}`).join(", ") || "the baseline";
  const better = { tokens_per_second: -1 };
  function drawPareto() {
    const cost = $("pareto-x").value, sign = better[cost] || 1, cells = new Map();
    for (const run of visible) {
      if (run.cell === null || run.loss === null || run.costs[cost] === null) continue;
      if (!cells.has(run.cell)) cells.set(run.cell, []);
      cells.get(run.cell).push(run);
    }
    const points = [...cells.values()].map((runs) => ({
      x: mean(runs.map((r) => r.costs[cost])), y: mean(runs.map((r) => r.loss)), group: groupsOf(runs[0]),
      name: choicesOf(runs[0]),
    })).sort((a, b) => sign * (a.x - b.x) || a.y - b.y);
    let least = Infinity;
    const front = points.filter((p) => p.y < least && ((least = p.y), true));
    const traces = levels().map((level, i) => {
      const own = points.filter((p) => p.group === level), { color, symbol } = look(i);
      return {
        type: "scatter", mode: "markers", name: text(level), x: own.map((p) => p.x), y: own.map((p) => p.y),
        text: own.map((p) => text(p.name)), marker: { color, symbol, size: 8, opacity: 0.85 },
        hovertemplate: "%{text}<br>%{x:,.4s}: %{y:.4f}",
      };
    }).filter((t) => t.x.length);
    traces.unshift({
      type: "scatter", mode: "lines", name: "Pareto front", x: front.map((p) => p.x), y: front.map((p) => p.y),
      line: { color: css("--dim"), width: 1.4, dash: "dot", shape: sign > 0 ? "hv" : "vh" }, hoverinfo: "skip",
    });
    const empty = !points.length;
    $("plot-pareto").hidden = empty;
    $("no-pareto").hidden = !empty;
    const title = $("pareto-x").selectedOptions[0].text + (cost === "peak_memory_bytes" ? " (bytes)" : "");
    if (!empty) draw("plot-pareto", traces, layout(title, "final loss (nats per token)"));
    $("front").replaceChildren(...front.map((p) => {
      const item = document.createElement("li");
      item.textContent = `${p.name}: ${p.y.toFixed(4)} at ${p.x.toLocaleString("en", { maximumSignificantDigits: 4 })}`;
      return item;
    }));
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
    const evenLine = { type: "line", line: { color: css("--dim"), width: 1, dash: "dot" } };
    draw("plot-load", run.load.map(([x, y], i) => ({
      type: "scatter", mode: "lines", name: `expert ${i}`, x, y, line: { color: look(i).color, dash: look(i).dash, width: 1.5 },
      hovertemplate: `expert ${i}<br>step %{x}: %{y:.3f}`,
    })), layout("step", "share of the tokens", { yaxis: { rangemode: "tozero" },
      shapes: [{ ...evenLine, xref: "paper", x0: 0, x1: 1, y0: even, y1: even }] }));
    draw("plot-final", [{
      type: "bar", x: final.map((_, i) => `${i}`), y: final, marker: { color: final.map((_, i) => look(i).color) },
      hovertemplate: "expert %{x}: %{y:.3f}",
    }], layout("expert", "share at the last step", { showlegend: false, xaxis: { type: "category" },
      shapes: [{ ...evenLine, xref: "paper", x0: 0, x1: 1, y0: even, y1: even }] }));
    const most = own.map((r) => Math.max(...last(r)) * r.load.length).sort((a, b) => a - b);
    $("expert-words").textContent = `Dotted: an even share. At the end the busiest expert of this run has ` +
      `${(Math.max(...final) / even).toFixed(2)} times it; over the ${own.length} shown runs with experts the median is ` +
      `${most[Math.floor(most.length / 2)].toFixed(2)}, the largest ${most.at(-1).toFixed(2)}.`;
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
    waiting = setTimeout(() => { filter(); drawCurves(); drawPareto(); fillExperts(); }, 120);
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
  if (narrow()) document.querySelector("details.filters").open = false;
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
  $("colour").addEventListener("change", () => { drawCurves(); drawPareto(); });
  $("pareto-x").addEventListener("change", drawPareto);
  $("expert-run").addEventListener("change", drawExperts);
  if ($("effect-kind")) $("effect-kind").addEventListener("change", drawEffects);
  function drawAll() { drawCurves(); drawEffects(); drawPareto(); fillExperts(); }
  dark.addEventListener("change", drawAll);
  filter();
  drawAll();
})();
