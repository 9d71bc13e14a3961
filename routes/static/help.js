// Which keys there are, and how programs reach the same board.

import { openDialog } from "./ask.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";

const KEYS = [
  [["/"], "keys.search"], [["c"], "keys.create"], [["j", "k"], "keys.rows"], [["h", "l"], "keys.columns"], [["Enter"], "keys.open"],
  [["e"], "keys.edit"], [["m"], "keys.menu"], [["a"], "keys.assign"], [["p"], "keys.priority"], [["z"], "keys.undo"],
  [["Esc"], "keys.close"], [["?"], "keys.help"],
];

/** @returns {string[]} commands that show what happens here, and make something happen */
export function commands() {
  const key = document.body.dataset.auth === "none" ? "" : ' -H "x-api-key: $TASKHUB_API_KEY"';
  return [
    `curl -N "${location.origin}/events/stream"${key}`,
    `curl ${location.origin}/api/v1/tickets${key} -H 'Content-Type: application/json' -d '{"summary": "Printer is on fire"}'`,
  ];
}

export function openHelp() {
  const dialog = openDialog(t("board.help"), h(
    "div", { class: "body" },
    h("dl", { class: "keys" }, KEYS.map(([keys, words]) => [
      h("dt", null, /** @type {string[]} */ (keys).map((key) => h("kbd", null, key))), h("dd", null, t(/** @type {string} */ (words))),
    ])),
    h("h3", null, t("help.programs")),
    commands().map((command) => h("pre", { class: "command", tabindex: 0 }, command)),
    h("p", null, h("a", { href: "/mcp" }, t("help.mcp")), " · ", h("a", { href: "/docs" }, t("help.api"))),
    h("div", { class: "actions" }, h("button", { type: "button", class: "button main", autofocus: true, onclick: () => dialog.close() }, t("close"))),
  ), "help");
}
