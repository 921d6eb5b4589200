"""The page at `/`, for a person who opens the metrics port in a browser: no script, no request to anywhere.

Everything that is shown is escaped, the style is allowed by its hash and nothing else is, so a job, a path or
a message can hold any text without becoming part of the page.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape

from ampd.core.view import JobView
from ampd.telemetry.summary import rows

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
th { text-align: left; vertical-align: top; padding-right: 1.5rem; white-space: nowrap; }
td { overflow-wrap: anywhere; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
<table>
{table}
</table>
<p><a href="/metrics">/metrics</a> for Prometheus, <a href="/healthz">/healthz</a> and <a href="/readyz">/readyz</a>
for probes; <code>ampctl status</code> shows more.</p>
</body>
</html>
"""


def page(view: JobView) -> str:
    """The view as an HTML document; serve it with `HEADERS`."""
    title = escape(f"{view.name}: {view.state}")
    table = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows(view)
    )
    return _PAGE.format(title=title, style=_STYLE, table=table)
