"""Makes the dashboards, the Prometheus rules and their tests: `python -m grafana.generate`.

Generated and not written by hand, because a panel, a rule and a test each repeat names, selectors and units
that only a program keeps the same; and because rules need a second form, some number of times faster, to be
tested against real servers within seconds. Everything is typed data in Python, so mypy sees a wrong field
before Grafana does, and a metric that a panel or rule names is looked up in the table of
`ampd.telemetry.metrics`.

    pace.py      durations of rules, and the time scale
    alert.py     what an alert and a recording rule are, and what several of them ask
    rules.py     recording rules, and all alerts: precision_alerts.py, progress_alerts.py, process_alerts.py, rank_alerts.py
    history.py   a history for promtool
    cases.py     for each alert: when it fires, when it stays silent, when it resolves; *_cases.py beside *_alerts.py
    model.py     the part of Grafana's classic dashboard schema that we use
    panels.py    panels with our defaults, and their layout in rows
    queries.py   the PromQL that several dashboards ask
    frame.py     what all dashboards share: variables, marks, links
    overview.py precision.py performance.py fleet.py    the dashboards
    check.py     the lint of dashboards and of what rules name
    outputs.py   all of it as files
"""
