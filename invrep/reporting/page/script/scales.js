// ---- scales of plots: linear or logarithmic, and where their ticks stand

// logarithmic if asked for, else where all values are positive and a factor of three apart; undefined where there are none
function verticalScale(series, { height, margin }, wanted) {
  const all = series.flatMap((one) => [...one.points, ...(one.dots || [])].map((point) => point[1])).filter((y) => y != null);
  if (!all.length) return;
  const positive = all.filter((y) => y > 0);
  const log = positive.length === all.length ? wanted || Math.max(...all) / Math.min(...all) > 3 : wanted && positive.length && all.every((y) => y >= 0);
  const ends = series.flatMap((one) => (one.whiskers || []).flatMap((whisker) => [whisker[1], whisker[2]]));
  const extremes = (log ? positive : all).concat(ends.filter((y) => !log || y > 0));
  let [low, high] = [smallest(extremes), -smallest(extremes.map((y) => -y))];
  if (log) low = Math.max(low, smallest(positive) / 2);
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

// of passes: log(1 + pass), so that the start, pass 0, has its place
function horizontalScale(series, { names, log }, { width, margin }) {
  const all = series.flatMap((one) => one.points.map((point) => point[0]));
  const [x0, x1] = names ? [-0.5, names.length - 0.5] : [smallest(all), Math.max(-smallest(all.map((x) => -x)), smallest(all) + 1)];
  const length = width - margin.left - margin.right;
  const f = log ? Math.log1p : (value) => value;
  const at = (x) => margin.left + ((f(x) - f(x0)) / (f(x1) - f(x0))) * length;
  const every = names ? Math.ceil((names.length * 15) / length) : 1;
  const ticks = names ? names.map((_, k) => k).filter((k) => k % every === 0) : log ? passTicks(x0, x1, at) : linearTicks(x0, x1, 6);
  return { at, ticks };
}

const smallest = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);

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

// the ends, and of 1, 3, 10, 30, … those with room between them
function passTicks(first, last, at) {
  const found = [first];
  for (let power = 0; 10 ** power < last; power++)
    for (const tick of [10 ** power, 3 * 10 ** power])
      if (tick > first && at(tick) - at(found.at(-1)) > 30 && at(last) - at(tick) > 34) found.push(tick);
  return [...found, last];
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= raw) * power;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}
