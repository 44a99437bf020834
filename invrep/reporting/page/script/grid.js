// ---- the grid, whose rows are filled when they come near the window

const grid = byId("grid");
const head = grid.querySelector(".head");
const GAP = 8, SIDE = 260, NARROW = 200; // CSS pixels: between cells, of a picture, and of one where many stand side by side
const CAPTION = 46; // height of the words under a picture
const aspect = Math.min(Math.max(data.aspect || 1, 0.5), 1.5);
const all = data.jobs.flatMap((job) => Object.values(job.cells).map((cell) => cell.restarts[0].value)).filter((value) => value > 0);
const [least, greatest] = all.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
const barOf = (value) => (!(value > 0) ? 0 : 4 + 96 * (greatest > least ? Math.log(value / least) / Math.log(greatest / least) : 1));
const kept = data.measures.findIndex((measure) => measure.key === "class_kept");
let lines = []; // the rows' elements
let inLine = 1; // pictures of a row that stand side by side
let at = [0, 0]; // row and column that Tab leads to
const lineWatch = new IntersectionObserver((found) => found.filter((one) => one.isIntersecting).forEach((one) => furnish(one.target)), near);

function show() {
  arrange();
  head.replaceChildren(
    make("div", { role: "columnheader" }, data.keys.length && !flat ? `photo by ${across().name}` : "photo"),
    ...columns.map((column, k) => heading(column, k))
  );
  lineWatch.disconnect();
  pictureWatch.disconnect();
  lines.forEach((line) => line.remove());
  lines = rows.map((_, k) => make("div", { class: "row", "data-row": k }));
  grid.append(...lines);
  grid.setAttribute("aria-rowcount", rows.length + 1);
  grid.setAttribute("aria-colcount", columns.length + 1);
  measure();
  lines.forEach((line) => lineWatch.observe(line));
  at = [0, 0];
  if (lines.length) furnish(lines[0]);
}

// a table where its columns fit, a table that scrolls sideways where they do not, and cards on a phone or where most
// places of a table would be empty
function measure(paper) {
  const width = paper || grid.parentElement.clientWidth;
  const phone = width < 600;
  const count = columns.length + 1;
  const fitting = Math.floor((width - GAP * (count - 1)) / count);
  const narrow = paper ? 100 : NARROW;
  const table = !phone && !flat && !(paper && fitting < narrow);
  const cell = phone ? Math.floor((width - GAP) / 2) : table && fitting >= narrow ? Math.min(fitting, SIDE) : paper ? 160 : SIDE;
  inLine = table ? count : Math.max(1, Math.floor((width + GAP) / (cell + GAP)));
  grid.classList.toggle("cards", !table);
  grid.classList.toggle("wide", table && fitting < narrow);
  const values = { "--cell": cell + "px", "--aspect": aspect, "--count": count, "--gap": GAP + "px", "--caption": CAPTION + "px", "--lines": Math.ceil(count / inLine) };
  for (const [name, value] of Object.entries(values)) grid.style.setProperty(name, value);
}

function heading(column, k) {
  const jobs = bands.map((band) => band.jobs[k]).filter(Boolean);
  const job = jobs.length === 1 ? jobs[0] : null;
  const sorted = state.by === k && state.order !== "name" ? (state.order === "up" ? "ascending" : "descending") : "none";
  const button = make("button", { type: "button", title: `${column.name}: sort the photos by it` }, column.name,
    make("small", {}, !job ? "" : job.mean == null ? job.status : (columns.length > 1 || job.n > 1 ? "mean " : "") + shown(job, job.mean)));
  button.addEventListener("click", () => sortBy(k));
  return make("div", { role: "columnheader", "aria-sort": sorted }, button);
}

function sortBy(column) {
  state.order = state.by === column && state.order === "up" ? "down" : "up";
  state.by = column;
  byId("sort").value = "name";
  const scrolled = grid.scrollLeft;
  show();
  grid.scrollLeft = scrolled;
  head.children[column + 1].firstChild.focus();
}

function furnish(line) {
  lineWatch.unobserve(line);
  if (line.firstChild || !line.isConnected) return; // the browser may still tell of a row that is gone
  const number = Number(line.dataset.row);
  const row = rows[number];
  const photo = data.photos[row.photo];
  fill(line, { role: "row", "aria-rowindex": number + 2 }, [
    make("div", { role: "rowheader", class: "owner", title: photoName(photo) }, picture(photo.thumb, `Photo ${photoName(photo)}`),
      make("span", { class: "name" }, photoName(photo)), row.band.name ? make("span", { class: "band" }, row.band.name) : null),
    ...columns.map((column, k) => make("div", { role: "gridcell" }, cellOf(row, k, number))),
  ]);
}

function cellOf(row, k, number) {
  const job = row.band.jobs[k];
  const restarts = restartsOf(job, row.photo);
  const tab = number === at[0] && k === at[1] ? 0 : -1;
  const column = make("span", { class: "column" }, columns[k].name);
  if (!restarts.length) {
    const failed = job?.status === "failed";
    const text = !job ? "not run" : failed ? "failed" : job.status === "running" ? "running" : "not done";
    return make("button", { type: "button", class: "cell", tabindex: tab, "data-at": `${number} ${k}`, "aria-disabled": true, title: job?.message },
      make("span", { class: "nothing" + (failed ? " failed" : "") }, text), column);
  }
  const first = restarts[0];
  const button = make("button", { type: "button", class: "cell" + (within(first.value) ? "" : " out"), tabindex: tab, "data-at": `${number} ${k}` },
    picture(first.picture[0], `Pre-image of ${photoName(data.photos[row.photo])}, ${nameOf(job)}`), column,
    make("span", { class: "error" }, make("b", {}, shown(job, first.value)), classOf(first), fallingBadge(first),
      restarts.length > 1 ? make("small", { class: "times", title: `${restarts.length} restarts` }, `×${restarts.length}`) : null),
    make("span", { class: "bar", "aria-hidden": true }, make("i")));
  button.querySelector("i").style.width = barOf(first.value) + "%";
  return button;
}

function classOf(restart) {
  const value = restart.measures[kept];
  if (value == null) return null;
  const words = value ? `The classifier's first class is the photo's: ${restart.class}` : `The classifier's first class is no longer the photo's: ${restart.class}`;
  return make("small", { class: "class" + (value ? "" : " lost"), title: words }, `${value ? "✓" : "✗"} ${restart.class || "class"}`);
}
