// Passkeys: asks the browser to make one, or to sign with one. Bytes travel as base64url, as in WebAuthn's own JSON.
(function () {
  "use strict";
  var buttons = document.querySelectorAll("[data-passkey]");
  if (!buttons.length) return;
  var able = window.PublicKeyCredential && navigator.credentials;

  function bytes(text) {
    var plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, function (letter) { return letter.charCodeAt(0); });
  }

  function text(buffer) {
    var plain = "";
    new Uint8Array(buffer).forEach(function (one) { plain += String.fromCharCode(one); });
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  function send(address, body) {
    var token = document.querySelector("[name=csrfmiddlewaretoken]").value;
    return fetch(address, {
      method: "POST", credentials: "same-origin", redirect: "error",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify(body || {}),
    }).then(function (answer) {
      return answer.json().catch(function () { return {}; }).then(function (said) {
        if (answer.ok) return said;
        var refused = new Error(said.error || "The console did not take that. Reload the page and try again.");
        refused.next = said.next;
        throw refused;
      });
    });
  }

  function listed(options, name) {
    (options[name] || []).forEach(function (one) { one.id = bytes(one.id); });
  }

  function made(credential) {
    var answer = credential.response;
    var found = { id: credential.id, rawId: text(credential.rawId), type: credential.type, clientExtensionResults: {},
      response: { clientDataJSON: text(answer.clientDataJSON) } };
    ["attestationObject", "authenticatorData", "signature", "userHandle"].forEach(function (name) {
      if (answer[name]) found.response[name] = text(answer[name]);
    });
    if (answer.getTransports) found.response.transports = answer.getTransports();
    return found;
  }

  function add(button) {
    var name = document.getElementById(button.dataset.name);
    if (!name.reportValidity()) return Promise.reject(new Error(""));
    return send(button.dataset.options).then(function (offered) {
      var options = offered.publicKey;
      options.challenge = bytes(options.challenge);
      options.user.id = bytes(options.user.id);
      listed(options, "excludeCredentials");
      return navigator.credentials.create({ publicKey: options });
    }).then(function (credential) {
      return send(button.dataset.answer, { name: name.value, credential: made(credential) });
    });
  }

  function use(button) {
    return send(button.dataset.options).then(function (offered) {
      var options = offered.publicKey;
      options.challenge = bytes(options.challenge);
      listed(options, "allowCredentials");
      return navigator.credentials.get({ publicKey: options });
    }).then(function (credential) {
      return send(button.dataset.answer, { credential: made(credential) });
    });
  }

  function words(failed) {
    if (failed.name === "InvalidStateError") return "This device has a passkey for your account already.";
    if (failed.name === "NotAllowedError") return "Nothing came of it: it was cancelled, or took too long. Try again.";
    if (failed.name === "SecurityError") return "Passkeys do not work at this address.";
    return failed.message;
  }

  buttons.forEach(function (button) {
    var problem = document.getElementById(button.dataset.problem);
    function tell(said) {
      problem.textContent = said;
      problem.hidden = !said;
    }
    if (!able) {
      tell("This browser has no passkeys here. They take TLS, or localhost.");
      button.disabled = true;
      return;
    }
    button.addEventListener("click", function () {
      tell("");
      button.disabled = true;
      (button.dataset.passkey === "add" ? add : use)(button).then(function (said) {
        window.location.assign(said.next);
      }).catch(function (failed) {
        button.disabled = false;
        if (failed.next) window.location.assign(failed.next);
        else tell(words(failed));
      });
    });
  });
})();
