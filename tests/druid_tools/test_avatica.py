"""Druid's JDBC driver, Avatica, is not served; what asks for it must learn what is."""

from __future__ import annotations

import pytest
import requests


@pytest.mark.parametrize("path", ["avatica", "avatica/", "avatica-protobuf/"])
def test_avatica_points_at_flight_sql(druid, path):
    request = {"request": "openConnection", "connectionId": "one", "info": {}}
    answer = requests.post(f"{druid.url}/druid/v2/sql/{path}", json=request, timeout=30)
    assert 400 <= answer.status_code < 600
    assert "Flight SQL" in answer.text
