// ---- plots, as SVG: a canvas, as uPlot's, could not be downloaded as one

// spec: series of {name, hue, points: [[x, y]], whiskers: [[x, low, high]], dots: [[x, y]], shift}; a point without y
// parts its line. x: {label, names} or {label, log}, y: {label, words, log}; said: what a screen reader says
function plot(host, spec) {
  const width = Math.max(260, host.clientWidth || 480);
  const names = spec.x.names;
  const slanted = names && names.length * Math.max(...names.map((name) => name.length)) * 7 > width - 80;
  const margin = { left: 58, right: 14, top: 10, bottom: slanted ? 100 : 44 };
  const box = { width, height: 230 + margin.bottom, margin };
  const y = verticalScale(spec.series, box, spec.y.log);
  host.replaceChildren();
  if (!y) return;
  const x = horizontalScale(spec.series, spec.x, box);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${box.height}`, height: box.height, role: "img", "aria-label": spec.said },
    ...verticalAxis(y, spec.y.words, box), ...horizontalAxis(x, spec.x, slanted, box),
    ...spec.series.map((one) => line(one, x, y, names, spec.y.words)));
  host.append(svg);
  crosshair(host, svg, spec, x, y, box);
}

function verticalAxis(y, words, { width, margin }) {
  return y.ticks.flatMap((tick) => [
    draw("path", { class: "axis", d: `M${margin.left} ${y.at(tick)}H${width - margin.right}` }),
    draw("text", { x: margin.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, plain(words(tick))),
  ]);
}

function horizontalAxis(x, { label, names }, slanted, { width, height, margin }) {
  const marks = x.ticks.map((tick) => {
    const text = names ? names[tick] : plain(significant(tick, Math.max(3, String(Math.round(tick)).length)));
    const at = { x: x.at(tick), y: height - margin.bottom + 17 };
    if (!slanted) return draw("text", { ...at, "text-anchor": "middle" }, text);
    const cut = text.length > 14 ? text.slice(0, 13) + "…" : text;
    return draw("text", { ...at, "text-anchor": "end", transform: `rotate(-40 ${at.x} ${at.y - 4})` }, cut);
  });
  const middle = (margin.left + width - margin.right) / 2;
  return [...marks, draw("text", { x: middle, y: height - 3, "text-anchor": "middle" }, label)];
}

function line(one, x, y, names, words) {
  const at = (value) => x.at(value) + (one.shift || 0);
  const group = draw("g", { class: "colour", style: `--hue:${one.hue}` });
  for (const [value, height] of one.dots || [])
    group.append(draw("circle", { class: "dot", cx: at(value), cy: y.at(height), r: 2, fill: "currentColor" }));
  for (const [value, low, high] of one.whiskers || [])
    group.append(draw("path", { class: "whisker", stroke: "currentColor", d: `M${at(value)} ${y.at(low)}V${y.at(high)}` }));
  let pen = "M"; // lifted where a point has no value
  const path = one.points.map(([value, height]) => {
    if (height == null) pen = "M";
    const step = height == null ? "" : `${pen}${at(value).toFixed(1)} ${y.at(height).toFixed(1)}`;
    if (height != null) pen = "L";
    return step;
  }).join("");
  group.append(draw("path", { class: "line", stroke: "currentColor", d: path }));
  for (const [value, height] of names ? one.points : [])
    if (height != null) group.append(draw("circle", { class: "point", cx: at(value), cy: y.at(height), r: 3.2, fill: "currentColor" }));
  return group;
}

function legend(list, series) {
  list.replaceChildren(...series.filter((s) => s.name).map((s) => make("li", { class: "colour", style: `--hue:${s.hue}` }, make("span", {}, s.name))));
}
