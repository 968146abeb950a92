"use strict";
// Sorting: best first, another click reverses it; rows without a value stay last in either order.
document.querySelectorAll(".ranked button").forEach(button => button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const best = head.dataset.higher === "1" ? "descending" : "ascending";
  const other = best === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === best ? other : best;
  head.parentNode.querySelectorAll("th").forEach(cell => cell.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const value = row => row.cells[column].dataset.value;
  const sign = order === "ascending" ? 1 : -1;
  [...body.rows].sort((a, b) => value(a) === undefined || value(b) === undefined
    ? (value(a) === undefined) - (value(b) === undefined) : sign * (value(a) - value(b))).forEach(row => body.append(row));
  document.getElementById("sorted").textContent =
    `sorted by ${button.getAttribute("aria-label") || button.textContent}, ${order}`;
}));
// The slider between scan and counterfactual.
document.querySelectorAll(".slider input").forEach(input => input.addEventListener("input", () => {
  input.previousElementSibling.style.setProperty("--at", input.value + "%");
  input.setAttribute("aria-valuetext", input.value + " % counterfactual");
}));
// On paper everything is open; afterwards as it was.
const closed = [...document.querySelectorAll("details")];
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = closed.filter(part => !part.open);
  opened.forEach(part => { part.open = true; });
});
window.addEventListener("afterprint", () => opened.forEach(part => { part.open = false; }));
