// Keeps the progress of a rotation current while its old key drains, and while the tab is seen.
(function () {
  "use strict";
  var EVERY = 3000;

  function look() {
    var section = document.getElementById("rotation");
    if (!section || !section.dataset.moving) return;
    if (document.hidden) {
      window.setTimeout(look, EVERY);
      return;
    }
    fetch(window.location.href, { credentials: "same-origin", headers: { "X-Requested-With": "fetch" } })
      .then(function (answer) { return answer.ok ? answer.text() : ""; })
      .then(function (text) {
        var fresh = text && new DOMParser().parseFromString(text, "text/html").getElementById("rotation");
        if (!fresh) return;
        if (fresh.dataset.state !== section.dataset.state) {
          // The buttons of the page are others by now.
          window.location.reload();
          return;
        }
        if (fresh.textContent.trim() !== section.textContent.trim()) section.replaceWith(fresh);
      })
      .catch(function () {})
      .finally(function () { window.setTimeout(look, EVERY); });
  }

  document.addEventListener("DOMContentLoaded", function () { window.setTimeout(look, EVERY); });
})();
