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
const wordsOf = (key, value) => (data.keys[key].key === "layer" || data.keys[key].key === "rep" ? "" : data.keys[key].name + " ") + data.keys[key].values[value];
const nameOf = (job) => (job.point.length ? job.point.map((value, key) => wordsOf(key, value)).join(", ") : job.label);
const photoName = (photo) => (photo.name === "none" ? "no photo" : photo.name);

// neighbours in the order of a sweep are neighbours in hue
const hue = (k, count) => 262 - (count > 1 ? (k / (count - 1)) * 232 : 0);
