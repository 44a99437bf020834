// ---- plots of all jobs: error and spread of restarts against what was swept, and error against the pass

const MOST_LINES = 60; // more cannot be told apart
const MOST_DOTS = 300; // photos of a job that have a dot each
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const spreads = data.spreads.filter((spread) => data.jobs.some((job) => job.intervals[spread.key]));
byId("spread").append(...spreads.map((spread) => make("option", { value: spread.key }, spread.name)));
byId("spread").addEventListener("input", plots);

function plots() {
  const jobs = bands.flatMap((band) => columns.map((_, c) => band.jobs[c])).filter((job) => job?.shows === mainly && job.curve.length > 1);
  const swept = columns.length > 1 && !flat;
  byId("by-key").hidden = !swept;
  byId("by-spread").hidden = !swept || !spreads.length;
  byId("by-pass").hidden = !jobs.length;
  byId("plots-of").hidden = byId("by-key").hidden && byId("by-pass").hidden;
  if (swept) {
    const dots = (job) => Object.values(job.cells).slice(0, MOST_DOTS).map((cell) => cell.restarts[0].value);
    plotByKey(byId("by-key"), mainly, (job) => (job.shows === mainly ? job.intervals[mainly] : null), spoken, dots);
  }
  const spread = spreads.find((one) => one.key === byId("spread").value);
  if (swept && spread) plotByKey(byId("by-spread"), spread.name, (job) => job.intervals[spread.key], (value) => (spread.percent ? percent(value) : significant(value)), () => []);
  if (jobs.length) plotByPass(byId("by-pass"), jobs);
}

// a line joins jobs that differ in the key of the axis alone; others stand beside each other
function plotByKey(figure, name, intervalOf, words, dotsOf) {
  const key = data.keys.indexOf(across());
  const series = bands.map((band, k) => {
    const jobs = columns.map((_, c) => band.jobs[c]);
    const points = [];
    let before = null;
    jobs.forEach((job, x) => {
      const mean = job ? intervalOf(job)?.[0] : null;
      if (mean == null) return;
      if (before && before.apart[key] !== job.apart[key]) points.push([x, null]);
      points.push([x, mean]);
      before = job;
    });
    const whiskers = jobs.flatMap((job, x) => (job && intervalOf(job)?.[1] != null ? [[x, intervalOf(job)[1], intervalOf(job)[2]]] : []));
    const dots = jobs.flatMap((job, x) => (job && intervalOf(job) ? dotsOf(job).filter((value) => value != null).map((value) => [x, value]) : []));
    return { name: band.name, hue: hue(k, bands.length), shift: (k - (bands.length - 1) / 2) * 5, points, whiskers, dots };
  });
  const fields = columns.map((_, c) => bands.map((band) => band.jobs[c]).find(Boolean)?.field);
  const named = across().key === "layer" && new Set(fields).size > 1;
  figure.querySelector("figcaption .name").textContent = `${capital(name)} against ${across().name}`;
  figure.querySelector(".note").textContent = series.some((one) => one.whiskers.length) ? `Mean over photos; bars: its 95 % interval by Student’s t${series.some((one) => one.dots.length) ? "; dots: photos" : ""}.` : "Mean; a single photo has no interval.";
  plot(figure.querySelector(".plot"), {
    series,
    x: { label: named ? `${across().name} (receptive field in px)` : across().name, names: columns.map((column, c) => column.name + (named ? ` (${fields[c] ?? "all"})` : "")) },
    y: { words },
    said: `${capital(name)} against ${across().name}; the numbers are in the table of means`,
  });
  legend(figure.querySelector(".legend"), series);
}

function plotByPass(figure, jobs) {
  const step = Math.ceil(jobs.length / MOST_LINES);
  const some = jobs.filter((_, k) => k % step === 0);
  const series = some.map((job, k) => ({ name: jobs.length > 1 ? nameOf(job) : "", hue: hue(k, some.length), points: job.curve.map((value, n) => [data.axes[job.axis][n], value]) }));
  figure.querySelector("figcaption .name").textContent = `${capital(mainly)} against pass`;
  figure.querySelector(".note").textContent = `Mean of each job${step > 1 ? `; ${some.length} of ${jobs.length} jobs` : ""}. Axes: log (1 + pass)${mainly === "error" ? ", log error" : ""}.`;
  plot(figure.querySelector(".plot"), { series, x: { label: "pass", log: true }, y: { words: spoken, log: mainly === "error" }, said: `${capital(mainly)} against pass, a line for each job` });
  legend(figure.querySelector(".legend"), series);
}
