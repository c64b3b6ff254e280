import type {
  ErrorReport,
  StageReport,
  TaskReport,
} from "./gen/trilith/task/v1/report_pb.js";

/** One stage in short. Rows are sums over workers and partitions. */
export interface StageSummary {
  /** From 0. */
  readonly number: number;
  /** "scan", "groupByPreShuffle", "segmentGenerator", … */
  readonly processor: string;
  /** "NEW", "READING_INPUT", …, "FINISHED". Unset if the stage did not start. */
  readonly phase: string | undefined;
  readonly workerCount: number;
  readonly partitionCount: number;
  readonly durationMs: number;
  readonly rowsRead: bigint;
  /** Rows of its output after the shuffle, if it has one. */
  readonly rowsOut: bigint;
}

/** Stages in their order. */
export function stages(report: TaskReport): StageSummary[] {
  return report.stages.map((stage) => ({
    number: stage.stageNumber,
    processor: stage.definition?.processorType ?? "",
    phase: stage.phase,
    workerCount: stage.workerCount ?? 0,
    partitionCount: stage.partitionCount ?? 0,
    durationMs: Number(stage.durationMs ?? 0n),
    rowsRead: channelRows(report, stage.stageNumber, (name) => name.startsWith("input")),
    rowsOut: channelRows(report, stage.stageNumber, (name) => name === (stage.shuffle === undefined ? "output" : "shuffle")),
  }));
}

/** Rows that the task read from external data and datasources; what stages hand to each other is not counted. */
export function rowsRead(report: TaskReport): bigint {
  return sum(report.stages.map((stage) => channelRows(report, stage.stageNumber, (name) => readsData(stage, name))));
}

/** Rows (after rollup) that reached deep storage; 0 for a SELECT. */
export function rowsPushed(report: TaskReport): bigint {
  return sum(
    report.counters.map(({ value }) => (value.case === "segmentGenerationProgress" ? value.value.rowsPushed : 0n)),
  );
}

/** Rows of the result of a SELECT, else `rowsPushed`. */
export function rowsWritten(report: TaskReport): bigint {
  return report.results?.rowCount ?? rowsPushed(report);
}

/** Faults that did not fail the task, such as rows that could not be parsed. */
export function warnings(report: TaskReport): ErrorReport[] {
  return report.status?.warnings ?? [];
}

function readsData(stage: StageReport, counter: string): boolean {
  if (!counter.startsWith("input")) return false;
  const input = stage.definition?.inputs[Number(counter.slice("input".length))];
  return input !== undefined && input.input.case !== "stageNumber";
}

function channelRows(report: TaskReport, stage: number, wanted: (name: string) => boolean): bigint {
  return sum(
    report.counters
      .filter((counter) => counter.stageNumber === stage && wanted(counter.name))
      .flatMap(({ value }) => (value.case === "channel" ? value.value.rows : [])),
  );
}

function sum(numbers: readonly bigint[]): bigint {
  return numbers.reduce((total, number) => total + number, 0n);
}
