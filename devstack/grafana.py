"""Grafana's JSON of the dashboards, every series in it confined to what their variables choose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from devstack.dashboards import DASHBOARDS, Panel

_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
# Each process has one of these; what is not the suite's is not among the values to choose from.
_OURS = '__name__=~"dialler_loop_run_seconds_count|dialler_relay_active"'
_SERIES = re.compile(r"\b(?:(?:dialler|process)_[a-z0-9_]+|dialler:[a-z0-9_:]+)(?P<labels>\{)?")


@dataclass(frozen=True)
class Variable:
    """A choice at the head of a dashboard; `all_values` is the pattern for no choice, if any."""

    name: str
    label: str
    all_values: str | None = None


# A Prometheus of one cluster gives its series no such label; the pattern takes that as well.
_PLACE = (Variable("cluster", "cluster", ".*"), Variable("namespace", "namespace", ".*"))
_SERVICE = Variable("service", "job")


def variables(name: str) -> tuple[Variable, ...]:
    """Return what is chosen at the head of a dashboard."""
    return (*_PLACE, _SERVICE) if name == "service" else _PLACE


def chosen(expression: str, among: Sequence[Variable]) -> str:
    """Return the expression with every series confined to what the variables choose."""
    confined = _matchers(among)

    def confine(found: re.Match[str]) -> str:
        return f"{found[0]}{confined}," if found["labels"] else f"{found[0]}{{{confined}}}"

    return _SERIES.sub(confine, expression)


def expressions(name: str) -> list[tuple[str, list[str]]]:
    """Return the panels' titles, each with its expressions as Grafana sends them."""
    _, panels = DASHBOARDS[name]
    among = variables(name)
    return [(it.title, [chosen(line[0], among) for line in it.lines]) for it in panels]


def dashboard_json(name: str) -> str:
    """Return a dashboard as Grafana loads it."""
    title, panels = DASHBOARDS[name]
    made = (
        dashboard.Dashboard(title)
        .uid(f"dialler-{name}")
        .tags(["dialler"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").type("prometheus"))
    )
    among = variables(name)
    for number, variable in enumerate(among):
        made = made.with_variable(_variable(variable, among[:number]))
    for panel in panels:
        made = made.with_panel(_panel(panel, among))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _matchers(among: Sequence[Variable]) -> str:
    return ",".join(f'{it.label}=~"${it.name}"' for it in among)


def _variable(variable: Variable, before: Sequence[Variable]) -> dashboard.QueryVariable:
    """Return the variable; it offers what there is within the choices made before it."""
    series = ",".join(filter(None, (_OURS, _matchers(before))))
    made = (
        dashboard.QueryVariable(variable.name)
        .datasource(_SOURCE)
        .query(f"label_values({{{series}}}, {variable.label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(text="All", value="$__all"))
    )
    return made if variable.all_values is None else made.all_value(variable.all_values)


def _panel(panel: Panel, among: Sequence[Variable]) -> stat.Panel | timeseries.Panel:
    made: stat.Panel | timeseries.Panel
    made = (
        stat.Panel().height(4).span(4) if panel.is_figure else timeseries.Panel().height(8).span(12)
    )
    made = made.title(panel.title).unit(panel.unit).datasource(_SOURCE).description(panel.meaning)
    for number, (expression, legend) in enumerate(panel.lines):
        query = prometheus.Dataquery().expr(chosen(expression, among)).legend_format(legend)
        made = made.with_target(query.ref_id(chr(ord("A") + number)))
    return made
