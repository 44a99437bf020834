// ---- closer: a dialog with one pre-image, and the way to its neighbours

const closer = byId("closer");
let here = null; // {row, column, restart, start: whether its start stands on the stage in its place}

const jobHere = () => rows[here.row].band.jobs[here.column];
const cellHere = () => jobHere().cells[rows[here.row].photo];
const restartHere = () => cellHere().restarts[Math.min(here.restart, cellHere().restarts.length - 1)];

function open(row, column, restart = 0, start = false) {
  here = { row, column, restart, start };
  if (!closer.open) {
    closer.showModal();
    if (!following) remember("pushState", address());
    zoomTo("");
  }
  closer.scrollTop = 0;
  closerShow(); // now that its widths are known
}

function closerShow() {
  here.start &&= Boolean(restartHere().start);
  const [job, cell, restart] = [jobHere(), cellHere(), restartHere()];
  const name = photoName(data.photos[rows[here.row].photo]);
  byId("closer-title").textContent = `${name} · ${nameOf(job)}`;
  showPhoto(job, cell, name);
  showPreImage(job, cell, restart, name);
  showFilm(restart);
  showRestarts(job, cell, restart);
  showCertificate(restart);
  showMeasures(restart);
  byId("command").textContent = job.command;
  byId("config").textContent = job.config;
  byId("folder").href = job.folder;
  byId("copy").textContent = "copy";
  const free = (r, c) => Boolean(rows[r]?.band.jobs[c]?.cells[rows[r].photo]);
  for (const [id, r, c] of neighbours()) byId(id).disabled = !free(r, c);
  arrangeStage();
  drawCurve();
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
  here = { ...here, row, column };
  closerShow();
  move(row, column, false);
  if (had?.disabled || !closer.contains(document.activeElement)) byId("close").focus(); // what had it is gone
}

function goTo(restart) {
  const count = cellHere().restarts.length;
  here.restart = (restart + count) % count;
  here.start = false;
  closerShow();
}

function toStart() {
  here.start = !here.start;
  closerShow();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    byId("copy").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(byId("command")); // a page opened from a file may not write to the clipboard
  }
}

function showKeys() {
  const keys = byId("keys");
  (closer.open ? closer : document.body).append(keys); // what lies outside an open dialog cannot be reached
  keys.togglePopover();
}

for (const id of ["before", "after", "above", "below"]) byId(id).addEventListener("click", () => go(id));
byId("close").addEventListener("click", () => closer.close());
byId("help-keys").addEventListener("click", showKeys);
byId("copy").addEventListener("click", copy);
closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });
closer.addEventListener("close", () => { closer.querySelector("video")?.pause(); move(...at); });

const ARROWS = { ArrowLeft: "before", ArrowRight: "after", ArrowUp: "above", ArrowDown: "below" };
const LETTERS = {
  r: () => goTo(here.restart + 1), R: () => goTo(here.restart - 1), n: toStart, c: copy,
  s: () => { view.slide = !view.slide; arrangeStage(); }, d: () => { view.difference = !view.difference; closerShow(); },
  "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), 0: () => resetZoom(),
};
// a press on a picture takes the focus out of the dialog, so the whole page listens
addEventListener("keydown", (event) => {
  if (!closer.open || event.altKey || event.ctrlKey || event.metaKey) return;
  const arrow = ["VIDEO", "PRE", "INPUT"].includes(event.target.tagName) ? null : ARROWS[event.key];
  if (!arrow && !LETTERS[event.key]) return;
  event.preventDefault();
  if (arrow) go(arrow);
  else LETTERS[event.key]();
});
addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.matches?.("input, select")) { event.preventDefault(); showKeys(); }
});
