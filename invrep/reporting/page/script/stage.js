// ---- the stage: photo and pre-image side by side or under a slider, their difference, and one zoom for both

const stage = byId("stage");
const layers = [...stage.querySelectorAll(".layer")];
const view = { slide: false, difference: false }; // kept from picture to picture
const split = byId("split");

// both layers take every transform at once; each has a Panzoom of its own for the place under the pointer
const together = (_, { scale, x, y }) => layers.forEach((layer) => (layer.style.transform = `scale(${scale}) translate(${x}px, ${y}px)`));
const zooms = layers.map((layer) => Panzoom(layer, { contain: "outside", minScale: 1, maxScale: 16, step: 0.6, panOnlyWhenZoomed: true, cursor: "", touchAction: "pan-y", setTransform: together }));
const master = () => zooms[byId("original").hidden ? 1 : 0];

layers.forEach((layer, k) => {
  layer.addEventListener("panzoomchange", ({ detail: { scale, x, y } }) => {
    const other = zooms[1 - k];
    if (layers[1 - k].offsetWidth) {
      const unseen = { silent: true, setTransform() {} }; // it only has to know: both are drawn already
      other.zoom(scale, unseen);
      other.pan(x, y, { ...unseen, force: true });
    }
    zoomed(scale);
  });
  const inside = (event) => zooms[k].getScale() > 1 || (event.deltaY < 0 && closer.scrollTop <= 0) || event.ctrlKey;
  // at 100 % the wheel scrolls the view down, as elsewhere
  layer.parentElement.addEventListener("wheel", (event) => { if (inside(event)) zooms[k].zoomWithWheel(event); }, { passive: false });
  layer.addEventListener("dblclick", (event) => (zooms[k].getScale() > 1 ? resetZoom() : zooms[k].zoomToPoint(4, event)));
});

function zoomed(scale) {
  const img = byId("found").querySelector("img");
  stage.style.setProperty("--zoom", scale);
  stage.classList.toggle("pixels", (scale * img.clientWidth) / (img.naturalWidth || 1e9) >= 3); // to see pixels as they are
  stage.classList.toggle("zoomed", scale > 1);
  zooms.forEach((zoom) => zoom.setOptions({ touchAction: scale > 1 ? "none" : "pan-y" }));
  byId("zoom-reset").textContent = `${Math.round(100 * scale)} %`;
  byId("zoom-out").disabled = scale <= 1;
  byId("zoom-in").disabled = scale >= 16;
  note();
}

// the slider's line is as high as the picture
new ResizeObserver(([{ contentRect }]) => contentRect.height && stage.style.setProperty("--frame-height", contentRect.height + "px"))
  .observe(layers[1].parentElement);

// without animation: Panzoom measures the picture as it stands to keep it in its frame
const resetZoom = () => master().reset({ animate: false });
const zoomBy = (step) => (step > 0 ? master().zoomIn({ animate: false }) : master().zoomOut({ animate: false }));

// the part of the picture that is seen, in the address: scale, and the shift in widths of the picture
function zoomWords() {
  const scale = master().getScale(), { x, y } = master().getPan(), width = layers[1].offsetWidth || 1;
  return scale > 1 ? [scale, x / width, y / width].map((value) => Number(value.toPrecision(7))).join(" ") : "";
}
function zoomTo(words) {
  const [scale, x, y] = (words || "1 0 0").split(" ").map(Number), width = layers[1].offsetWidth || 1;
  if (![scale, x, y].every(Number.isFinite)) return;
  master().zoom(scale, { animate: false });
  requestAnimationFrame(() => master().pan(x * width, y * width, { animate: false, force: true })); // it measures the zoomed picture
}

function arrangeStage() {
  const alone = byId("original").hidden;
  const slide = view.slide && !alone, difference = view.difference && !alone;
  stage.classList.toggle("slide", slide);
  stage.classList.toggle("alone", alone);
  stage.classList.toggle("difference", difference);
  split.hidden = !slide;
  byId("beside").setAttribute("aria-pressed", String(!slide));
  byId("slide").setAttribute("aria-pressed", String(slide));
  byId("difference").setAttribute("aria-pressed", String(difference));
  for (const id of ["beside", "slide", "difference"]) byId(id).disabled = alone;
  byId("found").querySelector(".other").hidden = !difference;
  note();
}

function splitAt(value) {
  split.value = value;
  stage.style.setProperty("--split", split.value + "%");
  note();
}
split.addEventListener("input", () => splitAt(split.value));

// where nothing is zoomed, a drag on the picture moves the slider too
stage.addEventListener("pointermove", (event) => {
  if (!stage.classList.contains("slide") || stage.classList.contains("zoomed") || !(event.buttons & 1) || event.target === split) return;
  const box = layers[1].parentElement.getBoundingClientRect();
  splitAt(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
});

const GAINS = [1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64];

// the factor that makes the largest differences white, but for one value in 50; thumbnails tell it where full sizes
// are linked, since a page that lies in a folder may not read their pixels
async function gainOf(photo, found) {
  const side = 192;
  const bytes = await Promise.all([photo, found].map(async (pair) => {
    const img = new Image();
    const full = source(pair);
    img.src = full.startsWith("data:") ? full : thumb(pair[0]);
    await img.decode();
    const canvas = new OffscreenCanvas(side, side).getContext("2d");
    canvas.drawImage(img, 0, 0, side, side);
    return canvas.getImageData(0, 0, side, side).data;
  }));
  const counts = new Uint32Array(256);
  bytes[0].forEach((value, k) => k % 4 < 3 && counts[Math.abs(value - bytes[1][k])]++);
  let rest = (3 * side * side) / 50, top = 255;
  while (top > 1 && (rest -= counts[top]) > 0) top--;
  return GAINS.findLast((gain) => gain * top <= 255);
}

byId("beside").addEventListener("click", () => { view.slide = false; arrangeStage(); });
byId("slide").addEventListener("click", () => { view.slide = true; arrangeStage(); });
byId("difference").addEventListener("click", () => { view.difference = !view.difference; closerShow(); });
byId("zoom-in").addEventListener("click", () => zoomBy(1));
byId("zoom-out").addEventListener("click", () => zoomBy(-1));
byId("zoom-reset").addEventListener("click", resetZoom);
