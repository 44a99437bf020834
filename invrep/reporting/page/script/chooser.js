// ---- the chooser of a page of mixed jobs: a link for each group

function cardOf(one, k) {
  const jobs = one.jobs.map((number) => data.every[number]);
  const restart = jobs.flatMap((job) => Object.values(job.cells)).at(0)?.restarts[0];
  const photos = new Set(jobs.flatMap((job) => Object.keys(job.cells))).size;
  return make("li", {}, make("a", { href: groupHash(one), "aria-current": k === data.chosen ? "true" : null },
    picture(restart ? restart.picture[0] : -1, ""),
    make("span", {}, make("b", {}, one.title), make("small", {}, `${many(jobs.length, "job")}, ${many(photos, "photo")}`))));
}

const many = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

if (data.groups.length > 1) {
  byId("chooser").querySelector("ul").append(...data.groups.map(cardOf));
  // the page begins anew with another group: all of its parts are made for one
  addEventListener("hashchange", () => {
    const below = location.hash && document.getElementById(location.hash.slice(1)); // a link to a part of this page
    if (!below && groupWanted() !== data.chosen) location.reload();
  });
}
