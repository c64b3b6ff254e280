"""Generates the protobuf and gRPC modules while the wheel is built, inside the package."""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib import resources
from pathlib import Path
from shutil import rmtree
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = (
    "trilith/task/v1/report.proto",
    "trilith/task/v1/task_service.proto",
    "trilith/query/v1/query_service.proto",
    "trilith/datasource/v1/datasource_service.proto",
)
# protoc takes the proto's path for the module's; ours live below trilith._generated. Names of messages stay.
IMPORT = re.compile(r"\btrilith\.(task|query|datasource)\.v1(?= import |\.\w+_pb2)")


class GenerateProtobuf(BuildHookInterface):
    """Puts `trilith/_generated` into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Runs protoc into `build/generated` and adds what it wrote to the wheel."""
        root = Path(self.root)
        protos = next((path for path in (root / "proto", root / "../../proto") if (path / PROTOS[0]).exists()), None)
        if protos is None:
            raise RuntimeError(f"no protos: neither {root}/proto nor {root}/../../proto has {PROTOS[0]}")
        out = root / "build" / "generated"
        rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        generate(protos, out)
        build_data["force_include"][str(out / "trilith")] = "trilith/_generated"


def generate(protos: Path, out: Path) -> None:
    """Generates modules and stubs of `PROTOS` below `out`, each folder a package."""
    from grpc_tools import protoc

    scripts = Path(sysconfig.get_path("scripts"))
    suffix = ".exe" if sys.platform == "win32" else ""
    arguments = [
        "protoc",
        f"--proto_path={protos}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / f'protoc-gen-mypy{suffix}'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / f'protoc-gen-mypy_grpc{suffix}'}",
        *(f"--{kind}_out={out}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")),
        *PROTOS,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")
    for path in [*out.rglob("*.py"), *out.rglob("*.pyi")]:
        path.write_text(IMPORT.sub(r"trilith._generated.\1.v1", path.read_text()))
    for folder in [out / "trilith", *(path for path in (out / "trilith").rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text("")
