#!/usr/bin/env python3
"""Checks alerts, their tests and the dashboard against docs/metrics.md and docs/operations.md.

  check.py [PROMETHEUS]

Every metric and label that a query names must be in the table, every alert must have an entry in
the handbook and tests of both kinds. With the address of a Prometheus that has scraped a running
pipeline, every query of the dashboard is also asked there and must be understood.
"""

import json
import pathlib
import re
import sys
import urllib.parse
import urllib.request

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Labels that a scrape adds, and the word of PromQL that looks like one.
SCRAPED = {"pipeline", "sink", "job", "instance"}
problems = []


def problem(text):
    problems.append(text)
    print(f"deploy/observability: {text}", file=sys.stderr)


def metrics():
    """Name of each metric in docs/metrics.md, with its labels."""
    found = {}
    for line in (ROOT / "docs/metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 5 and cells[1].startswith("`"):
            found.setdefault(cells[1].strip("`"), set()).update(re.findall(r"`(\w+)`", cells[4]))
    return found


def check_query(place, query, known):
    names = re.findall(r"\b(cdc_\w+|process_start_time_seconds|up)\b", query)
    if not names:
        problem(f"{place}: names no metric of ours: {query}")
    for name in names:
        if name != "up" and name not in known:
            problem(f"{place}: {name} is not in docs/metrics.md")
    allowed = SCRAPED.union(*(known.get(name, set()) for name in names))
    used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    for labels in re.findall(r"\bby\s*\(([^)]*)\)", query):
        used.update(label.strip() for label in labels.split(","))
    for label in used - allowed:
        problem(f"{place}: no metric of the query has the label {label}")


def check_alerts(known):
    rules = yaml.safe_load((HERE / "alerts.yaml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text(encoding="utf-8"))
    handbook = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    entries = {title.lower() for title in re.findall(r"^#+ (\w+)$", handbook, re.MULTILINE)}
    fires, silent = set(), set()
    for test in tests["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    names = set()
    for group in rules["groups"]:
        for rule in group["rules"]:
            name = rule["alert"]
            names.add(name)
            check_query(name, rule["expr"], known)
            if rule["labels"].get("severity") not in ("page", "ticket"):
                problem(f"{name}: severity must be page or ticket")
            if rule["annotations"]["runbook_url"] != f"docs/operations.md#{name.lower()}":
                problem(f"{name}: runbook_url must be docs/operations.md#{name.lower()}")
            if name.lower() not in entries:
                problem(f"{name}: docs/operations.md has no heading {name}")
            for kind, tested in (("must", fires), ("must not", silent)):
                if name not in tested:
                    problem(f"{name}: alerts_test.yaml has no series for which it {kind} fire")
    for name in (fires | silent) - names:
        problem(f"alerts_test.yaml: there is no alert {name}")


def dashboard_queries():
    path = HERE / "grafana/dashboards/cdc-platform.json"
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        problem(f"{path.name}: two panels have one id")
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and not panel.get("targets"):
            problem(f"{path.name}: panel {panel['title']!r} has no query")
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def ask(prometheus, place, query):
    for name, value in (("$pipeline", ".*"), ("$sink", ".*"), ("$__rate_interval", "1m")):
        query = query.replace(name, value)
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            series = json.load(answer)["data"]["result"]
    except OSError as error:
        problem(f"{place}: {error}: {query}")
        return
    print(f"{len(series):4} series: {place}")


def main():
    known = metrics()
    check_alerts(known)
    for place, query in dashboard_queries():
        check_query(f"dashboard, {place}", query, known)
        if len(sys.argv) > 1:
            ask(sys.argv[1].rstrip("/"), place, query)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
