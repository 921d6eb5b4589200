"""The previews: numbers and colours as Grafana writes them, gaps that stay gaps, every panel type, and what is checked in."""

from __future__ import annotations

import itertools
import json
import re
import threading
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from grafana.generate.outputs import HOME, dashboards
from grafana.preview import cells, figures, plots, svg
from grafana.preview.__main__ import PICTURES, main
from grafana.preview.answers import Series, Server
from grafana.preview.plots import Mark, Scale
from grafana.preview.sheet import draw
from grafana.preview.svg import Box

BOX = Box(0, 0, 400, 200)
SPAN = (0.0, 100.0)
CURVE: dict[str, Any] = {
    "custom": {"drawStyle": "line", "stacking": {"mode": "none"}, "scaleDistribution": {"type": "linear"}},
    "unit": "none", "thresholds": {"steps": [{"value": None, "color": "blue"}]},
}  # fmt: skip


def panel(kind: str, **defaults: Any) -> dict[str, Any]:
    """A panel of that type, with these defaults of its fields."""
    return {
        "type": kind,
        "fieldConfig": {"defaults": CURVE | defaults},
        "options": {"textMode": "auto", "yAxis": {"unit": "s"}},
    }


def series(name: str, *values: float, step: float = 10.0, **labels: str) -> Series:
    """A series with a value for each step from time 0."""
    return Series(name, labels, [(step * at, value) for at, value in enumerate(values)])


def words(drawn: str) -> list[str]:
    """The texts of a drawing."""
    return re.findall(r">([^<]+)</text>", drawn)


def parsed(drawn: str) -> ET.Element:
    """A drawing, or a part of one, as XML."""
    return ET.fromstring(drawn if drawn.startswith("<svg") else f"<svg>{drawn}</svg>")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.125, "percentunit", "12.5%"),
        (1.0, "percentunit", "100%"),
        (0.0125, "s", "12.5 ms"),
        (0.0000125, "s", "12.5 µs"),
        (90, "s", "1.5 min"),
        (7200, "s", "2 h"),
        (0, "s", "0 s"),
        (4096, "bytes", "4 KiB"),
        (512, "bytes", "512 B"),
        (1530, "short", "1.53 K"),
        (12.5, "ops", "12.5 ops/s"),
        (0.001, "sci", "1.00e-03"),
        (65536, "none", "65536"),
        (0.00001, "none", "1e-05"),
    ],
)
def test_a_figure_is_written_in_its_unit(value: float, unit: str, text: str) -> None:
    """As the panel would say it."""
    assert figures.written(value, unit) == text


def test_a_threshold_colours_what_reaches_it() -> None:
    """The highest step that is reached."""
    steps = [
        {"value": None, "color": "green"},
        {"value": 0.02, "color": "orange"},
        {"value": 0.1, "color": "red"},
    ]
    colors = [figures.threshold_color(value, {"thresholds": {"steps": steps}}) for value in (0.01, 0.02, 0.5)]

    assert colors == [figures.COLORS[name] for name in ("green", "orange", "red")]


def test_what_is_not_known_is_not_drawn() -> None:
    """A gap of the answers is a gap of the curve."""
    broken = Series("loss", {}, [(0, 1), (10, 1), (20, 2), (60, 2), (70, 3)])

    drawn = plots.timeseries(panel("timeseries"), [broken], BOX, SPAN, [])
    assert drawn.count('stroke-width="1.5"') == 2


def test_a_level_stretch_is_drawn_with_two_points() -> None:
    """Pictures are checked in: what can be left out is."""
    assert (
        svg.path([(0, 5), (1, 5), (2, 5), (3, 5), (4, 9)], "red")
        == '<path d="M0 5l3 0 1 4" stroke="red" stroke-width="1.5"/>'
    )


def test_a_log_scale_has_equal_room_for_each_factor() -> None:
    """Halvings of the loss scale are equal steps."""
    scale = Scale(BOX, *SPAN, 1, 256, is_log=True)
    heights = [scale.y(2.0**power) for power in range(9)]

    assert [round(a - b, 6) for a, b in itertools.pairwise(heights)] == [25] * 8
    assert scale.ticks() == [1, 16, 256]


def test_a_stack_ends_at_the_sum() -> None:
    """Its axis reaches what the parts are together."""
    stacked = panel("timeseries", custom=CURVE["custom"] | {"stacking": {"mode": "normal"}})

    drawn = plots.timeseries(stacked, [series("a", 1, 2), series("b", 3, 4)], BOX, SPAN, [])
    assert "6" in words(drawn)


def test_marks_are_drawn_where_something_held() -> None:
    """A dashed line where it begins, and a tint as long as it lasts."""
    drawn = plots.timeseries(panel("timeseries"), [series("a", 1, 2)], BOX, SPAN, [Mark(10, 60, "#123456")])

    assert drawn.count('stroke="#123456" stroke-dasharray') == 1
    assert drawn.count('fill="#123456"') == 1


def test_a_legend_that_is_too_long_says_how_much_is_missing() -> None:
    """The series that moved come first."""
    many = [series(f"a quiet one {number}", 0, 0) for number in range(20)]

    drawn = words(plots.timeseries(panel("timeseries"), [*many, series("the loud one", 1, 2)], BOX, SPAN, []))
    assert next(word for word in drawn if "one" in word) == "the loud one: 2"
    assert re.fullmatch(r"and \d+ more", drawn[-1])


def test_a_heat_map_shows_each_bucket_without_those_below() -> None:
    """Prometheus's buckets are cumulative; what is drawn is what fell between two bounds."""
    cumulative = [
        series(le, 0, count, le=le) for le, count in (("0.1", 2), ("0.2", 2), ("0.4", 6), ("+Inf", 6))
    ]

    drawn = parsed(plots.heat(panel("heatmap"), cumulative, BOX, SPAN, [])).findall("rect")
    assert [cell.get("opacity") for cell in drawn] == ["0.57", None]


def test_a_mapped_figure_is_its_word() -> None:
    """0 is "native", in the colour of its threshold."""
    mapping = [{"type": "value", "options": {"0": {"text": "native"}}}]

    assert words(cells.stat(panel("stat", mappings=mapping), [series("a", 0)], BOX)) == ["native"]


def test_a_timeline_writes_the_word_of_each_stretch() -> None:
    """One bar for each stretch of one value; nothing for what is transparent."""
    mapping = [{"options": {"1": {"text": "running", "color": "green"}, "2": {"text": "paused", "color": "yellow"},
                            "0": {"text": "not known", "color": "transparent"}}}]  # fmt: skip

    drawn = cells.timeline(
        panel("state-timeline", mappings=mapping), [series("gpu1", 1, 1, 1, 0, 2, 2, 2)], BOX, SPAN, []
    )
    assert [word for word in words(drawn) if word in ("running", "paused", "not known")] == [
        "running",
        "paused",
    ]


def test_bars_are_as_long_as_their_values() -> None:
    """The longest first, and twice as long as its half."""
    drawn = parsed(cells.gauges(panel("bargauge"), [series("small", 1), series("great", 2)], BOX))
    great, small = (float(bar.get("width", "")) for bar in drawn.findall("rect"))

    assert great == pytest.approx(2 * small, abs=0.2)


class Canned(BaseHTTPRequestHandler):
    """Answers every query with one series: 1 at each step."""

    asked: list[dict[str, list[str]]] = []

    def do_POST(self) -> None:
        """As Prometheus answers range and instant queries; "fail" is refused."""
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.asked.append(form)
        labels = {
            "instance": "gpu1:9647",
            "precision": "float16",
            "state": "running",
            "le": "1",
            "run_name": "bytes",
        }
        steps = [[float(form["start"][0]) + 10 * at, "1"] for at in range(7)] if "start" in form else []
        one = {"metric": labels, "values": steps} if steps else {"metric": labels, "value": [60, "1"]}
        is_bad = form["query"] == ["fail"]
        body = json.dumps({"error": "parse error"} if is_bad else {"data": {"result": [one]}}).encode()
        self.send_response(400 if is_bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest's output is for tests."""


@contextmanager
def canned() -> Iterator[Server]:
    """A server of canned answers, and a minute of its time."""
    Canned.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", 0, 60, 1, (("instance", "gpu1:9647"),))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda each: str(each["uid"]))
def test_every_panel_is_on_the_sheet(dashboard: dict[str, Any]) -> None:
    """Whatever its type: its title, no hole, and a label that says that this is not Grafana."""
    with canned() as server:
        sheet = draw(dashboard, server)

    said = words(sheet.svg)
    assert parsed(sheet.svg.strip()).tag.endswith("svg")
    assert sheet.empty == []
    assert said[0].startswith("PREVIEW, not Grafana")
    assert {p["title"][:12] for p in dashboard["panels"]} <= {word[:12] for word in said}


def test_variables_are_filled_in_as_grafana_does() -> None:
    """A choice is that value, everything else is all; ranges are of the picture."""
    server = Server("", 0, 60, 1, (("instance", "gpu1:9647"),))

    filled = server.fill('rate(a{job=~"$job", instance=~"$instance"}[$__rate_interval]) or b[$__range]')
    assert filled == 'rate(a{job=~".+", instance=~"gpu1:9647"}[4s]) or b[60s]'
    assert '".+"' in server.of_all().fill('"$instance"')


def test_tables_and_figures_of_now_ask_for_one_moment() -> None:
    """A word that held earlier must not stand beside the one that holds."""
    with canned() as server:
        draw(next(d for d in dashboards() if d["uid"] == "ampd-overview"), server)

    state = [
        form
        for form in Canned.asked
        if 'ampd_job_state{job=~".+", instance=~"gpu1:9647"} == 1' in form["query"][0]
    ]
    assert [("time" in form, "start" in form) for form in state] == [(True, False)]


def test_a_query_that_is_refused_is_shown_with_the_reason() -> None:
    """Prometheus says what is wrong; so does the preview."""
    with canned() as server, pytest.raises(ValueError, match="fail: parse error"):
        server.over_time("fail", "")


def test_previews_of_any_server_are_drawn_where_one_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four files, each with its size and with what had nothing to show."""
    with canned() as server:
        assert main(["--prometheus", server.url, "--minutes", "1", "--out", str(tmp_path)]) == 0

    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(d["uid"] for d in dashboards())
    assert capsys.readouterr().out.count("without data: none") == 4


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda each: str(each["uid"]))
def test_the_pictures_that_are_checked_in_show_the_panels_that_are(dashboard: dict[str, Any]) -> None:
    """A panel that came or went since they were drawn: `python -m grafana.preview` draws them again."""
    said = words((PICTURES / f"{dashboard['uid']}.svg").read_text(encoding="utf-8"))

    missing = {
        p["title"] for p in dashboard["panels"] if not any(word[:12] == p["title"][:12] for word in said)
    }
    assert missing == set()


def test_pictures_are_small_and_ask_nobody_for_anything() -> None:
    """A reader's browser loads the picture alone."""
    files = [path for path in (HOME / "pictures").iterdir() if path.suffix in (".svg", ".webp")]

    assert len(files) == 7
    assert {path.name for path in files if path.stat().st_size > 150_000} == set()
    for path in files:
        if path.suffix == ".svg":
            assert set(re.findall(r"https?://[^\"' )<]+", path.read_text(encoding="utf-8"))) <= {
                "http://www.w3.org/2000/svg"
            }


def test_the_readme_shows_every_picture() -> None:
    """And nothing that is not there."""
    text = (HOME.parent / "README.md").read_text(encoding="utf-8")

    shown = set(re.findall(r"grafana/pictures/([\w.-]+)", text))
    assert shown == {path.name for path in (HOME / "pictures").iterdir()}
