"""What dashboard, alerts and scaler ask for is there: metrics.py ROOT RENDERED… > RULES

Writes every expression of the dashboard and of the scaler as rules, which promtool can parse.
"""

import json
import re
import sys
from pathlib import Path

import yaml


def code_list(root):
    """The names in the code's own list of metrics, and those that a histogram's page has."""
    source = "".join(path.read_text() for path in sorted((root / "src/telemetry").rglob("*.rs")))
    names = set(re.findall(r'\(\s*"(keylane_[a-z_]+)",', source.split("HELP:")[1].split("];")[0]))
    histograms = set(re.findall(r'histogram!\("(keylane_[a-z_]+)"\)', source))
    return names, (names - histograms) | {name + end for name in histograms for end in ("_bucket", "_sum", "_count")}


def dashboard(root):
    board = json.loads((root / "deploy/chart/files/dashboard.json").read_text())
    places = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        for cell in [(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])]:
            assert cell not in places and cell[0] < 24, f"panel {panel['title']} lies on another"
            places.add(cell)
        targets = panel.get("targets", [])
        assert targets or panel["type"] == "row", f"panel {panel['title']} shows something"
        for target in targets:
            yield f"panel {panel['title']}", target["expr"].replace("$__rate_interval", "5m")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$([a-z]+)", json.dumps(board["panels"])))
    assert used == variables, f"variables {used ^ variables} are used and defined"
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", re.fullmatch(r"label_values\((.*), [a-z]+\)", variable["query"])[1]


def scaler(rendered):
    for path in rendered:
        for document in yaml.safe_load_all(Path(path).read_text()):
            if document and document["kind"] == "ScaledObject":
                for trigger in document["spec"]["triggers"]:
                    if trigger["type"] == "prometheus":
                        yield f"scaler of {path}", trigger["metadata"]["query"]


def heading(text):
    return re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-")


def alerts(root):
    tests = yaml.safe_load((root / "tests/deploy/alerts.yaml").read_text())["tests"]
    raised = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    silent = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case.get("exp_alerts")}
    runbook = (root / "docs/RUNBOOK.md").read_text()
    sections = {heading(line[3:]) for line in runbook.splitlines() if line.startswith("## ")}
    rules = [rule for group in yaml.safe_load((root / "deploy/chart/files/alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning"), f"{name} says how bad it is"
        assert notes.keys() == {"summary", "description", "runbook_url"}, f"{name} says what it is"
        assert notes["runbook_url"] == f"docs/RUNBOOK.md#{heading(name)}" and heading(name) in sections, f"{name} has a section in docs/RUNBOOK.md"
        assert name in raised and name in silent, f"tests/deploy/alerts.yaml tries {name}, raised and silent"
        yield f"alert {name}", rule["expr"]
    names = {heading(rule["alert"]) for rule in rules}
    left = {section for section in sections if section.startswith("keylane")} - names
    assert not left, f"docs/RUNBOOK.md has sections for no alert: {left}"


def main():
    root = Path(sys.argv[1])
    names, known = code_list(root)
    assert len(names) > 20, "the code's list of metrics was found"
    rules, shown = [], set()
    for where, expression in [*dashboard(root), *scaler(sys.argv[2:]), *alerts(root)]:
        used = set(re.findall(r"\bkeylane_[a-z_]+", expression))
        wrong = used - known
        assert used and not wrong, f"{where}: {wrong or expression} is no metric of keylane"
        rules.append({"record": f"check:{len(rules)}", "expr": expression, "labels": {"where": where}})
        if where.startswith("panel"):
            shown |= {re.sub(r"_(bucket|sum|count)$", "", name) if name not in names else name for name in used}
    assert not names - shown, f"the dashboard shows every metric, but not {names - shown}"
    print(yaml.safe_dump({"groups": [{"name": "check", "rules": rules}]}))


try:
    main()
except AssertionError as failure:
    sys.exit(f"metrics: {failure}")
