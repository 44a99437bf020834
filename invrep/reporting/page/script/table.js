// ---- the table of means: sorted by its headings, filtered, and downloaded as it is shown

const table = document.querySelector(".means:not([hidden]) table");
const texts = data.tables[data.chosen]; // {csv: [head, …rows], latex: {before, rows, after}}
const bodyRows = [...table.tBodies[0].rows];

table.querySelectorAll("th button").forEach((button, k) =>
  button.addEventListener("click", () => {
    const th = button.parentElement;
    const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[k].dataset.value;
    const number = (row) => (value(row) === "inf" ? Infinity : Number(value(row)));
    table.tBodies[0].append(...[...bodyRows].sort((a, b) => (value(a) === "") - (value(b) === "") || sign * ((number(a) > number(b)) - (number(a) < number(b)))));
  })
);

function filterTable() {
  const wanted = byId("rows-with").value.toLowerCase().split(/\s+/).filter(Boolean);
  bodyRows.forEach((row) => (row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word))));
  const count = bodyRows.filter((row) => !row.hidden).length;
  byId("rows-count").textContent = count === bodyRows.length ? "" : `${count} of ${bodyRows.length} jobs`;
}
byId("rows-with").addEventListener("input", filterTable);

const shownRows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => bodyRows.indexOf(row));
const tableName = fileName(document.title.split(" · ")[0]) + "-means";
byId("as-csv").addEventListener("click", () => download([texts.csv[0], ...shownRows().map((k) => texts.csv[k + 1])].join("\r\n") + "\r\n", tableName + ".csv", "text/csv"));
byId("as-latex").addEventListener("click", () => download([texts.latex.before, ...shownRows().map((k) => texts.latex.rows[k]), texts.latex.after].join("\n"), tableName + ".tex", "text/x-tex"));
