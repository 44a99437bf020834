// ---- plots of all jobs

function plots() {
  const [figure, second] = [byId("by-key"), byId("by-pass")];
  const jobs = bands.flatMap((band) => columns.map((_, c) => band.jobs[c])).filter((job) => job?.shows === mainly && job.curve.length > 1);
  figure.hidden = columns.length < 2 || flat;
  second.hidden = !jobs.length;
  if (!figure.hidden) {
    const series = bands.map((band, k) => {
      const jobs = columns.map((_, c) => band.jobs[c]).map((job) => (job?.shows === mainly ? job : null));
      const dots = jobs.flatMap((job, x) => (job ? Object.values(job.cells).slice(0, 300).map((cell) => [x, cell.restarts[0].value]) : []));
      const whiskers = jobs.flatMap((job, x) => (job?.mean != null && job.std != null ? [[x, job.mean - job.std, job.mean + job.std]] : []));
      return { name: band.name, hue: hue(k, bands.length), shift: (k - (bands.length - 1) / 2) * 5, points: jobs.map((job, x) => [x, job?.mean ?? null]), whiskers, dots: dots.filter((dot) => dot[1] != null) };
    });
    const fields = columns.map((_, c) => bands.map((band) => band.jobs[c]).find(Boolean)?.field);
    const named = across().key === "layer" && new Set(fields).size > 1;
    figure.querySelector("figcaption").textContent = `${capital(mainly)} against ${across().name}`;
    plot(figure.querySelector(".plot"), {
      series,
      x: { label: named ? `${across().name} (receptive field in px)` : across().name, names: columns.map((column, c) => column.name + (named ? ` (${fields[c] ?? "all"})` : "")) },
      y: { words: spoken },
      said: `${capital(mainly)} against ${across().name}; the numbers are in the table of means`,
    });
    legend(figure.querySelector(".legend"), series);
  }
  if (second.hidden) return;
  const series = jobs.map((job, k) => ({ name: jobs.length > 1 ? nameOf(job) : "", hue: hue(k, jobs.length), points: job.curve }));
  second.querySelector("figcaption").textContent = `${capital(mainly)} against pass, means`;
  plot(second.querySelector(".plot"), { series, x: { label: "pass" }, y: { words: spoken }, said: `${capital(mainly)} against pass, a line for each job` });
  legend(second.querySelector(".legend"), series);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
