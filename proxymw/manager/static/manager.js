// What JavaScript adds to a page that works without it: refreshing, charts, dialogs, keys, announcements.
"use strict";

(() => {
  const root = document.body.dataset.root;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const kept = {
    get(name) { try { return localStorage.getItem(`proxymw-${name}`); } catch { return null; } },
    set(name, value) { try { localStorage.setItem(`proxymw-${name}`, value); } catch { /* not kept */ } },
  };

  // -- refreshing ---------------------------------------------------------------------------------------------------

  const every = $("#every");
  let timer = 0;
  const poll = () => { if (!document.hidden) htmx.trigger($("#live"), "poll"); };
  const schedule = () => {
    clearInterval(timer);
    const seconds = Number(every.value);
    if (seconds) timer = setInterval(poll, 1000 * seconds);
  };
  if ($(`option[value="${CSS.escape(kept.get("every") ?? "")}"]`, every)) every.value = kept.get("every");
  every.addEventListener("change", () => { kept.set("every", every.value); schedule(); });
  document.addEventListener("visibilitychange", poll);
  $(".top .controls[hidden]").hidden = false;

  // -- announcing what changed, not every refresh -----------------------------------------------------------------

  const standing = () => new Map($$("tr[data-member]").map((row) => [row.id, [row.dataset.member, row.dataset.says]]));
  let before = standing();
  const announce = () => {
    const now = standing();
    const news = [...now].filter(([id, [, says]]) => before.has(id) && before.get(id)[1] !== says);
    if (news.length) $("#announce").textContent = news.map(([, [name, says]]) => `${name}: ${says}`).join(". ");
    before = now;
  };
  const toast = (text) => {
    const box = $("#toast");
    box.textContent = text;
    box.hidden = !text;
    clearTimeout(toast.timer);
    if (text) toast.timer = setTimeout(() => { box.hidden = true; }, 8000);
  };

  document.addEventListener("htmx:after:swap", announce);
  document.addEventListener("htmx:after:request", (event) => {
    const { request, response, text } = event.detail.ctx;
    if (response.status >= 400) toast(text.slice(0, 300) || `Status ${response.status}`);
    else if (request.method !== "GET") {
      toast("");
      if (dialog.open) dialog.close();
    }
  });
  document.addEventListener("htmx:error", () => toast("The manager does not answer. Trying again."));

  // -- dialogs ----------------------------------------------------------------------------------------------------

  const dialog = $("#dialog");
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.("a[data-edit]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      const answer = await fetch(link.href, { headers: { "HX-Request": "true" } });
      if (!answer.ok) return toast(await answer.text());
      dialog.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
      htmx.process(dialog);
      dialog.showModal();
    } else if (event.target === dialog || (event.target.closest?.("[data-close]") && dialog.open)) {
      event.preventDefault();
      dialog.close();
    }
  });
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !confirm(question)) { event.preventDefault(); event.stopImmediatePropagation(); }
  }, true);

  // -- colours ----------------------------------------------------------------------------------------------------

  const theme = $("#theme");
  const themes = ["auto", "light", "dark"];
  const paint = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = name[0].toUpperCase() + name.slice(1);
    theme.setAttribute("aria-label", `Colours: ${name === "auto" ? "Auto, as the system" : theme.textContent}`);
    plots.forEach((plot) => plot.redraw(false));
  };
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(kept.get("theme") ?? "auto") + 1) % 3];
    kept.set("theme", next);
    paint(next);
  });

  // -- charts -----------------------------------------------------------------------------------------------------

  const plots = new Map();
  const colour = (name) => () => getComputedStyle($(`#swatch-${name}`)).color;
  for (const name of [..."01234567", "dim", "line"]) {
    const swatch = document.createElement("i");
    swatch.id = `swatch-${name}`;
    swatch.className = `swatch s${name}`;
    document.body.append(swatch);
  }
  const figures = (value) => value == null ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1);
  const draw = (figure, chart) => {
    const box = $(".plot", figure);
    const length = chart.lines[0]?.values.length ?? 0;
    const seconds = Array.from({ length }, (_, n) => (n - length + 1) * chart.step);
    const data = [seconds, ...chart.lines.map((line) => line.values)];
    const shape = chart.lines.map((line) => line.name).join("\n");
    let plot = plots.get(box);
    if (plot && plot.shape !== shape) { plot.destroy(); plot = undefined; }
    if (plot) return plot.setData(data);
    const latest = $("h3 b", figure);
    const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
    const say = (own) => {
      const at = own.cursor.idx ?? own.data[0].length - 1;
      const values = own.data.slice(1).map((line) => line[at]);
      const shown = values.length > 2 ? [values.reduce((sum, value) => sum + value, 0)] : values;
      latest.textContent = `${shown.map(figures).join(" · ")} ${chart.unit}`;
    };
    box.replaceChildren();
    plot = new uPlot({
      width: box.clientWidth, height: 110, padding: [8, 14, 0, 0],
      legend: { show: false }, cursor: { y: false, points: { size: 5 }, sync: { key: "time" } },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
      axes: [
        { ...axis, size: 22, values: (_, at) => at.map((second) => second ? `${second / 60} min` : "now"), splits: () => [-480, -360, -240, -120, 0] },
        { ...axis, size: 42, values: (_, at) => at.map((value) => value >= 1000 ? `${value / 1000}k` : value) },
      ],
      series: [{}, ...chart.lines.map((line, n) => ({ label: line.name, stroke: colour(n % 8), width: 1.5, points: { show: false } }))],
      hooks: { setCursor: [say], setData: [say] },
    }, data, box);
    plot.shape = shape;
    plots.set(box, plot);
    say(plot);
    new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: 110 })).observe(box);
  };
  const chart = async () => {
    if (document.hidden) return;
    const answer = await fetch(`${root}api/v1/series?window=600&step=5`).catch(() => null);
    if (!answer?.ok) return;
    for (const pool of (await answer.json()).pools) {
      const part = $(`.charts[data-pool="${CSS.escape(pool.name)}"]`);
      if (part) $$(".chart", part).forEach((figure, n) => draw(figure, pool.charts[n]));
    }
  };

  // -- keys, only while the focus is inside a table ---------------------------------------------------------------

  const keys = { r: "ready", d: "drain" };
  document.addEventListener("keydown", (event) => {
    const row = event.target.closest?.("tr[data-member]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox])")) return;
    if (event.key === "j" || event.key === "k") {
      const rows = $$("tr[data-member]", row.closest("table"));
      const next = rows[rows.indexOf(row) + (event.key === "j" ? 1 : -1)];
      $("button, input, a", next ?? row)?.focus();
    } else if (keys[event.key]) {
      $(`button[value=${keys[event.key]}]`, row)?.click();
    } else if (event.key === "x") {
      $("input[type=checkbox]", row)?.click();
    } else if (event.key === "e") {
      $("a[data-edit]", row)?.click();
    } else return;
    event.preventDefault();
  });

  paint(kept.get("theme") ?? "auto");
  schedule();
  chart();
  setInterval(chart, 5000);
})();
