// Who are you? The issuer knows.

import { h } from "../lib/dom.js";

export function signIn() {
  const back = `/${location.hash || "#/overview"}`;
  const target = /^[\x21-\x7e]*$/.test(back) && back.length < 400 ? `/signin?return_to=${encodeURIComponent(back)}` : "/signin";
  return h("div", { class: "signin" },
    h("h1", {}, "Sign in"),
    h("p", {}, "This gateway decides which tools agents may use, and writes down what they do. What you may see and change here depends on the groups that your identity provider says you belong to."),
    h("p", {}, h("a", { class: "button primary", href: target, id: "sign-in" }, "Sign in with your identity provider")),
    h("p", { class: "dim" }, "You will be sent to it and come back here. The gateway has no passwords of its own."));
}
