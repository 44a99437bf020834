// ---- the table of means, which its headings sort

const table = byId("table");
table.querySelectorAll("th button").forEach((button, k) =>
  button.addEventListener("click", () => {
    const th = button.parentElement;
    const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[k].dataset.value;
    const number = (row) => (value(row) === "inf" ? Infinity : Number(value(row)));
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (value(a) === "") - (value(b) === "") || sign * ((number(a) > number(b)) - (number(a) < number(b)))));
  })
);
