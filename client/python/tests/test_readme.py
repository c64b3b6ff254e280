"""The README's example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_runs(server, edits, environment, tmp_path):
    section = README.read_text().split("## Example", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "TRILITH_ADDRESS": server.grpc},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "SUCCESS" in ran.stdout
    assert "Stage(number=0, processor='scan'" in ran.stdout
    expected = Counter(row["channel"] for row in edits if row["added"] > 100)
    channel, count = expected.most_common(1)[0]
    assert re.search(rf"^0\s+{re.escape(channel)}\s+{count}$", ran.stdout, re.MULTILINE), ran.stdout


def test_every_example_is_python():
    for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        if "async with" in code:
            code = "async def main():\n" + "".join(f"    {line}\n" for line in code.splitlines())
        compile(code, str(README), "exec")
