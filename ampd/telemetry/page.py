"""The status page at `/`, for a person who opens the metrics port in a browser: whole without a script, live with one.

Server-rendered, because then there is one place that says what the page says. A browser without a script shows what
held when the page was asked for; with the script, `/events` (see `feed`) sends the sections that have changed and the
script puts them in their places. No other request is made, to nowhere: style and script are inline and allowed by
their hash, so whatever a job, a path or a message is called, it cannot become part of the page.

The curves are for who has no Grafana: loss, gradient norm and loss scale over the life of this daemon (`core.trace`).
"""

from __future__ import annotations

from html import escape

from ampd.core.view import JobView
from ampd.telemetry import page_parts as parts
from ampd.telemetry import page_plots as plots
from ampd.telemetry.page_look import HEADERS, SCRIPT, STYLE

__all__ = ["HEADERS", "fragments", "page"]

_SECTIONS = {
    "precision": "", "speed": "", "memory": "", "checkpoint": "", "loss": "wide", "norm": "wide", "scale": "wide",
    "windows": "wide", "events": "full",
}  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header><div id="state" role="status">{state}</div><div id="progress">{progress}</div>
<p class="soft"><span id="link">shown as it was when this page was loaded</span>
<noscript>(<a href="/">load it again</a>; with JavaScript it follows by itself)</noscript></p></header>
<main id="content" class="grid" tabindex="-1">
<section id="alerts" class="full" role="status">{alerts}</section>
{sections}
</main>
<footer><p><a href="/metrics">/metrics</a> <a href="/healthz">/healthz</a> <a href="/readyz">/readyz</a></p>
<p>{directory}, daemon {pid}. Read only: <code>ampctl</code> changes things, <code>ampctl explain</code> says what
they mean.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def page(view: JobView, now: float) -> str:
    """The view at `now` (Unix seconds) as an HTML document; serve it with `HEADERS`."""
    inside = fragments(view, now)
    sections = "\n".join(
        f'<section id="{name}" class="{kind}">{inside[name]}</section>' for name, kind in _SECTIONS.items()
    )
    return _PAGE.format(
        title=escape(f"{view.name}: {view.state}"), style=STYLE, script=SCRIPT, sections=sections, state=inside["state"],
        alerts=inside["alerts"], progress=inside["progress"], directory=escape(view.directory), pid=view.pid,
    )  # fmt: skip


def fragments(view: JobView, now: float) -> dict[str, str]:
    """The inside of every section by its id: what the page is made of, and what a listener is sent anew."""
    return {
        "state": parts.state(view),
        "progress": parts.progress(view, now),
        "alerts": parts.alerts(view, now),
        "precision": parts.precision(view),
        "speed": parts.speed(view),
        "memory": parts.memory(view),
        "checkpoint": parts.checkpoint(view, now),
        "loss": plots.loss(view),
        "norm": plots.norm(view),
        "scale": plots.scale(view),
        "windows": parts.windows(view),
        "events": parts.events(view),
    }
