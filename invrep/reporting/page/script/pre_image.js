// ---- what the closer shows of one pre-image

const calm = matchMedia("(prefers-reduced-motion: no-preference)");

function source(pair) {
  return (pair[1] >= 0 && entry("full", pair[1])) || (pair[0] >= 0 && entry("thumbs", pair[0]) != null ? thumb(pair[0]) : "");
}

function put(img, pair, alt) {
  img.onerror = () => { img.onerror = null; if (pair[0] >= 0) img.src = thumb(pair[0]); };
  img.alt = alt;
  img.hidden = pair[0] < 0 && pair[1] < 0;
  img.src = source(pair);
}

function showPhoto(job, cell, name) {
  const figure = byId("original");
  figure.hidden = cell.photo[0] < 0;
  const image = figure.querySelector("img");
  put(image, cell.photo, `Photo ${name} as the representation saw it`);
  figure.querySelector("figcaption").replaceChildren(make("b", {}, "photo"), " as Φ saw it");
  byId("seen").textContent = seen(job, cell);
  figure.querySelectorAll(".field").forEach((box) => box.remove());
  image.onload = () => frame(job, cell, image);
  if (image.complete && image.naturalWidth) frame(job, cell, image);
}

function showPreImage(job, cell, restart, name) {
  const figure = byId("found");
  const [image, other] = figure.querySelectorAll("img");
  image.onload = () => stage.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  const found = here.start ? restart.start : restart.picture;
  put(image, found, `${here.start ? "Start" : "Pre-image"} ${restart.n} of ${name}, ${nameOf(job)}`);
  const caption = figure.querySelector("figcaption");
  const value = make("b", {}, shown(job, here.start ? restart.curve[0] : restart.value));
  caption.replaceChildren(make("b", {}, here.start ? "start" : "pre-image"), `${here.start ? " noise" : ""}, restart ${restart.n}: ${job.shows} `, value);
  if (!view.difference || cell.photo[0] < 0) return;
  put(other, cell.photo, "");
  const words = [make("b", {}, "difference"), ` of photo and ${here.start ? "the start of " : ""}restart ${restart.n}`];
  caption.replaceChildren(...words);
  const still = image.src;
  gainOf(cell.photo, found).then((gain) => {
    if (image.src !== still || !view.difference) return; // another picture has come
    stage.style.setProperty("--gain", gain);
    caption.replaceChildren(...words, `, ×\u202f${gain}: white is ${significant(100 / gain, 2)} % of the range`);
  }, () => {}); // a picture that cannot be decoded is not on the stage either
}

function showFilm(restart) {
  const figure = byId("film");
  const words = "Film of the pre-image over the passes";
  const playing = { controls: true, loop: true, autoplay: calm.matches, playsinline: true, preload: "metadata" };
  figure.hidden = restart.film == null;
  const film = figure.hidden ? [] : restart.mp4
    ? [make("video", { src: entry("full", restart.film), ...playing, "aria-label": words })]
    : [make("img", { src: entry("full", restart.film), alt: words })];
  figure.querySelector(".frame").replaceChildren(...film);
  if (restart.mp4) film[0].muted = true; // the attribute alone does not count on elements made here
}

function showRestarts(job, cell, restart) {
  const buttons = cell.restarts.map((one, k) => {
    const button = make("button", { type: "button", "aria-pressed": String(one === restart && !here.start) },
      picture(one.picture[0], `Restart ${one.n}`), shown(job, one.value));
    button.addEventListener("click", () => {
      goTo(k);
      closer.querySelectorAll(".restarts button:not(.start)")[k].focus();
    });
    return button;
  });
  if (restart.start) buttons.unshift(startButton(job, restart));
  closer.querySelector(".restarts").replaceChildren(...(buttons.length > 1 ? buttons : []));
}

function startButton(job, restart) {
  const button = make("button", { type: "button", class: "start", "aria-pressed": String(here.start), title: "Start noise of this restart (n)" },
    picture(restart.start[0], "Start noise"), "pass 0");
  button.addEventListener("click", () => { toStart(); closer.querySelector(".restarts .start").focus(); });
  return button;
}

function showMeasures(restart) {
  const row = (name, words) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, words));
  const known = data.measures.map((measure, k) => [measure, restart.measures[k]]).filter(([, value]) => value != null);
  byId("measures").tBodies[0].replaceChildren(
    ...known.map(([measure, value]) => row(measure.name, measure.percent ? percent(value) : plain(significant(value, 4)))),
    ...(restart.class ? [row("class", restart.class)] : [])
  );
}

function showCertificate(restart) {
  const sheet = byId("certificate"), found = restart.certificate;
  sheet.hidden = !found;
  if (!found) return;
  sheet.querySelector("ul").replaceChildren(...found.sentences.map((sentence) => make("li", {}, sentence)));
  sheet.querySelector("tbody").replaceChildren(...found.columns.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
}

function seen(job, cell) {
  if (cell.boxes.length) return `Dashed: what the region ${job.region} of the code sees.`;
  if (job.region || job.field == null || job.start == null) return "";
  return `Dashed: what the position in the middle of the code sees, ${job.field} × ${job.field} px; there is one every ${job.stride} px.`;
}

// dashed: what the region that is matched sees in this photo, or else the position in the middle
function frame(job, cell, image) {
  const sides = [image.naturalHeight, image.naturalWidth];
  const boxes = cell.boxes.length ? cell.boxes : middle(job, sides);
  byId("original").querySelectorAll(".field").forEach((box) => box.remove());
  byId("original").querySelector(".layer").append(...boxes.map((box) => {
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
