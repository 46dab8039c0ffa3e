// What operators and tenants have done.

import { badge, h, table, time } from "./dom.js";
import { failed, follow, title } from "./overview.js";

const AUDIT = "/v1/audit";

export const audit = { id: "audit", title: "Audit", isShown: (session) => session.has("GET", AUDIT), open };

function open(page) {
  const read = async () => await page.session.get(`${AUDIT}?limit=200`);
  const columns = [
    { title: "time", kind: "short", cell: (row) => time(row.at) },
    { title: "host", kind: "short", cell: (row) => row.host ?? "–" },
    { title: "by", kind: "short", cell: (row) => row.by },
    { title: "command", kind: "short mono", cell: (row) => row.command },
    { title: "seat", cell: (row) => row.seat ?? "–" },
    { title: "interface", cell: (row) => row.door },
    { title: "result", kind: "wide", cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : badge("done", "good")) },
  ];
  const show = ({ entries, kept, warning, error }) => {
    if (error) return page.show(title("Audit"), failed(error));
    const place = kept === "database" ? "The newest first, of all hosts of the database" : "The newest first, of this host since its start; the log has all";
    const shown = table(place, columns, entries, { key: (row) => row.id, nothing: "Nothing has been done." });
    const missing = warning ? [h("p", { class: "bad" }, warning)] : [];
    page.show(title("Audit"), h("section", { class: "panel" }, ...missing, shown));
  };
  return follow(page, read, show).end;
}
