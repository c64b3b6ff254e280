/** The core, which takes a Connect transport; `@trilith/client/node` and `@trilith/client/web` make one. */
export * from "./client.js";
export * from "./errors.js";
export * from "./report.js";
export { QueryResult, RowStream } from "./rows.js";
export type { CallOptions } from "./retry.js";
export type { JsonValue, ParameterValue, QueryContext, TypedParameter } from "./statement.js";
export { isFinal, type TaskUpdate, type WatchOptions } from "./watch.js";
export * from "./gen/trilith/task/v1/report_pb.js";
export * from "./gen/trilith/task/v1/task_service_pb.js";
export * from "./gen/trilith/query/v1/query_service_pb.js";
export * from "./gen/trilith/datasource/v1/datasource_service_pb.js";
