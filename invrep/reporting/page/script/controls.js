// ---- the controls of the grid

document.querySelectorAll(".shows").forEach((element) => (element.textContent = mainly));
byId("unit").textContent = mainly === "error" ? "%" : "";
if (mainly === "activation") for (const id of ["low", "high"]) byId(id).removeAttribute("min");
byId("columns-tool").hidden = data.keys.length < 2;
byId("columns").append(...data.keys.map((key, k) => make("option", { value: k, selected: k === state.columns }, key.name)));
byId("columns").addEventListener("input", (event) => { state.columns = Number(event.target.value); state.by = null; again(); });
byId("sort").addEventListener("input", (event) => { state.order = event.target.value; state.by = null; layOut(); show(); });
byId("search").addEventListener("input", (event) => { state.search = event.target.value; show(); });
for (const id of ["low", "high"])
  byId(id).addEventListener("input", (event) => { state[id] = event.target.value === "" ? null : Number(event.target.value); show(); });
const few = data.keys.map((key, k) => [key, k]).filter(([key]) => key.values.length <= 40);
byId("only").hidden = !few.length;
byId("only").append(...few.map(([key, k]) => make("fieldset", {}, make("legend", {}, key.name), ...key.values.map((name, value) => {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("input", () => { state.off[k][box.checked ? "delete" : "add"](value); again(); });
  return make("label", {}, box, " ", name);
}))));
byId("filter").addEventListener("keydown", (event) => { if (event.key === "Escape") byId("filter").open = false; });
document.addEventListener("pointerdown", (event) => { if (!byId("filter").contains(event.target)) byId("filter").open = false; });
const tools = document.querySelector(".tools form");
tools.addEventListener("submit", (event) => event.preventDefault());
tools.addEventListener("reset", (event) => {
  event.preventDefault();
  tools.querySelectorAll("input").forEach((input) => (input.type === "checkbox" ? (input.checked = true) : (input.value = "")));
  byId("sort").value = "name";
  Object.assign(state, { search: "", low: null, high: null, by: null, order: "name" });
  state.off.forEach((set) => set.clear());
  again();
});

function again() {
  layOut();
  show();
  setTimeout(plots); // pictures first
}

let wide = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === wide) return;
  wide = innerWidth;
  measure();
  plots();
  if (closer.open) drawCurve();
});
again();
if (location.hash) follow();
// on paper: cells as wide as a page allows, and every picture
addEventListener("beforeprint", () => {
  measure(680);
  lines.forEach(furnish);
  grid.querySelectorAll("img:not([src])").forEach(fetchThumb);
});
addEventListener("afterprint", () => measure());
addEventListener("DOMContentLoaded", () => { if (closer.open) closerShow(); }); // full sizes are there now
