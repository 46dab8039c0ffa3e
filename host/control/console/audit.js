// What operators and tenants have done.

import { badge, button, field, h, keep, table, time } from "./dom.js";
import { failed, follow, title } from "./overview.js";

const AUDIT = "/v1/audit";
/** Actions of a page. */
const SHOWN = 200;

export const audit = { id: "audit", title: "Audit", isShown: (session) => session.has("GET", AUDIT), open };

function open(page) {
  const { session } = page;
  // The ids before which the pages begin that have been shown; the newest page has none.
  let pages = [];
  const text = (name, size) => h("input", { name, size, spellcheck: "false", autocomplete: "off" });
  const find = (event) => {
    event.preventDefault();
    turn([]);
  };
  const form = h(
    "form",
    { onsubmit: find },
    field("Seat", text("seat", 12)),
    field("Command", text("command", 16)),
    field("By", text("by", 16)),
    session.isOperator && field("Host", text("host", 12)),
    h("button", {}, "Find"),
  );
  const filters = h("section", { class: "panel" }, form);
  const read = async () => {
    const before = pages.at(-1);
    const given = [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
    const query = new URLSearchParams([["limit", SHOWN], ...given, ...(before ? [["before", before]] : [])]);
    return { ...(await session.get(`${AUDIT}?${query}`)), isNewest: !before };
  };
  const turn = (wanted) => {
    pages = wanted;
    return followed.again();
  };
  const columns = [
    { title: "time", kind: "short", cell: (row) => time(row.at) },
    ...(session.isOperator ? [{ title: "host", kind: "short", cell: (row) => row.host ?? "–" }] : []),
    { title: "by", kind: "short", cell: (row) => row.by },
    { title: "command", kind: "short mono", cell: (row) => row.command },
    { title: "seat", cell: (row) => row.seat ?? "–" },
    { title: "about", cell: (row) => row.subject ?? "–" },
    { title: "interface", cell: (row) => row.door },
    { title: "result", kind: "wide", cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : badge("done", "good")) },
  ];
  const show = ({ entries, kept, warning, next, isNewest, error }) => {
    if (error) return page.show(title("Audit"), failed(error));
    const place = kept === "database" ? "of all hosts of the database" : "of this host since its start; the log has all";
    const caption = `${isNewest ? "The newest" : "Older ones, the newest"} first, ${place}`;
    const shown = table(caption, columns, entries, { key: (row) => row.id, nothing: "No such action." });
    const missing = warning ? [h("p", { class: "bad" }, warning)] : [];
    const turns = h(
      "p",
      { class: "actions" },
      next && button("Older actions", () => turn([...pages, next])),
      !isNewest && button("Newer actions", () => turn(pages.slice(0, -1))),
    );
    page.show(title("Audit"), keep(filters), h("section", { class: "panel", "data-key": "actions" }, ...missing, shown, turns));
  };
  const followed = follow(page, read, show);
  return followed.end;
}
