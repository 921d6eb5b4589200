"""A real Prometheus, a real Alertmanager and a webhook on loopback, for tests; a visible skip without them.

    @needs_servers
    def test_something(tmp_path):
        with webhook() as hook, alertmanager(tmp_path, hook.url) as pager:
            with prometheus(tmp_path, targets=["127.0.0.1:9647"], rules=rules, alertmanager=pager.address) as server:
                server.wait_for_alert("AmpdFallbackSpike", "firing", seconds=30)
                body = hook.wait_for("AmpdFallbackSpike", seconds=10)

Each is a context manager that returns once its ready endpoint answers and stops its process on the way out.
Ports are free ones, data goes below the directory that is given, and a server that does not start shows the
end of its log. `rules_at(directory, scale)` writes the shipped rules, that many times faster.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from grafana.generate.outputs import RUNBOOKS, write
from grafana.generate.pace import Pace
from grafana.generate.yaml import to_yaml

PROGRAMS = ("prometheus", "prometheus-alertmanager", "promtool", "amtool")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

_T = TypeVar("_T")
_TestT = TypeVar("_TestT", bound=Callable[..., object])


def needs_servers(test: _TestT) -> _TestT:
    """Mark a test that runs Debian's Prometheus programs; it is skipped, and says so, where one is missing."""
    reason = f"not installed: {', '.join(MISSING)} (apt install prometheus prometheus-alertmanager)"
    marked: _TestT = pytest.mark.servers(pytest.mark.skipif(bool(MISSING), reason=reason)(test))
    return marked


def run_tool(*command: str, stdin: str = "") -> str:
    """Run promtool or amtool and return what it prints; fails the test where it exits with anything but 0."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def wait_for(what: str, condition: Callable[[], _T | None], seconds: float) -> _T:
    """Poll until `condition` gives something true and return it; an AssertionError says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.05)
    return found


def rules_at(directory: Path, scale: float) -> Path:
    """The shipped rules, `scale` times faster, as a file."""
    return write(directory, Pace(scale), RUNBOOKS)[0]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The result of an instant query; raises where Prometheus refuses it."""
        found = get_json(f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def ever(self, expr: str, since: float) -> list[dict[str, Any]]:
        """Each series that an expression had at any of many moments since then; raises where Prometheus refuses it."""
        now = time.time()
        asked = {"query": expr, "start": since, "end": now, "step": max(0.5, (now - since) / 500)}
        found = get_json(f"http://{self.address}/api/v1/query_range?{urllib.parse.urlencode(asked)}")
        assert found["status"] == "success", f"{found.get('error')}: {expr}"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def alerts(self) -> dict[str, str]:
        """The state, pending or firing, of each alert that is either."""
        found = get_json(f"http://{self.address}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in found}

    def wait_for_series(self, expr: str, seconds: float) -> list[dict[str, Any]]:
        """Poll until a query gives something."""
        return wait_for(f"series for {expr}", lambda: self.query(expr), seconds)

    def wait_for_alert(self, name: str, state: str, seconds: float) -> None:
        """Poll until an alert is in a state, or has been: one that is pending fires before long, whether we look or not."""
        series = f'last_over_time(ALERTS{{alertname="{name}",alertstate="{state}"}}[10m])'
        wait_for(f"{state} {name}", lambda: self.query(series), seconds)


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager."""

    address: str


@dataclass(frozen=True)
class Webhook:
    """What an Alertmanager has sent to `url`: the bodies, in order."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(self, alert: str, seconds: float) -> dict[str, Any]:
        """Poll until an alert of that name has come, and return it: its status, labels and annotations."""
        return wait_for(f"{alert} at the webhook", lambda: next(self._alerts(alert), None), seconds)

    def _alerts(self, name: str) -> Iterator[dict[str, Any]]:
        sent = (alert for body in list(self.bodies) for alert in body["alerts"])
        return (alert for alert in sent if alert["labels"]["alertname"] == name)


@contextlib.contextmanager
def prometheus(
    directory: Path,
    *,
    targets: Sequence[str],
    rules: Path | None = None,
    alertmanager: str = "",
    scrape: str = "500ms",
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `targets` as job "ampd" and sends alerts to an Alertmanager's address."""
    document: dict[str, Any] = {
        "global": {"scrape_interval": scrape, "scrape_timeout": scrape, "evaluation_interval": scrape},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{"job_name": "ampd", "static_configs": [{"targets": list(targets)}]}],
    }
    if alertmanager:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    config = directory / "prometheus-test.yml"
    config.write_text(to_yaml(document), encoding="utf-8")
    address = free_address()
    command = ["prometheus", f"--config.file={config}", f"--web.listen-address={address}"]
    command.append(f"--storage.tsdb.path={directory / 'prometheus-data'}")
    with _running(command, directory, address):
        yield Prometheus(address)


@contextlib.contextmanager
def alertmanager(directory: Path, webhook_url: str) -> Iterator[Alertmanager]:
    """Run an Alertmanager that sends every alert to a webhook at once, alone (no cluster port)."""
    document = {
        "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "test", "webhook_configs": [{"url": webhook_url}]}],
    }
    config = directory / "alertmanager-test.yml"
    config.write_text(to_yaml(document), encoding="utf-8")
    address = free_address()
    command = ["prometheus-alertmanager", f"--config.file={config}", f"--web.listen-address={address}"]
    command += [f"--storage.path={directory / 'alertmanager-data'}", "--cluster.listen-address="]
    with _running(command, directory, address):
        yield Alertmanager(address)


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """Receive what is posted to a loopback address."""
    bodies: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest's output is for tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Webhook(f"http://127.0.0.1:{server.server_port}/", bodies)
        finally:
            server.shutdown()
            thread.join()


def free_address() -> str:
    """A loopback address that nobody listens on just now; these servers cannot report a port that they chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def get_json(url: str) -> dict[str, Any]:
    """The JSON at a URL; an error status with a JSON body is returned too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.load(error))


@contextlib.contextmanager
def _running(command: list[str], directory: Path, address: str) -> Iterator[None]:
    log = directory / f"{command[0]}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        wait_for(f"ready {command[0]}", lambda: _is_ready(process, address, log), seconds=20)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    assert process.poll() is None, f"the server ended:\n{log.read_text()[-2000:]}"
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, or not ready yet (503)
        return False
