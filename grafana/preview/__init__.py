"""Draws the dashboards from what a real Prometheus answers, as SVG: `python -m grafana.preview`.

There is no Grafana among the tools that this project is built with, so nobody could say how a dashboard looks or
whether its panels show anything. This reads the very JSON that Grafana will read, fills in the variables, asks every
query of every panel, and draws the answers: a panel without data is seen to be without data. The pictures say that
they are previews. What they prove is that the queries give what the titles promise; how Grafana draws it may differ.

SVG of our own and not a plotting library or a browser's screenshot: the pictures stay small, are text that a diff can
show, and need nothing that the product does not have. With `--prometheus URL` it draws what any server has, for whom
a picture of an hour is enough; without it, a rehearsal is run first (see `rehearsal`).

    answers.py    a dashboard's queries, asked; variables filled in
    figures.py    numbers as Grafana's units write them; colours by threshold and by name
    svg.py        elements, text that is cut to fit, paths
    plots.py      curves, stacks, bars and heat over time, with their axes and marks
    cells.py      single figures, timelines of words, bar gauges, tables
    sheet.py      a whole dashboard on one sheet
    rehearsal.py  two real jobs with trouble on purpose, a real Prometheus, and pictures of page and terminal
"""
