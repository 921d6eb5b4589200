"""How the status page looks and keeps itself up to date: its palette, its style sheet and its one script.

All three are constants, so that the policy can allow each by its hash and nothing else. Colours are named by what
they say; a test computes the contrast of every pair that is used. Nothing is said by colour alone.

The script only replaces the inside of sections by what the server rendered, so the page is the same with and without
it. It leaves a section alone in which text is selected: a figure must not vanish while somebody copies it.
"""

from __future__ import annotations

import base64
import hashlib

LIGHT = {
    "back": "#f4f6f8", "card": "#ffffff", "edge": "#cfd6de", "text": "#15191e", "soft": "#515c68",
    "link": "#0a58b5", "line": "#0a58b5", "good": "#146c37", "warn": "#8a4b00", "bad": "#b3261e",
}  # fmt: skip
DARK = {
    "back": "#0e1216", "card": "#171c22", "edge": "#333c46", "text": "#e8ecf0", "soft": "#a3afbb",
    "link": "#7db8ff", "line": "#7db8ff", "good": "#63d297", "warn": "#f2b84b", "bad": "#ff8f85",
}  # fmt: skip


def _variables(palette: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.45 system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }}
h1 {{ margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }}
h2 {{ margin: 0; font-size: .8125rem; font-weight: 600; letter-spacing: .04em; text-transform: uppercase;
  color: var(--soft); }}
p {{ margin: .25rem 0; }}
a {{ color: var(--link); }}
a:focus-visible {{ outline: 3px solid var(--link); outline-offset: 3px; border-radius: 2px; }}
.skip {{ position: absolute; left: -100rem; }}
.skip:focus {{ left: 1rem; top: 1rem; padding: .5rem 1rem; background: var(--card); z-index: 1; }}
.soft {{ color: var(--soft); }} .good {{ color: var(--good); }} .warn {{ color: var(--warn); }}
.bad {{ color: var(--bad); }}
.grid {{ display: grid; grid-template-columns: repeat(12, minmax(0, 1fr)); gap: .75rem; margin-top: .75rem; }}
section, header {{ background: var(--card); border: 1px solid var(--edge); border-radius: .5rem; padding: .875rem 1rem;
  min-width: 0; overflow-wrap: anywhere; }}
section {{ grid-column: span 3; min-height: 14.75rem; }}
#alerts {{ min-height: 6.25rem; }}
#events {{ min-height: 11rem; }}
section.wide {{ grid-column: span 6; display: flex; flex-direction: column; }}
section.full {{ grid-column: 1 / -1; }}
.figure {{ margin: .125rem 0; font-size: 1.5rem; font-weight: 600; line-height: 1.25; }}
.state {{ font-weight: 600; }}
.row {{ display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: baseline; }}
progress {{ width: 100%; height: .625rem; margin: .5rem 0 .25rem; accent-color: var(--line); }}
.plot {{ display: grid; grid-template: minmax(8rem, 1fr) auto / minmax(3.25rem, auto) minmax(0, 1fr); gap: 0 .5rem;
  flex: 1; margin-top: .5rem; font-size: .8125rem; color: var(--soft); }}
.plot .axis {{ display: flex; flex-direction: column; justify-content: space-between; text-align: right; }}
.plot svg {{ width: 100%; height: 100%; display: block; border-left: 1px solid var(--edge);
  border-bottom: 1px solid var(--edge); }}
.plot .times {{ grid-column: 2; display: flex; justify-content: space-between; gap: 1rem; }}
path {{ fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }}
.line {{ stroke: var(--line); stroke-width: 1.75; }}
.mark {{ stroke: var(--bad); stroke-width: 2; }}
table {{ width: 100%; border-collapse: collapse; margin-top: .25rem; }}
th, td {{ padding: .125rem 0 .125rem .75rem; text-align: right; font-weight: 400; white-space: nowrap; }}
th {{ color: var(--soft); }}
th:first-child {{ text-align: left; padding-left: 0; }}
td.bar {{ width: 45%; }}
td.bar svg {{ display: block; width: 100%; height: .5rem; }}
rect {{ fill: var(--line); }}
ol {{ list-style: none; margin: .25rem 0 0; padding: 0; }}
li {{ display: grid; grid-template-columns: 5rem 17rem minmax(0, 1fr); gap: 0 .5rem; padding: .1875rem 0; }}
footer {{ margin: 1rem .25rem; color: var(--soft); }}
footer a {{ display: inline-block; padding: .25rem .125rem; margin-right: .75rem; }}
@media (max-width: 62rem) {{
  section {{ grid-column: span 6; min-height: 11rem; }}
  #precision, #speed {{ min-height: 13.5rem; }}
  li {{ grid-template-columns: 5rem minmax(0, 1fr); border-top: 1px solid var(--edge); }}
  li span:last-child {{ grid-column: 2; }}
}}
@media (max-width: 40rem) {{
  body {{ padding: .5rem; }}
  section, section.wide {{ grid-column: 1 / -1; }}
  section, #precision, #speed, #events {{ min-height: 0; }}
}}
"""

SCRIPT = """
"use strict";
const link = document.getElementById("link");
const isSelected = node => {
  const selection = getSelection();
  return selection.type === "Range" && node.contains(selection.anchorNode);
};
const show = event => {
  const parts = JSON.parse(event.data);
  for (const [id, html] of Object.entries(parts)) {
    const node = document.getElementById(id);
    if (node && !isSelected(node)) node.innerHTML = html;
  }
  const state = document.getElementById("state").querySelector("h1");
  document.title = state.textContent;
};
const listen = () => {
  const source = new EventSource("/events");
  source.onopen = () => { link.textContent = "live"; };
  source.onmessage = show;
  source.onerror = () => {
    link.textContent = "not live: trying again";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
};
listen();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
