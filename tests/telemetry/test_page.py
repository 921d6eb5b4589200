"""The status page: everything on it, nothing from elsewhere, readable in both themes, and nothing that moves."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from ampd.core.activity import Activity, Sampled
from ampd.core.group import Leader, Place
from ampd.core.histogram import Distributions
from ampd.core.ledger import Cause
from ampd.core.lifecycle import JobState
from ampd.core.messages import Finished
from ampd.core.precision import Choice, Precision
from ampd.core.protocol import Event
from ampd.core.view import JobView
from ampd.telemetry.page import HEADERS, fragments, page
from ampd.telemetry.page_look import DARK, LIGHT
from ampd.telemetry.page_plots import power
from tests.telemetry import views
from tests.telemetry.eventful import NOW, eventful

ATTACK = "<script>alert(1)</script>\"'&"


def said(view: JobView, section: str) -> str:
    """The words of a section."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", fragments(view, NOW)[section])).strip()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("state", "bytes: ▶ running"),
        ("progress", "window 2399 of 4000 (60.0 %), epoch 2"),
        ("progress", "about 6 min 40 s left"),
        ("precision", "float16 named in the configuration"),
        ("speed", "4 windows/s 128 samples/s, 16,384 tokens/s"),
        ("memory", "537 MB peak a micro-batch keeps 2 MB less than in float32 (float32 window)"),
        ("checkpoint", "a crash now loses 49 windows"),
        ("loss", "held-out loss 1.3127, accuracy 0.6214"),
        ("norm", "266 clipped"),
        ("scale", "1024 = 2¹⁰ 13 back-offs (marked), 7 growths; floor 2⁰, ceiling 2²⁴"),
        (
            "windows",
            "2395 applied 3 skipped, 1 quarantined; ▲ limit reached in 1 epoch 63 fell back to float32 (2.6 %)",
        ),
        ("windows", "forward 0 20 scale 0 43 backward 0 0"),
        ("events", "window.fell_back (63 times) window 1900, cause scale, tried float16, applied_at float32"),
    ],
)
def test_the_page_says_what_a_person_asks_for(section: str, words: str) -> None:
    """State, precision and its reason, curves, causes, speed, memory with its baseline, checkpoint, events."""
    assert words in said(eventful(), section)


def test_every_section_is_on_the_page() -> None:
    """What listeners are sent is what the page is made of, each in a place with its name."""
    view = eventful()
    text = page(view, NOW)

    for name, html in fragments(view, NOW).items():
        assert re.search(rf'<(section|div) id="{name}"[^>]*>{re.escape(html)}</', text), name


def test_every_cause_has_its_place_from_the_start() -> None:
    """A row that came with its first window would move what is below it."""
    before, after = (fragments(view, NOW)["windows"].count("<tr>") for view in (views.starting(), eventful()))

    assert before == after == 1 + len(Cause)


def test_the_time_within_a_window_is_on_the_page() -> None:
    """Beside that of the loop, in a place that is there before a window was looked into."""
    sampled = Sampled()
    sampled.add({Activity.FORWARD: 0.25, Activity.BACKWARD: 0.75})
    view = eventful()
    before = said(view, "speed")
    view.past_distributions = Distributions(sampled=sampled)

    assert before.endswith("in a window: not looked into yet")
    assert said(view, "speed").endswith("in a window: backward 75 %, forward 25 %")


def test_before_the_worker_speaks_nothing_is_made_up() -> None:
    """No figure, no 0 that looks measured, and the boxes of the curves are there."""
    view = views.starting()

    assert "no window yet" in said(view, "progress")
    assert said(view, "loss").startswith("Loss none yet")
    assert said(view, "memory") == "Memory not measured"
    assert said(view, "speed") == "Throughput none yet"
    assert said(view, "events") == "Last events none yet"
    assert fragments(view, NOW)["scale"].count("<svg ") == 1


def test_a_calm_job_says_that_nothing_alerts() -> None:
    """An empty box would look as if it had not loaded."""
    assert said(views.running(last_progress=NOW), "alerts").startswith("Alerts ✔ none Judged here and now")


def test_an_alert_is_shown_with_its_figure_and_the_way_to_its_runbook() -> None:
    """A storm of overflows four minutes ago: what, how much, and what to type."""
    assert said(eventful(), "alerts").startswith(
        "Alerts ▲ warning: AmpdFallbackSpike 5.1% of the windows of the last 5 minutes fell back to float32. "
        "ampctl explain AmpdFallbackSpike"
    )


def test_a_failed_job_is_the_first_alert() -> None:
    """With the sign of a failure."""
    assert "✖ critical: AmpdJobFailed" in said(views.running(state=JobState.FAILED), "alerts")


@pytest.mark.parametrize("state", JobState)
def test_a_state_is_a_word_and_a_sign(state: JobState) -> None:
    """Never a colour alone."""
    assert re.search(rf"bytes: \S+ {state}$", said(views.running(state=state), "state"))


def test_a_failed_job_says_why() -> None:
    """The message of the result stands below the state."""
    result = Finished(result="failed", window=7, message="the disk is full")
    view = views.running(state=JobState.FAILED, result=result)

    assert said(view, "state").endswith("the disk is full")
    assert '<p class="bad">the disk is full</p>' in fragments(view, NOW)["state"]


@pytest.mark.parametrize(
    ("leader", "words"),
    [
        (None, "node gpu2, leads"),
        (Leader(host="gpu1"), "node gpu2, follows gpu1"),
        (Leader(host="gpu1", endpoint="tcp://gpu1:5555"), "node gpu2, follows gpu1 (tcp://gpu1:5555)"),
    ],
)
def test_a_node_says_which_it_is_and_where_changes_are_made(leader: Leader | None, words: str) -> None:
    """Whoever looks at one of several pages must know which; a job of one node says nothing of it."""
    view = views.running(place=Place(host="gpu2", node="gpu2"), leader=leader)

    assert said(view, "state").endswith(words)
    assert "node" not in said(views.running(place=Place(host="gpu2")), "state")


def test_a_fact_that_holds_or_not_is_a_word() -> None:
    """Nobody who looks at a job need know what a programming language prints."""
    assert "resumed no, " in said(eventful(), "events")


def test_a_hung_job_shows_how_long() -> None:
    """The time since the last window counts on while nothing comes."""
    view = views.running(last_progress=NOW - 65)

    assert "last window 1 min 05 s ago" in said(view, "progress")


def test_an_emulated_precision_is_called_so() -> None:
    """It costs time that nobody expects."""
    choice = Choice(precision=Precision.BFLOAT16, reason="named", is_native=False)

    assert "▲ named; it costs time" in said(views.running(choice=choice), "precision")


def test_checkpoints_that_failed_are_seen() -> None:
    """A person must know before the crash."""
    assert "✖ 2 failed" in said(views.running(checkpoint_failures={"full": 2}), "checkpoint")


def test_whatever_a_thing_is_called_it_is_text() -> None:
    """Names, reasons, messages, paths, kinds and fields are escaped wherever they are shown."""
    choice = Choice(precision=Precision.FLOAT16, reason=ATTACK)
    view = views.running(name=ATTACK, directory=ATTACK, state_reason=ATTACK, choice=choice)
    view.snapshots = {0: views.snapshot(memory={ATTACK: 1.0}, seconds={ATTACK: 1.0})}
    view.recent.add(Event(boot="b", seq=1, time=NOW, name="x.y", fields={ATTACK: ATTACK}), "info")

    text = page(view, NOW)
    assert ATTACK not in text
    assert text.count("<script>") == 1
    assert text.count("&lt;script&gt;alert(1)") >= 8


class Requests(HTMLParser):
    """What a document would ask for, and what it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[str] = set()
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect addresses, handlers and styles."""
        for name, value in attrs:
            if name in ("href", "src", "action", "srcset", "data", "poster"):
                self.addresses.add(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")


def test_the_page_asks_nobody_for_anything() -> None:
    """Only links to our own paths; no handler and no style in an attribute, which the policy would drop."""
    found = Requests()
    found.feed(page(eventful(), NOW))

    assert found.addresses == {"data:,", "#content", "/", "/metrics", "/healthz", "/readyz"}
    assert found.inline == []


@pytest.mark.parametrize("tag", ["style", "script"])
def test_what_is_inline_is_what_the_policy_allows(tag: str) -> None:
    """A style or script that does not match its hash would be dropped by every browser."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page(eventful(), NOW), re.DOTALL)

    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}';" in HEADERS["Content-Security-Policy"]


def test_the_policy_allows_no_more_than_is_used() -> None:
    """No unsafe-inline, no other host; only our own events may be connected to."""
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))

    assert policy.keys() == {
        "default-src", "style-src", "script-src", "connect-src", "img-src", "base-uri", "form-action", "frame-ancestors",
    }  # fmt: skip
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """The contrast ratio of WCAG 2, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_has_it() -> None:
    """Black on white is 21, and the textbook's grey is just above 4.5."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("word", ["text", "soft", "link", "good", "warn", "bad"])
@pytest.mark.parametrize("ground", ["card", "back"])
def test_words_can_be_read_in_both_themes(palette: dict[str, str], word: str, ground: str) -> None:
    """WCAG AA: 4.5 to 1 for text of any size."""
    assert contrast(palette[word], palette[ground]) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_can_be_seen_in_both_themes(palette: dict[str, str]) -> None:
    """WCAG AA: 3 to 1 for what is drawn."""
    assert min(contrast(palette[name], palette["card"]) for name in ("line", "bad")) >= 3


@pytest.mark.parametrize(("scale", "words"), [(65536.0, "2¹⁶"), (0.5, "2⁻¹"), (1000.0, "")])
def test_a_scale_is_a_power_of_two_where_it_is_one(scale: float, words: str) -> None:
    """It moves by factors of two unless somebody chose otherwise."""
    assert power(scale) == words
