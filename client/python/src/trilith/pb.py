"""The generated messages: `pb.task`, `pb.report`, `pb.query`, `pb.datasource`."""

from trilith._generated.datasource.v1 import datasource_service_pb2 as datasource
from trilith._generated.query.v1 import query_service_pb2 as query
from trilith._generated.task.v1 import report_pb2 as report
from trilith._generated.task.v1 import task_service_pb2 as task

__all__ = ["datasource", "query", "report", "task"]
