// ---- the grid's keys: one cell has Tab's focus, arrows move it

const cellAt = ([row, column]) => {
  if (lines[row]) furnish(lines[row]);
  return lines[row]?.children[column + 1]?.firstChild;
};

function move(row, column, focus = true) {
  const target = [Math.min(Math.max(row, 0), rows.length - 1), Math.min(Math.max(column, 0), columns.length - 1)];
  const cell = cellAt(target);
  if (!cell) return;
  const before = cellAt(at);
  if (before) before.tabIndex = -1;
  cell.tabIndex = 0;
  at = target;
  if (!focus) return;
  cell.focus({ preventScroll: true });
  cell.scrollIntoView({ block: "nearest", inline: "nearest" }); // scroll-margin keeps it clear of headings and photo
}

// in cards a step up or down stays in the photo's row while there are cells
function vertical(row, column, step) {
  if (!grid.classList.contains("cards")) return [row + step, column];
  const there = column + step * inLine;
  if (there >= 0 && there < columns.length) return [row, there];
  return step > 0 ? [row + 1, 0] : [row - 1, row ? columns.length - 1 : 0];
}

grid.addEventListener("keydown", (event) => {
  if (!event.target.dataset.at || event.altKey || event.metaKey) return;
  const [row, column] = event.target.dataset.at.split(" ").map(Number);
  const page = Math.max(1, Math.floor(Math.min(innerHeight, grid.clientHeight) / lines[0].offsetHeight) - 1);
  const places = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    ArrowUp: vertical(row, column, -1), ArrowDown: vertical(row, column, 1),
    PageUp: [row - page, column], PageDown: [row + page, column],
    Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? rows.length : row, columns.length],
  };
  if (!places[event.key]) return;
  event.preventDefault();
  move(...places[event.key]);
});
grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  const [row, column] = cell.dataset.at.split(" ").map(Number);
  move(row, column, false);
  if (!cell.hasAttribute("aria-disabled")) open(row, column);
});
