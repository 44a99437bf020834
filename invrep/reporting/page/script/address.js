// ---- the address: what is open stands after the # of the page's address, so that a link reopens it and Back closes it

// by names, not by numbers: a page that is made again after more jobs still finds the picture
function address() {
  const [job, restart] = [jobHere(), restartHere()];
  const words = new URLSearchParams({ ...groupWords(group), photo: data.photos[rows[here.row].photo].name });
  data.keys.forEach((key, k) => words.set(key.key, key.values[job.point[k]]));
  if (restart.n) words.set("restart", restart.n);
  if (here.start) words.set("start", "");
  if (view.slide) words.set("slider", split.value);
  if (view.difference) words.set("difference", "");
  if (zoomWords()) words.set("zoom", zoomWords());
  return "#" + words;
}

// a page inside another page, as in a notebook, may have no history
function remember(method, url) {
  try {
    history[method]({ opened: method === "pushState" || history.state?.opened }, "", url);
  } catch { /* nothing to go back to */ }
}

// a browser refuses many changes of the address in a short time, such as those of a drag
let noting = 0;
function note() {
  clearTimeout(noting);
  if (here && closer.open && !following) noting = setTimeout(() => closer.open && remember("replaceState", address()), 250);
}

let following = false;
function follow() {
  const words = new URLSearchParams(location.hash.slice(1));
  const place = words.has("photo") ? placeOf(words) : null;
  if (!place) return closer.open && closer.close();
  following = true;
  view.slide = words.has("slider");
  view.difference = words.has("difference");
  if (view.slide) splitAt(words.get("slider"));
  open(...place, words.has("start"));
  move(place[0], place[1], false);
  zoomTo(words.get("zoom"));
  following = false;
}

// row, column and number of the restart; null for what is not on this page
function placeOf(words) {
  const job = data.jobs.find((one) => data.keys.every((key, k) => words.get(key.key) === key.values[one.point[k]]));
  const photo = data.photos.findIndex((one, number) => one.name === words.get("photo") && job?.cells[number]);
  if (photo < 0) return null;
  const find = () => rows.findIndex((row) => row.photo === photo && row.band.jobs.includes(job));
  if (find() < 0) tools.reset(); // it may be filtered out
  const row = find();
  if (row < 0) return null;
  const restart = job.cells[photo].restarts.findIndex((one) => String(one.n) === (words.get("restart") ?? "0"));
  return [row, rows[row].band.jobs.indexOf(job), Math.max(restart, 0)];
}

addEventListener("popstate", follow);
closer.addEventListener("close", () => {
  clearTimeout(noting);
  if (!location.hash) return;
  if (history.state?.opened) history.back();
  else remember("replaceState", location.href.split("#")[0] + groupHash(group));
});
