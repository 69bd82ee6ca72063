// Shows the fields that belong to the scope that is chosen. Without it all stand there, and the server takes either.
(function () {
  "use strict";

  // scope -> what "Which one" is called (empty: it is not asked for), and whether a project is
  var SCOPES = {
    organisation: ["", false],
    project: ["", true],
    key: ["Id of the service key", false],
    feature: ["Feature, as callers send it", true],
    route: ["Slug of the route", true],
    user: ["End user, as callers send it", true],
    tag: ["Tag, as callers send it", true],
  };

  function start() {
    var scope = document.querySelector("select#id_scope_kind");
    var value = document.getElementById("id_scope_value");
    var project = document.getElementById("id_project");
    if (!scope || !value || !project) return;
    var label = document.querySelector("label[for=id_scope_value]");
    var rows = [value.closest(".field-line"), project.closest(".field-line")];
    var nothing = project.querySelector("option[value='']");
    var unnarrowed = nothing && nothing.textContent;

    function show() {
      var wanted = SCOPES[scope.value];
      if (!wanted) return;
      var used = [wanted[0] !== "", wanted[1]];
      [value, project].forEach(function (field, place) {
        // A field that says what is wrong with it stays.
        rows[place].hidden = !used[place] && !rows[place].classList.contains("errors");
        // What is not seen is not sent; what was typed comes back with its scope.
        field.disabled = rows[place].hidden;
      });
      if (label && wanted[0]) label.textContent = wanted[0];
      if (nothing) nothing.textContent = scope.value === "project" ? "Choose a project" : unnarrowed;
    }
    scope.addEventListener("change", show);
    show();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
