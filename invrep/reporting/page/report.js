"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// ---- numbers and words

const mainly = data.jobs.filter((job) => job.shows === "activation").length * 2 > data.jobs.length ? "activation" : "error";

function significant(value, digits = 3) {
  if (value == null) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1);
  return value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
}
const plain = (text) => (text.includes("e") ? text : text.replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, ""));
const percent = (value) => (value == null ? "–" : significant(100 * value) + " %");
const shown = (job, value) => (job.shows === "error" ? percent(value) : significant(value));
const spoken = (value) => (mainly === "error" ? percent(value) : significant(value));
const thumb = (number) => "data:image/webp;base64," + data.thumbs[number];
const wordsOf = (key, value) => (data.keys[key].key === "layer" || data.keys[key].key === "rep" ? "" : data.keys[key].name + " ") + data.keys[key].values[value];
const nameOf = (job) => (job.point.length ? job.point.map((value, key) => wordsOf(key, value)).join(", ") : job.label);
const photoName = (photo) => (photo.name === "none" ? "no photo" : photo.name);

// neighbours in the order of a sweep are neighbours in hue
const hue = (k, count) => 262 - (count > 1 ? (k / (count - 1)) * 232 : 0);

// ---- plots

// spec: series of {name, hue, points: [[x, y]], whiskers: [[x, low, high]], dots: [[x, y]], shift},
// x: {label, names} or {label}, y: {label, words}; said: what a screen reader says
function plot(host, spec) {
  const width = Math.max(260, host.clientWidth || 480);
  const names = spec.x.names;
  const slanted = names && names.length * Math.max(...names.map((name) => name.length)) * 7 > width - 80;
  const margin = { left: 58, right: 14, top: 10, bottom: slanted ? 100 : 44 };
  const height = 230 + margin.bottom;
  const all = spec.series.flatMap((s) => [...s.points.map((p) => p[1]), ...(s.dots || []).map((p) => p[1])]).filter((y) => y != null);
  if (!all.length) return host.replaceChildren();
  const log = all.every((y) => y > 0) && Math.max(...all) / Math.min(...all) > 3;
  const extremes = all.concat(spec.series.flatMap((s) => (s.whiskers || []).flatMap((w) => [w[1], w[2]])).filter((y) => !log || y > 0));
  let [low, high] = [Math.min(...extremes), Math.max(...extremes)];
  if (log) low = Math.max(low, Math.min(...all) / 2);
  else if (low >= 0 && low < high / 2) low = 0;
  if (low === high) [low, high] = log ? [low / 1.5, high * 1.5] : [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)];
  const f = log ? Math.log10 : (value) => value;
  const pad = 0.04 * (f(high) - f(low));
  const ys = (y) => height - margin.bottom - ((f(log ? Math.max(y, low) : y) - f(low) + pad) / (f(high) - f(low) + 2 * pad)) * (height - margin.top - margin.bottom);
  const xsAll = spec.series.flatMap((s) => s.points.map((p) => p[0]));
  const [x0, x1] = names ? [-0.5, names.length - 0.5] : [Math.min(...xsAll), Math.max(...xsAll, Math.min(...xsAll) + 1)];
  const xs = (x) => margin.left + ((x - x0) / (x1 - x0)) * (width - margin.left - margin.right);
  const parts = [];
  for (const y of log ? logTicks(low, high) : linearTicks(low, high, 5)) {
    parts.push(draw("path", { class: "axis", d: `M${margin.left} ${ys(y)}H${width - margin.right}` }));
    parts.push(draw("text", { x: margin.left - 7, y: ys(y) + 4, "text-anchor": "end" }, plain(spec.y.words(y))));
  }
  const step = names ? Math.ceil((names.length * 15) / (width - margin.left - margin.right)) : 1;
  for (const x of names ? names.map((_, k) => k).filter((k) => k % step === 0) : linearTicks(x0, x1, 6)) {
    const text = names ? names[x] : plain(significant(x));
    const at = { x: xs(x), y: height - margin.bottom + 17 };
    const cut = text.length > 14 ? text.slice(0, 13) + "…" : text;
    if (slanted) parts.push(draw("text", { ...at, "text-anchor": "end", transform: `rotate(-40 ${at.x} ${at.y - 4})` }, cut));
    else parts.push(draw("text", { ...at, "text-anchor": "middle" }, text));
  }
  parts.push(draw("text", { x: (margin.left + width - margin.right) / 2, y: height - 3, "text-anchor": "middle" }, spec.x.label));
  for (const s of spec.series) {
    const points = s.points.filter((p) => p[1] != null);
    const shift = s.shift || 0;
    const group = draw("g", { class: "colour", style: `--hue:${s.hue}` });
    for (const [x, y] of s.dots || []) group.append(draw("circle", { class: "dot", cx: xs(x) + shift, cy: ys(y), r: 2, fill: "currentColor" }));
    for (const [x, lower, upper] of s.whiskers || [])
      group.append(draw("path", { class: "whisker", stroke: "currentColor", d: `M${xs(x) + shift} ${ys(log ? Math.max(lower, low) : lower)}V${ys(upper)}` }));
    group.append(
      draw("path", { class: "line", stroke: "currentColor", d: points.map((p, k) => `${k ? "L" : "M"}${xs(p[0]) + shift} ${ys(p[1])}`).join("") }, draw("title", {}, s.name))
    );
    if (names) for (const [x, y] of points) group.append(draw("circle", { cx: xs(x) + shift, cy: ys(y), r: 3.2, fill: "currentColor" }, draw("title", {}, `${s.name ? s.name + ", " : ""}${names[x]}: ${spec.y.words(y)}`)));
    parts.push(group);
  }
  host.replaceChildren(draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": spec.said }, ...parts));
}

function logTicks(low, high) {
  const ticks = (digits) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of digits) found.push(digit * 10 ** power);
    return found.filter((y) => y >= low && y <= high);
  };
  const inside = ticks([1, 2, 5]);
  if (inside.length < 3) return ticks([1, 1.5, 2, 3, 5, 7]);
  const tens = inside.filter((y) => Math.abs(Math.log10(y) - Math.round(Math.log10(y))) < 1e-9);
  return inside.length > 8 && tens.length > 1 ? tens : inside;
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= raw) * power;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function legend(list, series) {
  list.replaceChildren(...series.filter((s) => s.name).map((s) => make("li", { class: "colour", style: `--hue:${s.hue}` }, make("span", {}, s.name))));
}

// ---- what is shown: columns, rows, filters

const state = { columns: 0, order: "name", by: null, search: "", low: null, high: null, off: data.keys.map(() => new Set()) };
// of several keys the layer, else the one with the most values, runs across
const layer = data.keys.findIndex((key) => key.key === "layer");
state.columns = layer >= 0 ? layer : data.keys.reduce((best, key, k) => (key.values.length > data.keys[best].values.length ? k : best), 0);
const across = () => data.keys[state.columns];
const factor = mainly === "error" ? 100 : 1;

let columns = []; // {name, value}
let bands = []; // combinations of all other keys: {name, jobs: [job or undefined, one for each column]}
let rows = []; // {photo, band, values: [number or null], mean}

function layOut() {
  const kept = data.jobs.filter((job) => job.point.every((value, key) => !state.off[key].has(value)));
  if (!data.keys.length) {
    columns = [{ name: data.jobs[0].label, value: 0 }];
    bands = [{ name: "", jobs: [data.jobs[0]] }];
    return;
  }
  const used = new Set(kept.map((job) => job.point[state.columns]));
  columns = across().values.map((name, value) => ({ name, value })).filter((column) => used.has(column.value));
  const found = new Map();
  for (const job of kept) {
    const rest = job.point.map((value, key) => (key === state.columns ? "" : value));
    const id = rest.join(" ");
    if (!found.has(id)) found.set(id, { rest, name: job.point.map((value, key) => (key === state.columns ? null : wordsOf(key, value))).filter(Boolean).join(", "), jobs: [] });
    found.get(id).jobs[columns.findIndex((column) => column.value === job.point[state.columns])] = job;
  }
  bands = [...found.values()].sort((a, b) => a.rest.reduce((order, value, k) => order || (value === "" ? 0 : value - b.rest[k]), 0));
}

const restartsOf = (job, photo) => job?.cells[photo]?.restarts || [];

function arrange() {
  rows = [];
  const wanted = state.search.toLowerCase();
  let cells = 0, inside = 0;
  data.photos.forEach((photo, number) => {
    for (const band of bands) {
      const values = columns.map((_, k) => restartsOf(band.jobs[k], number)[0]?.value ?? null);
      const there = values.filter((value) => value != null);
      const unfinished = band.jobs.some((job) => job && !restartsOf(job, number).length);
      if (!there.length && !unfinished) continue;
      cells += there.length;
      if (!photoName(photo).toLowerCase().includes(wanted)) continue;
      const kept = there.filter(within);
      if ((state.low != null || state.high != null) && !kept.length) continue;
      inside += kept.length;
      rows.push({ photo: number, band, values, mean: there.length ? there.reduce((a, b) => a + b) / there.length : null });
    }
  });
  const key = state.by == null ? (row) => row.mean : (row) => row.values[state.by];
  if (state.order !== "name") {
    const sign = state.order === "up" ? 1 : -1;
    rows.sort((a, b) => (key(a) == null) - (key(b) == null) || sign * (key(a) - key(b)) || a.photo - b.photo);
  }
  const photos = new Set(rows.map((row) => row.photo)).size;
  byId("count").textContent = `${photos} of ${data.photos.length} photos, ${inside} of ${cells} pre-images`;
}

const within = (value) => (state.low == null || factor * value >= state.low) && (state.high == null || factor * value <= state.high);

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

const calm = matchMedia("(prefers-reduced-motion: no-preference)");

// ---- closer: one pre-image

const closer = byId("closer");
let here = null; // {row, column, restart}

function open(row, column) {
  here = { row, column, restart: 0 };
  closerShow();
  if (!closer.open) closer.showModal();
  closer.scrollTop = 0;
  drawCurve(); // now that its width is known
}

function source(pair) {
  return pair[1] >= 0 ? data.full[pair[1]] : pair[0] >= 0 ? thumb(pair[0]) : "";
}

function put(figure, pair, alt) {
  const img = figure.querySelector("img");
  img.onerror = () => { img.onerror = null; if (pair[0] >= 0) img.src = thumb(pair[0]); };
  img.alt = alt;
  img.hidden = pair[0] < 0 && pair[1] < 0;
  img.src = source(pair);
}

function closerShow() {
  const { row, column } = here;
  const job = rows[row].band.jobs[column];
  const photo = data.photos[rows[row].photo];
  const cell = job.cells[rows[row].photo];
  const restart = cell.restarts[Math.min(here.restart, cell.restarts.length - 1)];
  byId("closer-title").textContent = `${photoName(photo)} · ${nameOf(job)}`;
  byId("original").hidden = cell.photo[0] < 0;
  put(byId("original"), cell.photo, `Photo ${photoName(photo)} as the representation saw it`);
  put(byId("found"), restart.picture, `Pre-image ${restart.n} of ${photoName(photo)}, ${nameOf(job)}`);
  byId("found").querySelector("figcaption").replaceChildren(`pre-image, restart ${restart.n}: ${job.shows} `, make("b", {}, shown(job, restart.value)));
  byId("original").querySelector("figcaption").textContent = "photo as Φ saw it" + seen(job, cell);
  const image = byId("original").querySelector("img");
  byId("original").querySelectorAll(".field").forEach((box) => box.remove());
  image.onload = () => frame(job, cell, image);
  if (image.complete && image.naturalWidth) frame(job, cell, image);
  const film = byId("film");
  film.hidden = !restart.film;
  film.querySelector(".frame").replaceChildren(...(!restart.film ? [] : [restart.mp4
    ? make("video", { src: restart.film, controls: true, loop: true, autoplay: calm.matches, playsinline: true, preload: "metadata", "aria-label": "Film of the pre-image over the passes" })
    : make("img", { src: restart.film, alt: "Film of the pre-image over the passes" })]));
  if (restart.mp4) film.querySelector("video").muted = true; // the attribute alone does not count on elements made here
  const several = cell.restarts.length > 1;
  byId("closer").querySelector(".restarts").replaceChildren(...(several ? cell.restarts.map((one, k) => {
    const button = make("button", { type: "button", "aria-pressed": String(one === restart) }, picture(one.picture[0], `Restart ${one.n}`), shown(job, one.value));
    button.addEventListener("click", () => { here.restart = k; closerShow(); drawCurve(); closer.querySelectorAll(".restarts button")[k].focus(); });
    return button;
  }) : []));
  byId("measures").tBodies[0].replaceChildren(
    ...data.measures.map((measure, k) => (restart.measures[k] == null ? null : make("tr", {}, make("th", { scope: "row" }, measure.name), make("td", {}, measure.percent ? percent(restart.measures[k]) : plain(significant(restart.measures[k], 4)))))).filter(Boolean),
    ...(restart.class ? [make("tr", {}, make("th", { scope: "row" }, "class"), make("td", {}, restart.class))] : [])
  );
  byId("command").textContent = job.command;
  byId("config").textContent = job.config;
  byId("folder").href = job.folder;
  byId("copy").textContent = "copy";
  const free = (r, c) => Boolean(rows[r]?.band.jobs[c]?.cells[rows[r].photo]);
  for (const [id, r, c] of neighbours()) byId(id).disabled = !free(r, c);
}

const neighbours = () => [["before", here.row, here.column - 1], ["after", here.row, here.column + 1], ["above", here.row - 1, here.column], ["below", here.row + 1, here.column]];

function seen(job, cell) {
  if (cell.boxes.length) return `; dashed: what the region ${job.region} of the code sees`;
  if (job.region || job.field == null || job.start == null) return "";
  return `; a position of the code sees ${job.field} × ${job.field} px, every ${job.stride} px: dashed, the one in the middle`;
}

// dashed: what the region that is matched sees in this photo, or else the position in the middle
function frame(job, cell, image) {
  const sides = [image.naturalHeight, image.naturalWidth];
  const boxes = cell.boxes.length ? cell.boxes : middle(job, sides);
  byId("original").querySelectorAll(".field").forEach((box) => box.remove());
  byId("original").querySelector(".frame").append(...boxes.map((box) => {
    const [top, left, bottom, right] = box.map((at, k) => (100 * at) / sides[k % 2]);
    const drawn = make("div", { class: "field" });
    Object.assign(drawn.style, { top: top + "%", left: left + "%", height: bottom - top + "%", width: right - left + "%" });
    return drawn;
  }));
}

function middle(job, sides) {
  if (job.region || job.field == null || job.start == null) return [];
  const corner = sides.map((side, k) => job.start[k] + job.stride * Math.ceil((side / 2 - job.field / 2 - job.start[k]) / job.stride - 0.5));
  return [[...corner, ...corner.map((at) => at + job.field)]];
}

function drawCurve() {
  const { row, column } = here;
  const job = rows[row].band.jobs[column];
  const restarts = job.cells[rows[row].photo].restarts;
  const chosen = Math.min(here.restart, restarts.length - 1);
  const series = restarts.map((one, k) => ({ name: `restart ${one.n}`, hue: k === chosen ? 220 : 90, points: one.curve.map((value, i) => [job.axes[one.axis][i], value]) }));
  const mean = { name: "mean of the job", hue: 30, points: job.curve };
  const lines = [mean, ...series.filter((_, k) => k !== chosen), series[chosen]];
  const figure = byId("curve");
  figure.querySelector("figcaption").textContent = `${job.shows} against pass`;
  plot(figure.querySelector(".plot"), { series: lines, x: { label: "pass" }, y: { words: (y) => shown(job, y) },
    said: `${job.shows} falls from ${shown(job, restarts[chosen].curve[0])} to ${shown(job, restarts[chosen].value)}` });
  legend(figure.querySelector(".legend"), [series[chosen], ...(restarts.length > 1 ? [{ name: "other restarts", hue: 90 }] : []), mean]);
}

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

// ---- plots of all jobs

function plots() {
  const [figure, second] = [byId("by-key"), byId("by-pass")];
  const jobs = bands.flatMap((band) => columns.map((_, c) => band.jobs[c])).filter((job) => job?.shows === mainly && job.curve.length > 1);
  figure.hidden = columns.length < 2;
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

// ---- controls

document.querySelectorAll(".shows").forEach((element) => (element.textContent = mainly));
byId("unit").textContent = mainly === "error" ? "%" : "";
if (mainly === "activation") for (const id of ["low", "high"]) byId(id).removeAttribute("min");
byId("columns-tool").hidden = data.keys.length < 2;
byId("columns").append(...data.keys.map((key, k) => make("option", { value: k, selected: k === state.columns }, key.name)));
byId("columns").addEventListener("input", (event) => { state.columns = Number(event.target.value); state.by = null; again(); });
byId("sort").addEventListener("input", (event) => { state.order = event.target.value; state.by = null; show(); });
byId("search").addEventListener("input", (event) => { state.search = event.target.value; show(); });
for (const id of ["low", "high"])
  byId(id).addEventListener("input", (event) => { state[id] = event.target.value === "" ? null : Number(event.target.value); show(); });
const few = data.keys.map((key, k) => [key, k]).filter(([key]) => key.values.length <= 40);
byId("only").hidden = !few.length;
byId("only").querySelector("div").append(...few.map(([key, k]) => make("fieldset", {}, make("legend", {}, key.name), ...key.values.map((name, value) => {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("input", () => { state.off[k][box.checked ? "delete" : "add"](value); again(); });
  return make("label", {}, box, " ", name);
}))));
const tools = document.querySelector(".tools");
tools.addEventListener("submit", (event) => event.preventDefault());
tools.addEventListener("reset", (event) => {
  event.preventDefault();
  tools.querySelectorAll("input").forEach((input) => (input.type === "checkbox" ? (input.checked = true) : (input.value = "")));
  byId("sort").value = "name";
  Object.assign(state, { search: "", low: null, high: null, by: null, order: "name" });
  state.off.forEach((set) => set.clear());
  again();
});

function again() {
  layOut();
  plots();
  show();
}

const table = byId("table");
table.querySelectorAll("th button").forEach((button, k) =>
  button.addEventListener("click", () => {
    const th = button.parentElement;
    const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[k].dataset.value;
    const number = (row) => (value(row) === "inf" ? Infinity : Number(value(row)));
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (value(a) === "") - (value(b) === "") || sign * ((number(a) > number(b)) - (number(a) < number(b)))));
  })
);

let wide = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === wide) return;
  wide = innerWidth;
  plots();
  if (closer.open) drawCurve();
});
again();
