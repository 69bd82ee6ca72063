// The list of calls: the button that compares is there once two are ticked.
(function () {
  "use strict";
  var form = document.getElementById("compare-two");
  if (!form) return;
  var button = form.querySelector("[data-needs]");
  var said = form.querySelector("[data-needed]");
  var boxes = Array.prototype.slice.call(document.querySelectorAll('input[form="compare-two"]'));
  function mark() {
    var ticked = boxes.filter(function (box) { return box.checked; }).length;
    button.disabled = ticked !== 2;
    button.classList.toggle("primary", ticked === 2);
    said.textContent =
      ticked === 2 ? "Two calls are ticked." : ticked === 1 ? "One is ticked; tick another one." : ticked > 2 ? ticked + " are ticked; two are compared at a time." : "Tick two calls to see them side by side.";
  }
  boxes.forEach(function (box) { box.addEventListener("change", mark); });
  window.addEventListener("pageshow", mark);
  mark();
})();
