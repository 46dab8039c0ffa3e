// Roll-outs of generations over all hosts: the step of each seat, its counts against the gates, and the ways to hold and end it.

import { ask, badge, button, count, duration, h, table } from "./dom.js";
import { failed } from "./overview.js";

export const ROLLOUTS = "/v1/rollouts";

const STATES = { running: "warn", paused: "warn", done: "good", "rolled-back": "bad", aborted: "muted" };

/** The panel of all roll-outs. `act` carries a change out, reports it, and shows the view again. */
export function rollouts(session, list, act) {
  if (list.error) return h("section", { class: "panel", "data-key": "rollouts" }, h("h2", {}, "Roll-outs"), failed(list.error));
  const columns = [
    { title: "seat", kind: "short", cell: (row) => [row.seat, h("span", { class: "under" }, `generation ${row.generation} after ${row.base}`)] },
    { title: "state", cell: stateOf },
    { title: "step", kind: "short", cell: stepOf },
    { title: "failures", cell: ({ seen, gates }) => gate(seen.failures, seen.calls, gates.max_failures) },
    { title: "differing verdicts", cell: ({ seen, gates }) => gate(seen.differing, seen.compared, gates.max_differing) },
    { title: "latency", cell: latencyOf },
    { title: "", kind: "short", cell: (row) => actions(session, row, act) },
  ];
  const nothing = "No seat has had a roll-out: portcullis fleet rollout start begins one.";
  return h(
    "section",
    { class: "panel", "data-key": "rollouts" },
    h("h2", {}, "Roll-outs"),
    table("The last roll-out of each seat, with sums over all hosts since its step began", columns, list, { key: (row) => row.seat, nothing }),
  );
}

function stateOf({ state, why, waits }) {
  const said = why ?? waits;
  return [badge(state, STATES[state] ?? "muted"), said && h("span", { class: "under" }, said)];
}

function stepOf({ step, steps, elapsed_seconds: elapsed, seen }) {
  const { share, seconds } = steps[step - 1] ?? { share: "–", seconds: 0 };
  const under = `step ${step} of ${steps.length}, ${count(elapsed)} s of ${count(seconds)} s, on ${seen.hosts_there} of ${seen.hosts} hosts`;
  return [h("strong", {}, share), h("span", { class: "under" }, under)];
}

/** A count against its gate; a gate that is off has no limit. */
function gate(part, whole, most) {
  return [`${count(part)} of ${count(whole)}`, h("span", { class: "under" }, most === null ? "no limit" : `at most ${most}`)];
}

function latencyOf({ seen, gates }) {
  const times = [
    ["mean", seen.mean_ns, seen.active_mean_ns],
    ["99 %", seen.p99_ns, seen.active_p99_ns],
  ].filter(([, own]) => own !== null);
  const shown = times.map(([name, own, active]) => `${name} ${duration(own)}${active === null ? "" : `, active ${duration(active)}`}`);
  return [shown.join("; ") || "–", h("span", { class: "under" }, gates.max_latency === null ? "no limit" : `at most ${gates.max_latency}`)];
}

function actions(session, row, act) {
  const { seat, state, generation, base } = row;
  const has = (what) => session.has("POST", `${ROLLOUTS}/{seat}/${what}`);
  const change = (what, done) => act(() => session.change("POST", `${ROLLOUTS}/${encodeURIComponent(seat)}/${what}`), done);
  const abort = async () => {
    const text = `Generation ${base} decides on all dialogs again, on all hosts.`;
    if (!(await ask(`End the roll-out of ${seat}?`, text, "Abort"))) return;
    await change("abort", `The roll-out of generation ${generation} to ${seat} has ended`);
  };
  const name = (what) => ({ "aria-label": `${what} the roll-out of ${seat}` });
  return h(
    "div",
    { class: "actions" },
    state === "running" && has("pause") && button("Pause", () => change("pause", `The roll-out of ${seat} stays at its step`), name("Pause")),
    state === "paused" && has("resume") && button("Resume", () => change("resume", `The roll-out of ${seat} goes on`), name("Resume")),
    ["running", "paused"].includes(state) && has("abort") && button("Abort", abort, { ...name("Abort"), class: "danger" }),
    state === "rolled-back" && has("abort") && button("End the alert", () => change("abort", `The alert of ${seat} has ended`), { "aria-label": `End the alert of ${seat}` }),
  );
}
