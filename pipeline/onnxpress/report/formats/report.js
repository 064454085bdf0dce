"use strict";
// What a million inferences cost when machines are used less or more. Without scripts the table stands as it is.
const slider = document.getElementById("utilisation");
if (slider) {
  document.getElementById("slider").hidden = false;
  const shown = document.getElementById("utilisation-shown");
  slider.addEventListener("input", () => {
    shown.textContent = slider.value + "%";
    for (const cell of document.querySelectorAll("[data-busy-usd]")) {
      const usd = Number(cell.dataset.busyUsd) * 100 / Number(slider.value);
      cell.textContent = usd >= 1 ? usd.toFixed(2) : usd.toPrecision(3);
    }
  });
  shown.textContent = slider.value + "%";
}
// All sections at once, for reading through and for searching.
const unfold = document.getElementById("unfold");
unfold.hidden = false;
unfold.addEventListener("click", () => {
  for (const section of document.querySelectorAll("details.fold")) {
    section.open = true;
  }
});
