// Loaded before anything is painted: the scheme chosen last, in the key that the admin's own switch uses too.
(function () {
  "use strict";
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return JSON.parse(localStorage.getItem("adminTheme") || '"auto"');
    } catch (_) {
      return "auto";
    }
  }

  function apply() {
    var choice = chosen();
    var isDark = choice === "dark" || (choice !== "light" && dark.matches);
    root.classList.toggle("dark", isDark);
    root.classList.toggle("light", !isDark);
    root.dataset.scheme = choice;
    document.dispatchEvent(new CustomEvent("console:scheme", { detail: isDark ? "dark" : "light" }));
  }

  window.ConsoleTheme = {
    choose: function (choice) {
      try {
        localStorage.setItem("adminTheme", JSON.stringify(choice));
      } catch (_) {
        /* storage switched off: the choice lasts until the page is left */
      }
      apply();
    },
    chosen: chosen,
  };
  dark.addEventListener("change", apply);
  apply();
})();
