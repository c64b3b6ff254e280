import { connect, isFinal, rowsPushed, stages, TaskFailedError, TrilithError } from "@trilith/client/web";

/** What the test reads when the page is done. */
export interface Outcome {
  error?: { name: string; errorCode: string; line?: string | undefined; fields?: unknown };
  updates: number;
  pushed?: string;
  rows?: { channel: string; edits: string }[];
}

/** An element of the page, filled with a text. */
function show(tag: string, text: string, parent: Element = document.body): Element {
  const element = parent.appendChild(document.createElement(tag));
  element.textContent = text;
  return element;
}

/** What a person would do here: ingest, look at the progress, read rows. Settings come with the address of the page. */
async function main(settings: URLSearchParams): Promise<Outcome> {
  const given = (name: string) => settings.get(name) ?? "";
  const token = settings.get("token") ?? undefined;
  const client = connect(given("address"), { deadlineMs: Number(given("deadlineMs")), token });
  const outcome: Outcome = { updates: 0 };
  show("h1", "Trilith in a browser");
  try {
    const task = await client.submit(given("ingestion"));
    for await (const { task: now, report } of client.watch(task, { intervalMs: 20 })) {
      outcome.updates += 1;
      const phases = report === undefined ? [] : stages(report).map(({ processor, phase }) => `${processor}: ${phase ?? "…"}`);
      show("p", `${isFinal(now.state) ? "ended" : "runs"} ${phases.join(", ")}`);
    }
    await client.wait(task);
    outcome.pushed = String(rowsPushed(await client.report(task)));
    const table = show("table", "");
    outcome.rows = [];
    for await (const batch of await client.query(given("query"))) {
      for (const row of batch) {
        const [channel, edits] = [row.channel as string, String(row.edits)];
        outcome.rows.push({ channel, edits });
        const line = show("tr", "", table);
        show("td", channel, line);
        show("td", edits, line);
      }
    }
  } catch (reason) {
    if (!(reason instanceof TrilithError)) throw reason;
    const fields = reason instanceof TaskFailedError ? reason.fields : undefined;
    outcome.error = { name: reason.name, errorCode: reason.errorCode, line: reason.context.line, fields };
    show("p", `${reason.name}: ${reason.message}`);
  }
  return outcome;
}

const outcome = await main(new URLSearchParams(location.search)).catch((reason: unknown) => ({ broken: String(reason) }));
document.body.dataset.outcome = JSON.stringify(outcome);
