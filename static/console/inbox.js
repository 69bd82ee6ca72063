// Choosing several of the inbox: how many are chosen, and all at once. The bar decides without it, too.
(function () {
  "use strict";
  var form = document.getElementById("together");
  if (!form) return;
  var all = document.getElementById("choose-all");
  var said = document.getElementById("chosen");
  var reason = document.getElementById("together-reason");
  var buttons = form.querySelectorAll("button[name=what]");
  var boxes = Array.from(document.querySelectorAll('input[type=checkbox][name=request][form="together"]'));

  function show() {
    var chosen = boxes.filter(function (box) { return box.checked; }).length;
    all.checked = chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
    said.textContent = chosen ? chosen + " of " + boxes.length + " chosen" : "Choose what to decide together.";
    buttons.forEach(function (button) { button.disabled = !chosen; });
  }

  buttons.forEach(function (button) {
    button.addEventListener("click", function () { reason.required = button.value === "reject"; });
  });
  all.addEventListener("change", function () {
    boxes.forEach(function (box) { box.checked = all.checked; });
    show();
  });
  boxes.forEach(function (box) { box.addEventListener("change", show); });
  // What a browser remembers of a page that one comes back to is put in place after this ran.
  window.addEventListener("pageshow", show);
  all.parentElement.hidden = false;
  show();
})();
