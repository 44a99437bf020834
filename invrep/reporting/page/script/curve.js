// ---- the curves of one pre-image, of its other restarts, and of its job

function drawCurve() {
  const { row, column } = here;
  const job = rows[row].band.jobs[column];
  const restarts = job.cells[rows[row].photo].restarts;
  const chosen = Math.min(here.restart, restarts.length - 1);
  const pointsOf = (one) => one.curve.map((value, n) => [data.axes[one.axis][n], value]);
  const series = restarts.map((one, k) => ({ name: `restart ${one.n}`, hue: k === chosen ? 220 : 90, points: pointsOf(one) }));
  const mean = { name: "mean of the job", hue: 30, points: pointsOf(job) };
  const lines = [...(job.n > 1 ? [mean] : []), ...series.filter((_, k) => k !== chosen), series[chosen]];
  const figure = byId("curve");
  figure.querySelector("figcaption .name").textContent = `${capital(job.shows)} against pass`;
  figure.querySelector(".note").textContent = restarts[chosen].more ? fallingWords(restarts[chosen]) + "." : "";
  plot(figure.querySelector(".plot"), { series: lines, x: { label: "pass", log: true }, y: { words: (y) => shown(job, y), log: job.shows === "error" },
    said: `${job.shows} goes from ${shown(job, restarts[chosen].curve[0])} to ${shown(job, restarts[chosen].value)}` });
  legend(figure.querySelector(".legend"), [series[chosen], ...(restarts.length > 1 ? [{ name: "other restarts", hue: 90 }] : []), ...(job.n > 1 ? [mean] : [])]);
}

// a badge for an error that the last tenth of the passes lowered by more than 5 %
const fallingWords = (restart) => `Still falling: the last tenth of the passes lowered the error by more than 5 %; try optim.steps=${restart.more}`;
const fallingBadge = (restart) => (restart.more ? make("small", { class: "falling", title: fallingWords(restart) }, "still falling") : null);
