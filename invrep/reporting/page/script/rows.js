// ---- what is shown: columns, rows, filters

const state = { columns: 0, order: "name", by: null, search: "", low: null, high: null, off: data.keys.map(() => new Set()) };
// of several keys the layer, else the one with the most values, runs across
const layer = data.keys.findIndex((key) => key.key === "layer");
state.columns = layer >= 0 ? layer : data.keys.reduce((best, key, k) => (key.values.length > data.keys[best].values.length ? k : best), 0);
const across = () => data.keys[state.columns];
const factor = mainly === "error" ? 100 : 1;

let columns = []; // {name, value}
let bands = []; // combinations of all other keys: {name, jobs: [job or undefined, one for each column]}
let flat = false; // whether every job is a column: most places of a table would be empty
let rows = []; // {photo, band, values: [number or null], mean}

function layOut() {
  flat = false;
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
  // nobody scrolls far sideways: many columns of one row are better cards too
  flat = (columns.length > 60 && bands.length === 1) || (columns.length > 3 && bands.length * columns.length > 2 * kept.length);
  if (!flat) return;
  const sign = { name: 0, up: 1, down: -1 }[state.order];
  const jobs = sign ? [...kept].sort((a, b) => (a.mean == null) - (b.mean == null) || sign * (a.mean - b.mean)) : kept;
  columns = jobs.map((job, value) => ({ name: nameOf(job), value }));
  bands = [{ name: "", jobs }];
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
  const whole = (part, of, name) => `${part === of ? "" : `${part} of `}${of} ${name}${of === 1 ? "" : "s"}`;
  byId("count").textContent = `${whole(photos, data.photos.length, "photo")}, ${whole(inside, cells, "picture")}`;
}

const within = (value) => (state.low == null || factor * value >= state.low) && (state.high == null || factor * value <= state.high);
