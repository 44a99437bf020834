// ---- closer: a dialog with one pre-image, and the way to its neighbours

const closer = byId("closer");
let here = null; // {row, column, restart}

function open(row, column) {
  here = { row, column, restart: 0 };
  closerShow();
  if (!closer.open) closer.showModal();
  closer.scrollTop = 0;
  drawCurve(); // now that its width is known
}

function closerShow() {
  const { row, column } = here;
  const job = rows[row].band.jobs[column];
  const name = photoName(data.photos[rows[row].photo]);
  const cell = job.cells[rows[row].photo];
  const restart = cell.restarts[Math.min(here.restart, cell.restarts.length - 1)];
  byId("closer-title").textContent = `${name} · ${nameOf(job)}`;
  showPhoto(job, cell, name);
  showPreImage(job, restart, name);
  showFilm(restart);
  showRestarts(job, cell, restart);
  showMeasures(restart);
  byId("command").textContent = job.command;
  byId("config").textContent = job.config;
  byId("folder").href = job.folder;
  byId("copy").textContent = "copy";
  const free = (r, c) => Boolean(rows[r]?.band.jobs[c]?.cells[rows[r].photo]);
  for (const [id, r, c] of neighbours()) byId(id).disabled = !free(r, c);
}

const neighbours = () => [
  ["before", here.row, here.column - 1],
  ["after", here.row, here.column + 1],
  ["above", here.row - 1, here.column],
  ["below", here.row + 1, here.column],
];

function go(id) {
  const button = byId(id);
  if (button.disabled) return;
  const [, row, column] = neighbours().find(([name]) => name === id);
  const had = document.activeElement;
  here = { row, column, restart: here.restart };
  closerShow();
  drawCurve();
  move(row, column, false);
  if (had?.disabled || !closer.contains(document.activeElement)) byId("close").focus(); // what had it is gone
}
for (const id of ["before", "after", "above", "below"]) byId(id).addEventListener("click", () => go(id));
byId("close").addEventListener("click", () => closer.close());
closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });
closer.addEventListener("close", () => { closer.querySelector("video")?.pause(); move(...at); });
closer.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || ["VIDEO", "PRE", "INPUT"].includes(event.target.tagName)) return;
  const id = { ArrowLeft: "before", ArrowRight: "after", ArrowUp: "above", ArrowDown: "below" }[event.key];
  if (!id) return;
  event.preventDefault();
  go(id);
});
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    byId("copy").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(byId("command")); // a page opened from a file may not write to the clipboard
  }
});
