"""Two real jobs with trouble on purpose, followed by a real Prometheus with the shipped rules, sixty times faster.

One job runs in float16 and has a bad three minutes: overflows, batches that are not finite, a change of precision that
helps and is taken back, a worker that is killed, a pause; the other is calm in bfloat16. What the pictures show
therefore happened. The servers, the browser and the job files are those of the tests: like them, this is a tool of
whoever works on ampd, and needs what they need (Debian's prometheus, Chromium).
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI

from ampd.cli.watch_frame import UNICODE, Frame, History
from ampd.cli.watch_frame import draw as draw_frame
from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError
from grafana.preview.answers import Server
from tests.telemetry.browser import Browser
from tests.telemetry.servers import prometheus, rules_at, wait_for

FASTER = 60
SCRAPE_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
LENGTH_SECONDS = 170.0

_JOB = """
[job]
name = "{name}"
directory = "{home}/{name}"
windows = 200000
[workload]
name = "digits"
[workload.options]
channels = 8
[batch]
size = 16
accumulate = 2
[amp]
dtype = "{dtype}"
init_scale = 65536.0
growth_interval = 60
[optim]
lr = 1e-3
warmup_windows = 20
[clip]
max_norm = 1.0
[evaluate]
every_windows = 300
[checkpoint]
every_windows = 250
[restart]
backoff_seconds = 1.0
[device]
type = "cpu"
threads = 1
[http]
listen = "127.0.0.1:{port}"
[inject]
allowed = true
"""

# A terminal's frame without the fonts that rich would have a reader's browser fetch from elsewhere.
_TERMINAL = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


@dataclass
class Rehearsed:
    """A job that runs, and what `ampctl status --watch` has seen of it."""

    name: str
    home: Path
    address: str
    process: subprocess.Popen[bytes]
    history: History = field(default_factory=History)

    def ask(self, command: p.AnyCommand) -> dict[str, Any]:
        """The result of a command."""
        done = Client(f"ipc://{self.home}/rt/{self.name}/control.sock").ask(command, PATIENCE_SECONDS)
        return dict(done.result)

    def runs(self) -> bool:
        """Whether it has passed a window."""
        assert self.process.poll() is None, (self.home / f"{self.name}.log").read_text()[-2000:]
        try:
            return bool(self.ask(p.Status()).get("window"))
        except (CommandError, OSError):
            return False

    def look(self) -> None:
        """Remember what the terminal view would draw its curves from."""
        self.history.add(self.ask(p.Status()), time.time())


def rehearse(home: Path, pictures: Path) -> Iterator[Server]:
    """Run the jobs through their trouble, take the pictures of page and terminal, then yield the server while it is up.

    The troubled job is the one that is chosen at the top of a dashboard of one job.
    """
    with contextlib.ExitStack() as stack:
        troubled = stack.enter_context(_job(home, "digits-fp16", "float16", 9647))
        calm = stack.enter_context(_job(home, "digits-bf16", "bfloat16", 9648))
        for job in (troubled, calm):
            wait_for(f"window of {job.name}", job.runs, PATIENCE_SECONDS)
        targets = [troubled.address, calm.address]
        rules = rules_at(home, FASTER)
        found = stack.enter_context(
            prometheus(home, targets=targets, rules=rules, scrape=f"{SCRAPE_SECONDS:g}s")
        )
        begin = time.time() + 5
        _trouble(troubled)
        end = time.time()
        _pictures(troubled, pictures)
        yield Server(f"http://{found.address}", begin, end, SCRAPE_SECONDS, (("instance", troubled.address),))


def _trouble(job: Rehearsed) -> None:
    """What happens at which second."""
    script: list[tuple[float, Callable[[], object]]] = [
        (20, lambda: job.ask(p.Inject(fault="overflow", windows=40))),
        (40, lambda: job.ask(p.Inject(fault="nan-loss", windows=3))),
        (
            50,
            lambda: job.ask(
                p.Set(changes={"dtype": "bfloat16"}, reason="the range of float32 ends overflows")
            ),
        ),
        (80, lambda: job.ask(p.Set(changes={"dtype": "float16"}, reason="is it calm again?"))),
        (95, lambda: _kill_worker(job)),
        (120, lambda: job.ask(p.Pause())),
        (126, lambda: job.ask(p.Resume())),
        (135, lambda: job.ask(p.Inject(fault="nan-grad", windows=30))),
        (148, lambda: job.ask(p.Inject(fault="overflow", windows=100_000))),
        (LENGTH_SECONDS, lambda: None),
    ]
    begin = time.monotonic()
    for second, act in script:
        while (left := begin + second - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            with contextlib.suppress(CommandError):  # a worker that is being started has no figures
                job.look()
        act()


def _kill_worker(job: Rehearsed) -> None:
    children = Path(f"/proc/{job.process.pid}/task/{job.process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def _pictures(job: Rehearsed, to: Path) -> None:
    """The status page in both themes, and the terminal view."""
    with Browser() as browser:
        for theme in ("light", "dark"):
            browser.open(f"http://{job.address}/", width=1000, theme=theme)
            browser.waits_for("document.getElementById('link').textContent === 'live'")
            shot = browser.tell(
                "Page.captureScreenshot", format="webp", quality=50, captureBeyondViewport=True
            )
            (to / f"page-{theme}.webp").write_bytes(base64.b64decode(shot["data"]))
    frame = Frame(status=job.ask(p.Status()), stats=job.ask(p.Stats()), history=job.history, now=time.time())
    console = Console(
        record=True,
        width=100,
        file=(to / "terminal.txt").open("w"),
        color_system="truecolor",
        force_terminal=True,
    )
    for line in draw_frame(frame, UNICODE, width=100, height=30):
        console.print(line, soft_wrap=True)
    console.file.close()
    (to / "terminal.txt").unlink()
    console.save_svg(
        str(to / "terminal.svg"),
        title="ampctl status --watch",
        theme=MONOKAI,
        code_format=_TERMINAL,
        unique_id="ampctl",
    )


@contextlib.contextmanager
def _job(home: Path, name: str, dtype: str, port: int) -> Iterator[Rehearsed]:
    file = home / f"{name}.toml"
    file.write_text(_JOB.format(name=name, home=home, dtype=dtype, port=port), encoding="utf-8")
    command = [sys.executable, "-c", "from ampd.cli.ampd import main; main()", "start", "--config", str(file)]
    environment = os.environ | {"AMPD_RUNTIME_DIR": str(home / "rt"), "OMP_NUM_THREADS": "1"}
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield Rehearsed(name, home, f"127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)
