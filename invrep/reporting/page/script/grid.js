// ---- the grid, whose rows are filled when they come into view

const grid = byId("grid");
const head = grid.querySelector(".head");
const all = data.jobs.flatMap((job) => Object.values(job.cells).map((cell) => cell.restarts[0].value)).filter((value) => value > 0);
const [least, greatest] = all.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
const barOf = (value) => (!(value > 0) ? 0 : 4 + 96 * (greatest > least ? Math.log(value / least) / Math.log(greatest / least) : 1));
let lines = []; // the rows' elements
let at = [0, 0]; // row and column that Tab leads to
const watch = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => furnish(entry.target)), { root: grid, rootMargin: "600px" });

function show() {
  arrange();
  grid.style.setProperty("--count", columns.length);
  if (data.side < 128) grid.style.setProperty("--cell", "88px");
  head.replaceChildren(
    make("div", { role: "columnheader" }, data.keys.length ? across().name : "photo"),
    ...columns.map((column, k) => {
      const jobs = bands.map((band) => band.jobs[k]).filter(Boolean);
      const job = jobs.length === 1 ? jobs[0] : null;
      const sorted = state.by === k && state.order !== "name" ? (state.order === "up" ? "ascending" : "descending") : "none";
      const button = make("button", { type: "button", title: column.name }, column.name,
        make("small", {}, !job ? "" : job.mean == null ? job.status : (columns.length > 1 || job.n > 1 ? "mean " : "") + shown(job, job.mean)));
      button.addEventListener("click", () => sortBy(k));
      return make("div", { role: "columnheader", "aria-sort": sorted }, button);
    })
  );
  watch.disconnect();
  lines.forEach((line) => line.remove());
  lines = rows.map((_, k) => make("div", { class: "row", role: "row", "aria-rowindex": k + 2, "data-row": k }));
  grid.append(...lines);
  grid.setAttribute("aria-rowcount", rows.length + 1);
  grid.setAttribute("aria-colcount", columns.length + 1);
  lines.forEach((line) => watch.observe(line));
  at = [0, 0];
  if (lines.length) furnish(lines[0]);
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
  watch.unobserve(line);
  if (line.firstChild || !line.isConnected) return; // the browser may still tell of a row that is gone
  const number = Number(line.dataset.row);
  const row = rows[number];
  const photo = data.photos[row.photo];
  line.append(
    make("div", { role: "rowheader", class: "owner", title: photoName(photo) },
      picture(photo.thumb, `Photo ${photoName(photo)}`), make("span", {}, photoName(photo)), row.band.name ? make("span", { class: "value" }, row.band.name) : null),
    ...columns.map((column, k) => make("div", { role: "gridcell" }, cellOf(row, k, number)))
  );
}

function picture(number, alt) {
  if (number < 0) return make("div", { class: "nothing" }, alt.startsWith("Photo no photo") ? "no photo" : "picture missing");
  return make("img", { class: "picture", src: thumb(number), alt, decoding: "async" });
}

function cellOf(row, k, number) {
  const job = row.band.jobs[k];
  const restarts = restartsOf(job, row.photo);
  const tab = number === at[0] && k === at[1] ? 0 : -1;
  if (!restarts.length) {
    const failed = job?.status === "failed";
    const text = !job ? "not run" : failed ? "failed" : job.status === "running" ? "running" : "not done";
    return make("button", { type: "button", class: "cell", tabindex: tab, "data-at": `${number} ${k}`, "aria-disabled": true, title: job?.message },
      make("div", { class: "nothing" + (failed ? " failed" : "") }, text));
  }
  const first = restarts[0];
  const button = make("button", { type: "button", class: "cell" + (within(first.value) ? "" : " out"), tabindex: tab, "data-at": `${number} ${k}` },
    picture(first.picture[0], `Pre-image of ${photoName(data.photos[row.photo])}, ${nameOf(job)}`),
    make("span", { class: "error" }, shown(job, first.value), restarts.length > 1 ? make("small", { title: `${restarts.length} restarts` }, `×${restarts.length}`) : null),
    make("span", { class: "bar", "aria-hidden": true }, make("i")));
  button.querySelector("i").style.width = barOf(first.value) + "%";
  return button;
}

const cellAt = ([row, column]) => {
  if (lines[row]) furnish(lines[row]);
  return lines[row]?.children[column + 1]?.firstChild;
};

function move(row, column, focus = true) {
  const target = [Math.min(Math.max(row, 0), rows.length - 1), Math.min(Math.max(column, 0), columns.length - 1)];
  const cell = cellAt(target);
  if (!cell) return;
  const before = cellAt(at);
  if (before) before.tabIndex = -1;
  cell.tabIndex = 0;
  at = target;
  if (!focus) return;
  cell.focus({ preventScroll: true });
  // not below the heading or behind the photo
  const [box, outer] = [cell.parentElement.getBoundingClientRect(), grid.getBoundingClientRect()];
  const [top, left] = [outer.top + head.offsetHeight, outer.left + lines[target[0]].firstChild.offsetWidth];
  if (box.top < top) grid.scrollTop -= top - box.top;
  else if (box.bottom > outer.bottom) grid.scrollTop += box.bottom - outer.bottom + 4;
  if (box.left < left) grid.scrollLeft -= left - box.left;
  else if (box.right > outer.right) grid.scrollLeft += box.right - outer.right + 4;
  cell.scrollIntoView({ block: "nearest", inline: "nearest" });
}

grid.addEventListener("keydown", (event) => {
  if (!event.target.dataset.at || event.altKey || event.metaKey) return;
  const [row, column] = event.target.dataset.at.split(" ").map(Number);
  const page = Math.max(1, Math.floor(grid.clientHeight / lines[0].offsetHeight) - 1);
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-page, 0], PageDown: [page, 0], Home: [event.ctrlKey ? -rows.length : 0, -columns.length], End: [event.ctrlKey ? rows.length : 0, columns.length] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  move(row + step[0], column + step[1]);
});
grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  const [row, column] = cell.dataset.at.split(" ").map(Number);
  move(row, column, false);
  if (!cell.hasAttribute("aria-disabled")) open(row, column);
});
