// ---- the group of jobs that is shown: the rest of the script sees its jobs, keys and photos alone

const groupWanted = () => Math.max(0, data.groups.findIndex((one) => one.title === new URLSearchParams(location.hash.slice(1)).get("group")));
data.chosen = groupWanted();
data.every = data.jobs; // of all groups

const group = data.groups[data.chosen];
const groupWords = (one) => (data.groups.length > 1 ? { group: one.title } : {});
const groupHash = (one) => (data.groups.length > 1 ? "#" + new URLSearchParams(groupWords(one)) : "");

function narrow() {
  data.keys = group.keys;
  data.jobs = group.jobs.map((number) => data.every[number]);
  if (data.groups.length < 2) return;
  document.title = `${group.title} · invrep`;
  document.querySelector("h1").textContent = group.title;
  for (const parts of [".means", ".facts"]) document.querySelectorAll(parts).forEach((part, k) => (part.hidden = k !== data.chosen));
  const seen = [...new Set(data.jobs.flatMap((job) => Object.keys(job.cells).map(Number)))].sort((a, b) => a - b);
  const places = new Map(seen.map((number, k) => [number, k]));
  data.photos = seen.map((number) => data.photos[number]);
  for (const job of data.jobs) job.cells = Object.fromEntries(Object.entries(job.cells).map(([number, cell]) => [places.get(Number(number)), cell]));
}
narrow();
