// What operators and tenants have done since the start of the host.

import { badge, h, table, time } from "./dom.js";
import { failed, follow, title } from "./overview.js";

const AUDIT = "/v1/audit";

export const audit = { id: "audit", title: "Audit", isShown: (session) => session.has("GET", AUDIT), open };

function open(page) {
  const read = async () => ({ list: await page.session.get(`${AUDIT}?limit=200`) });
  const columns = [
    { title: "time", kind: "short", cell: (row) => time(row.at) },
    { title: "by", kind: "short", cell: (row) => row.by },
    { title: "command", kind: "short mono", cell: (row) => row.command },
    { title: "seat", cell: (row) => row.seat ?? "–" },
    { title: "interface", cell: (row) => row.door },
    { title: "result", kind: "wide", cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : badge("done", "good")) },
  ];
  const show = ({ list, error }) => {
    if (error) return page.show(title("Audit"), failed(error));
    const shown = table("The newest first; the log has all", columns, list, { key: (row) => String(row.id), nothing: "Nothing has been done since the start of the host." });
    page.show(title("Audit"), h("section", { class: "panel" }, shown));
  };
  return follow(page, read, show).end;
}
