// ---- plots

// spec: series of {name, hue, points: [[x, y]], whiskers: [[x, low, high]], dots: [[x, y]], shift},
// x: {label, names} or {label}, y: {label, words}; said: what a screen reader says
function plot(host, spec) {
  const width = Math.max(260, host.clientWidth || 480);
  const names = spec.x.names;
  const slanted = names && names.length * Math.max(...names.map((name) => name.length)) * 7 > width - 80;
  const margin = { left: 58, right: 14, top: 10, bottom: slanted ? 100 : 44 };
  const box = { width, height: 230 + margin.bottom, margin };
  const y = verticalScale(spec.series, box);
  if (!y) return host.replaceChildren();
  const x = horizontalScale(spec.series, names, box);
  host.replaceChildren(
    draw("svg", { viewBox: `0 0 ${width} ${box.height}`, height: box.height, role: "img", "aria-label": spec.said },
      ...verticalAxis(y, spec.y.words, box), ...horizontalAxis(x, spec.x, slanted, box),
      ...spec.series.map((one) => line(one, x, y, names, spec.y.words)))
  );
}

// logarithmic where all values are positive and a factor of three apart; undefined where there are none
function verticalScale(series, { height, margin }) {
  const all = series.flatMap((one) => [...one.points, ...(one.dots || [])].map((point) => point[1])).filter((y) => y != null);
  if (!all.length) return;
  const log = all.every((y) => y > 0) && Math.max(...all) / Math.min(...all) > 3;
  const ends = series.flatMap((one) => (one.whiskers || []).flatMap((whisker) => [whisker[1], whisker[2]]));
  const extremes = all.concat(ends.filter((y) => !log || y > 0));
  let [low, high] = [Math.min(...extremes), Math.max(...extremes)];
  if (log) low = Math.max(low, Math.min(...all) / 2);
  else if (low >= 0 && low < high / 2) low = 0;
  if (low === high) {
    const room = 0.5 * Math.abs(low || 1);
    [low, high] = log ? [low / 1.5, high * 1.5] : [low - room, high + room];
  }
  const f = log ? Math.log10 : (value) => value;
  const pad = 0.04 * (f(high) - f(low));
  const part = (y) => (f(log ? Math.max(y, low) : y) - f(low) + pad) / (f(high) - f(low) + 2 * pad);
  const at = (y) => height - margin.bottom - part(y) * (height - margin.top - margin.bottom);
  return { at, ticks: log ? logTicks(low, high) : linearTicks(low, high, 5) };
}

function horizontalScale(series, names, { width, margin }) {
  const all = series.flatMap((one) => one.points.map((point) => point[0]));
  const [x0, x1] = names ? [-0.5, names.length - 0.5] : [Math.min(...all), Math.max(...all, Math.min(...all) + 1)];
  const length = width - margin.left - margin.right;
  const every = names ? Math.ceil((names.length * 15) / length) : 1;
  const ticks = names ? names.map((_, k) => k).filter((k) => k % every === 0) : linearTicks(x0, x1, 6);
  return { at: (x) => margin.left + ((x - x0) / (x1 - x0)) * length, ticks };
}

function verticalAxis(y, words, { width, margin }) {
  return y.ticks.flatMap((tick) => [
    draw("path", { class: "axis", d: `M${margin.left} ${y.at(tick)}H${width - margin.right}` }),
    draw("text", { x: margin.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, plain(words(tick))),
  ]);
}

function horizontalAxis(x, { label, names }, slanted, { width, height, margin }) {
  const marks = x.ticks.map((tick) => {
    const text = names ? names[tick] : plain(significant(tick));
    const at = { x: x.at(tick), y: height - margin.bottom + 17 };
    if (!slanted) return draw("text", { ...at, "text-anchor": "middle" }, text);
    const cut = text.length > 14 ? text.slice(0, 13) + "…" : text;
    return draw("text", { ...at, "text-anchor": "end", transform: `rotate(-40 ${at.x} ${at.y - 4})` }, cut);
  });
  const middle = (margin.left + width - margin.right) / 2;
  return [...marks, draw("text", { x: middle, y: height - 3, "text-anchor": "middle" }, label)];
}

function line(one, x, y, names, words) {
  const points = one.points.filter((point) => point[1] != null);
  const at = (value) => x.at(value) + (one.shift || 0);
  const group = draw("g", { class: "colour", style: `--hue:${one.hue}` });
  for (const [value, height] of one.dots || [])
    group.append(draw("circle", { class: "dot", cx: at(value), cy: y.at(height), r: 2, fill: "currentColor" }));
  for (const [value, low, high] of one.whiskers || [])
    group.append(draw("path", { class: "whisker", stroke: "currentColor", d: `M${at(value)} ${y.at(low)}V${y.at(high)}` }));
  const path = points.map(([value, height], k) => `${k ? "L" : "M"}${at(value)} ${y.at(height)}`).join("");
  group.append(draw("path", { class: "line", stroke: "currentColor", d: path }, draw("title", {}, one.name)));
  if (!names) return group;
  for (const [value, height] of points) {
    const said = `${one.name ? one.name + ", " : ""}${names[value]}: ${words(height)}`;
    group.append(draw("circle", { cx: at(value), cy: y.at(height), r: 3.2, fill: "currentColor" }, draw("title", {}, said)));
  }
  return group;
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
