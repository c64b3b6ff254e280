"""What happens between client and server: lost answers, restarts, TLS, tokens."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import grpc
import pytest
from harness import ENDLESS, Server, ingest_sql
from proxies import Authority, Proxy, witness

import trilith


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may kill."""
    with Server(tmp_path) as running:
        yield running


def test_an_answer_that_is_lost_does_not_run_a_task_twice(server, client):
    with Proxy(server.grpc, marker=b"lost answer", losses=1) as proxy, trilith.connect(proxy.address) as through:
        task = through.submit("SELECT 1 AS one -- lost answer")
        assert proxy.lost == 1
        task.wait(timeout=60)
    assert [listed.sql for listed in client.tasks()].count("SELECT 1 AS one -- lost answer") == 1


def test_an_id_that_was_taken_before_the_call_stays_an_error(server, client):
    id = str(uuid.uuid4())
    client.submit("SELECT 1 AS one", id=id)
    with Proxy(server.grpc) as proxy, trilith.connect(proxy.address) as through, pytest.raises(trilith.AlreadyExists):
        through.submit("SELECT 1 AS one", id=id)


def test_a_server_that_is_away_is_waited_for(own_server):
    with trilith.connect(own_server.grpc, deadline=60) as client:
        own_server.kill()
        back = threading.Thread(target=own_server.start)
        back.start()
        task = client.submit("SELECT 1 AS one")
        back.join()
        task.wait(timeout=60)
        assert [listed.task_id for listed in client.tasks()] == [task.id]


def test_following_a_task_outlives_a_restart(own_server):
    with trilith.connect(own_server.grpc, deadline=60) as client:
        client.run(ingest_sql("wikipedia"), timeout=120)
        task = client.submit(ENDLESS, {"faultTolerance": True})
        updates = 0

        def restart_once(update: trilith.Update) -> None:
            nonlocal updates
            updates += 1
            if updates == 1:
                own_server.kill()
                own_server.start()
            elif update.state == "RUNNING":
                client.cancel(task.id)

        with pytest.raises(trilith.TaskFailed, match="Canceled"):
            task.wait(timeout=100, on_progress=restart_once)
        assert updates > 1


def test_nobody_there_is_unavailable():
    with trilith.connect("127.0.0.1:1", deadline=0.5) as client, pytest.raises(trilith.Unavailable) as raised:
        client.datasources()
    assert raised.value.code == grpc.StatusCode.UNAVAILABLE
    assert raised.value.category == "SERVICE_UNAVAILABLE"


def test_addresses():
    with pytest.raises(ValueError, match="host:port"):
        trilith.connect("localhost")
    with pytest.raises(ValueError, match="ftp"):
        trilith.connect("ftp://localhost:1")
    with pytest.raises(ValueError, match="plaintext"):
        trilith.connect("http://localhost:1", tls=trilith.Tls())


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_plaintext(server, prefix):
    with trilith.connect(prefix + server.grpc) as client:
        assert client.query("SELECT 1 AS one").read_all().to_pylist() == [{"one": 1}]


def test_tls_with_an_own_authority(server, tmp_path):
    authority = Authority(tmp_path)
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.ca)
    with Proxy(server.grpc, tls=authority.server_context()) as proxy:
        for ca in (authority.ca, file, str(file)):
            tls = trilith.Tls(ca=ca, server_name="trilith.test")
            with trilith.connect(f"https://{proxy.address}", tls=tls, token="t") as client:
                assert client.query("SELECT 1 AS one").read_all().to_pylist() == [{"one": 1}]
                task = client.submit("SELECT 2 AS two")
                task.wait(timeout=60)
                assert task.results().read_all().to_pylist() == [{"two": 2}]


@pytest.mark.parametrize("tls", [None, "other name"])
def test_tls_refuses_whom_it_does_not_know(server, tmp_path, tls):
    authority = Authority(tmp_path)
    options = trilith.Tls(ca=authority.ca) if tls else None
    with (
        Proxy(server.grpc, tls=authority.server_context()) as proxy,
        trilith.connect(f"https://{proxy.address}", tls=options, deadline=1) as client,
        pytest.raises(trilith.Unavailable),
    ):
        client.datasources()


def test_the_token_goes_with_every_call_and_details_come_back():
    with witness() as (address, seen):
        client = trilith.connect(address, token="secret")
        calls = [
            lambda: client.submit("SELECT 1"),
            lambda: client.wait("query-1"),
            lambda: client.task("query-1"),
            lambda: list(client.tasks()),
            lambda: client.report("query-1"),
            lambda: client.query("SELECT 1"),
            lambda: client.results("query-1"),
            lambda: client.datasources(),
            lambda: client._open(trilith.client.Deadline(5))(b"ticket").next(),
        ]
        for call in calls[:-1]:
            with pytest.raises(trilith.CapacityExceeded) as raised:
                call()
            assert raised.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert raised.value.message == "come back later"
            assert raised.value.error_code == "queryCapacityExceeded"
            assert raised.value.persona == "USER"
            assert raised.value.context == {"limit": "3"}
            assert raised.value.retry_after == timedelta(seconds=2.5)
        with pytest.raises(grpc.RpcError):
            calls[-1]()
        client.close()
    methods = [method for method, _metadata in seen.calls]
    assert len(methods) == len(calls)
    assert "/arrow.flight.protocol.FlightService/GetFlightInfo" in methods
    assert "/arrow.flight.protocol.FlightService/DoGet" in methods
    assert {metadata.get("authorization") for _method, metadata in seen.calls} == {"Bearer secret"}
