// ---- values of a plot's lines at the pointer, or by the arrow keys

const MOST_READ = 8; // lines whose values fit beside the pointer: those nearest to it

function crosshair(host, svg, spec, x, y, box) {
  const places = [...new Set(spec.series.flatMap((one) => one.points.filter((point) => point[1] != null).map((point) => point[0])))].sort((a, b) => a - b);
  const values = spec.series.map((one) => new Map(one.points.filter((point) => point[1] != null)));
  const rule = draw("g", { class: "rule" });
  const reading = make("div", { class: "reading", "aria-live": "polite" });
  let now = null; // index of the place that is read
  svg.append(rule);
  host.append(reading);
  host.tabIndex = 0;
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", "Plot; the arrow keys read its values");

  function read(k, height) {
    now = k;
    const place = places[k];
    const there = spec.series.map((one, n) => ({ one, value: values[n].get(place) })).filter((found) => found.value != null);
    const far = (found) => Math.abs(y.at(found.value) - height);
    const some = there.length > MOST_READ && height != null ? [...there].sort((a, b) => far(a) - far(b)).slice(0, MOST_READ) : there.slice(0, MOST_READ);
    const at = x.at(place);
    rule.replaceChildren(draw("path", { d: `M${at} ${box.margin.top}V${box.height - box.margin.bottom}` }),
      ...some.map(({ one, value }) => draw("circle", { class: "colour", style: `--hue:${one.hue}`, cx: at + (one.shift || 0), cy: y.at(value), r: 4 })));
    some.sort((a, b) => b.value - a.value);
    const title = spec.x.names ? spec.x.names[place] : `${spec.x.label} ${place}`;
    reading.replaceChildren(make("b", {}, title), ...some.map(({ one, value }) => row(one, place, value)),
      ...(there.length > some.length ? [make("small", {}, `and ${there.length - some.length} more`)] : []));
    const scale = svg.clientWidth / box.width;
    reading.hidden = false;
    const left = at * scale + 12 + reading.offsetWidth > host.clientWidth ? at * scale - 12 - reading.offsetWidth : at * scale + 12;
    reading.style.left = Math.max(0, left) + "px";
  }

  function row(one, place, value) {
    const whisker = (one.whiskers || []).find((found) => found[0] === place);
    const interval = whisker ? ` (${spec.y.words(whisker[1])} to ${spec.y.words(whisker[2])})` : "";
    return make("span", { class: "colour", style: `--hue:${one.hue}` }, make("span", {}, one.name ? `${one.name} ` : ""), make("span", { class: "value" }, spec.y.words(value) + interval));
  }

  function quiet() {
    now = null;
    rule.replaceChildren();
    reading.replaceChildren();
    reading.hidden = true;
  }

  quiet();
  const track = (event) => {
    const bounds = svg.getBoundingClientRect();
    const scale = box.width / bounds.width;
    const wanted = (event.clientX - bounds.left) * scale;
    const nearest = places.reduce((best, place, k) => (Math.abs(x.at(place) - wanted) < Math.abs(x.at(places[best]) - wanted) ? k : best), 0);
    read(nearest, (event.clientY - bounds.top) * scale);
  };
  svg.addEventListener("pointermove", track);
  svg.addEventListener("pointerdown", track);
  svg.addEventListener("pointerleave", quiet);
  host.onblur = quiet;
  host.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -places.length, End: places.length }[event.key];
    if (event.key === "Escape" && now != null) {
      event.preventDefault();
      event.stopPropagation();
      quiet();
    }
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // in the view of a pre-image these keys lead to its neighbours
    read(Math.min(Math.max((now ?? (step > 0 ? -1 : places.length)) + step, 0), places.length - 1));
  };
}
