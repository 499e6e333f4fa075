"""The objectives, the alerts and what becomes of them in Prometheus's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from servicekit.slo import FAULTS as FAULT_CODES

# Where pagers open the pages of docs/runbooks: set it to where yours are served.
RUNBOOKS_URL = "https://git.example/dialler/blob/main/docs/runbooks"

# One Prometheus may watch several clusters and namespaces, each with a suite of its own.
PLACE = "cluster, namespace"
SUM, MAX, MIN = (f"{how} by ({PLACE})" for how in ("sum", "max", "min"))
PRESENT = "dialler:suite:present"

FAULTS = "|".join(sorted(FAULT_CODES))
CLAIM = "/dialler.queue.v1.QueueService/ClaimNext"
# A process that is not ready answers its probes with 503, every few seconds.
NO_PROBE = 'route!~"/healthz|/readyz"'
LAST_FULL = 'dialler_reconciler_last_success_timestamp_seconds{kind="full"}'
# A share of failures raises an alert only from so many failures within five minutes on.
FAILED_AT_LEAST = 5
# By name, since kube-state-metrics has every Job in the cluster.
JOBS = "migrate-.+|reconcile-.+"
# Longer than any of them may take.
JOB_HOURS = 8
# A series that a service has from its start to its end. The relay has none here: with AWS DMS
# there is no relay, and where there is one its silence is DiallerCaptureSilent.
ALWAYS_THERE = {
    "user_context": "dialler_user_context_fills_fenced_total",
    "queue": "dialler_queue_wrong_calls_total",
    "cdc_ingest": "dialler_cdc_ingest_backlog_messages",
    "reconciler": "dialler_reconciler_leading",
    "gateway": "dialler_http_server_in_progress",
}


@dataclass(frozen=True)
class Objective:
    """An SLO: a share of events that are good, by the counters of both.

    A burn alert needs `missed_at_least` bad events in its long window: of few, one alone is
    a large share. A floor under all events instead would hide that each of a few fails.
    """

    name: str
    alert: str
    target: float
    good: str
    total: str
    missed_at_least: int
    summary: str


@dataclass(frozen=True)
class Alert:
    """A condition that an operator must act on."""

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str


OBJECTIVES = (
    Objective(
        "change_visible",
        "DiallerChangesLate",
        0.99,
        'dialler_gateway_change_visible_seconds_bucket{le="3.0"}',
        "dialler_gateway_change_visible_seconds_count",
        5,
        "more than 1 % of changes take over 3 s from MySQL to the desks",
    ),
    Objective(
        "claim_answered",
        "DiallerClaimsSlow",
        0.999,
        f'dialler_grpc_server_seconds_bucket{{method="{CLAIM}",code!~"{FAULTS}",le="0.5"}}',
        f'dialler_grpc_server_seconds_count{{method="{CLAIM}"}}',
        5,
        "more than 0.1 % of claims fail or take over 500 ms",
    ),
)

# Short window, long window, factor, how long it must last, severity.
BURNS = (
    ("5m", "1h", 14.4, "2m", "page"),
    ("30m", "6h", 6.0, "5m", "page"),
    ("2h", "1d", 3.0, "15m", "ticket"),
    ("6h", "3d", 1.0, "30m", "ticket"),
)


def _failing(sums: str, failed: str, total: str) -> str:
    """Return the condition that over 5 % fail, and so many that it is not one bad moment."""
    return (
        f"{sums} (rate({failed}[5m])) / {sums} (rate({total}[5m])) > 0.05"
        f" and {sums} (increase({failed}[5m])) >= {FAILED_AT_LEAST}"
    )


def _failed_jobs() -> str:
    """Return the condition that a Job of the last hours has failed.

    Each run of a CronJob is a Job of its own. Failed pods stay counted after a later pod of the Job
    succeeds, and failed Jobs of a CronJob are kept: neither may keep the alert going for ever.
    """
    by = f"{PLACE}, job_name"
    failed, succeeded, active, started = (
        f'max by ({by}) (kube_job_status_{it}{{job_name=~"{JOBS}"}})'
        for it in ("failed", "succeeded", "active", "start_time")
    )
    ended_badly = (
        f"{failed} > 0 unless {succeeded} > 0 unless {active} > 0"
        f" and {started} > time() - {JOB_HOURS * 3600}"
    )
    return (
        f"max by ({PLACE}, kubernetes_job) ("
        f'label_replace({ended_badly}, "kubernetes_job", "$1", "job_name", "(.+?)(-[0-9]+)?"))'
    )


ALERTS = (
    # The third objective: its budget is nought, so there is no rate to burn it at. A counter that
    # appears at 1 has no increase for Prometheus; hence the sum over restarts as well.
    Alert(
        "DiallerWrongCall",
        f"{SUM} (increase(dialler_queue_wrong_calls_total[15m])) > 0"
        f" or {SUM} ("
        "dialler_queue_wrong_calls_total unless dialler_queue_wrong_calls_total offset 15m) > 0",
        0,
        "page",
        "a person was handed out whom the live check had not found callable",
    ),
    Alert(
        "DiallerDeadLetters",
        f"{MAX} (dialler_cdc_ingest_dead_letter_messages) > 0",
        1,
        "ticket",
        "changes that could not be processed are in the dead-letter queue",
    ),
    Alert(
        "DiallerDeadLetterAlarm",
        f"{MAX} (dialler_cdc_ingest_dead_letter_alarm) > 0",
        0,
        "page",
        "too many dead letters within a minute: nothing is received until an operator resumes it",
    ),
    Alert(
        "DiallerBacklogOld",
        f"time() - {MIN} (dialler_cdc_ingest_applied_through_timestamp_seconds > 0) > 60"
        f" and {MAX} (dialler_cdc_ingest_backlog_messages) > 0"
        # Who starts again and again has never applied anything: only the backlog tells.
        f" or {MAX} (dialler_cdc_ingest_backlog_messages) > 0"
        f" unless {SUM} ("
        'increase(dialler_cdc_ingest_messages_total{result=~"done|dead"}[5m])) > 0',
        3,
        "page",
        "changes captured over a minute ago are not applied yet",
    ),
    Alert(
        "DiallerCaptureSilent",
        # Where heartbeats come: without them (AWS DMS) a quiet night would be silence. Over two
        # days, because a process that starts during the silence knows nothing from before it.
        f"time() - {MAX} ("
        "max_over_time(dialler_cdc_ingest_capture_alive_timestamp_seconds[2d]) > 0) > 120"
        f' and {SUM} (increase(dialler_cdc_ingest_records_total{{kind="heartbeat"}}[2d])) > 0',
        2,
        "page",
        "neither a change nor a heartbeat has come from MySQL for two minutes",
    ),
    Alert(
        "DiallerNothingOurs",
        # For an hour: none within ten minutes, fifty minutes long. What is in files and names no
        # table of ours counts like a row of another table.
        f"{SUM} ("
        'increase(dialler_cdc_ingest_records_total{kind=~"foreign|ownerless|file"}[1h])) > 0'
        f" unless {SUM} ("
        'increase(dialler_cdc_ingest_records_total{kind=~"row|lost_track"}[10m])) > 0',
        50,
        "ticket",
        "changes arrive, but none for an hour is of a followed table or person",
    ),
    Alert(
        "DiallerCaptureClockAhead",
        f"{MAX} (dialler_cdc_ingest_capture_ahead_seconds) > 5",
        5,
        "ticket",
        "capture times of changes are over 5 s after their receipt",
    ),
    Alert(
        "DiallerRelayLagging",
        f"{MAX} (dialler_relay_commit_lag_seconds and dialler_relay_active == 1) > 10",
        3,
        "ticket",
        "the relay publishes changes over 10 s after their commit",
    ),
    Alert(
        "DiallerNoRelayLeader",
        f"{SUM} (dialler_relay_active) < 1",
        2,
        "page",
        "no replica of the relay reads the binlog",
    ),
    Alert(
        "DiallerSourceUnfit",
        f"{MAX} (dialler_relay_source_unfit) > 0",
        1,
        "page",
        "MySQL answers the relay, but its binlog does not get the changes",
    ),
    Alert(
        "DiallerNoReconcilerLeader",
        f"{SUM} (dialler_reconciler_leading) < 1",
        5,
        "ticket",
        "no replica of the reconciler works",
    ),
    Alert(
        "DiallerDrift",
        f"{SUM} (increase(dialler_reconciler_drift_total[1h])) > 0",
        0,
        "ticket",
        "drift was found: a change had been lost; it has been repaired",
    ),
    Alert(
        "DiallerPeopleWithheld",
        f"{MAX} (dialler_reconciler_people_withheld) > 0",
        0,
        "page",
        "so many people are missing in the main app that none was treated as deleted",
    ),
    Alert(
        "DiallerBatchFreshness",
        f"{MAX} (dialler_reconciler_batch_freshness) > 0",
        5,
        "ticket",
        "runs of the reconciler replace change capture",
    ),
    Alert(
        "DiallerReconcileOverdue",
        # A process that has had no success has no such series: what others had seen counts, and
        # after a bad roll-out that there has been none at all.
        f"time() - {MAX} (max_over_time({LAST_FULL}[12h])) > 43200"
        f" or {SUM} (dialler_reconciler_leading offset 12h) > 0"
        f" unless on ({PLACE}) max_over_time({LAST_FULL}[12h])",
        10,
        "ticket",
        "no full comparison has succeeded for twelve hours",
    ),
    Alert(
        "DiallerPoolExhausted",
        f"sum by ({PLACE}, job) (increase(dialler_database_pool_timeouts_total[5m])) > 0"
        f" or max by ({PLACE}, job, pool) ("
        "dialler_database_pool_in_use / dialler_database_pool_size) >= 1",
        3,
        "ticket",
        "a service has had no free database connection for minutes",
    ),
    Alert(
        "DiallerDatabaseReadOnly",
        f"sum by ({PLACE}, job) ("
        'increase(dialler_database_failures_total{reason="DATABASE_READ_ONLY"}[2m])) > 0',
        3,
        "page",
        "a service finds no server of its database that accepts writes",
    ),
    Alert(
        "DiallerReplicaStopped",
        f"{MAX} (dialler_user_context_replica_stopped) > 0",
        2,
        "page",
        "the MySQL replica that is read does not follow its source any more",
    ),
    Alert(
        "DiallerOldSnapshot",
        f"{MAX} (dialler_queue_oldest_snapshot_seconds) > 300",
        1,
        "ticket",
        "a transaction keeps PostgreSQL from cleaning up; the queue's tables grow and slow down",
    ),
    Alert(
        "DiallerServiceAbsent",
        # In each namespace that had any of the suite within a day. absent() knows no namespace, so
        # that it stays quiet while another one has the service.
        " or ".join(
            f"label_replace(max_over_time({PRESENT}[1d])"
            f' unless on ({PLACE}) {series}, "service", "{service}", "", "")'
            for service, series in ALWAYS_THERE.items()
        )
        + f' or label_replace(absent_over_time({PRESENT}[1d]), "service", "every", "", "")',
        5,
        "page",
        "no replica of a service reports metrics",
    ),
    Alert(
        "DiallerGatewayFailing",
        _failing(
            SUM,
            f'dialler_http_server_seconds_count{{{NO_PROBE},status=~"5.."}}',
            f"dialler_http_server_seconds_count{{{NO_PROBE}}}",
        ),
        5,
        "page",
        "over 5 % of the desks' requests fail",
    ),
    Alert(
        "DiallerServiceFailing",
        _failing(
            f"sum by ({PLACE}, method)",
            f'dialler_grpc_server_seconds_count{{code=~"{FAULTS}"}}',
            "dialler_grpc_server_seconds_count",
        ),
        5,
        "page",
        "over 5 % of a method's calls fail",
    ),
    Alert(
        "DiallerRedisUnusable",
        f"{MIN} (dialler_user_context_cache_trusted) < 1"
        f" or {MAX} (dialler_gateway_event_stream_lost) > 0",
        2,
        "page",
        "Redis is unavailable or refuses writes: nothing is cached, and events stand still",
    ),
    Alert(
        "DiallerOutboxHeldUp",
        f"max by ({PLACE}, outbox) (dialler_queue_outbox_length) > 1000",
        3,
        "ticket",
        "events or notices of the queue are not delivered",
    ),
    Alert(
        "DiallerCallbacksOverdue",
        f"{MAX} (dialler_queue_callbacks_overdue) > 0",
        10,
        "ticket",
        "callbacks are over half an hour late, though the people may be called now",
    ),
    Alert(
        "DiallerPhoneListOld",
        f"{MAX} (dialler_queue_phone_lists_old) > 0",
        60,
        "ticket",
        "a list of numbers that must not be called is older than the rules have it",
    ),
    Alert(
        "DiallerJobFailed",
        _failed_jobs(),
        1,
        "ticket",
        "a Kubernetes Job, a migration or a reconciliation, has failed",
    ),
)


def alert_names() -> list[str]:
    """Return every alert's name, once."""
    return [each.alert for each in OBJECTIVES] + [each.name for each in ALERTS]


def rules() -> dict[str, Any]:
    """Return the rules file."""
    windows = dict.fromkeys(w for short, long, *_ in BURNS for w in (short, long))
    present = "|".join(ALWAYS_THERE.values())
    suite = {"record": PRESENT, "expr": f'group by ({PLACE}) ({{__name__=~"{present}"}})'}
    records = [each for it in OBJECTIVES for window in windows for each in _records(it, window)]
    burning = [_burn_alert(it, *burn) for it in OBJECTIVES for burn in BURNS]
    return {
        "groups": [
            {"name": "dialler-suite", "rules": [suite]},
            {"name": "dialler-objectives", "interval": "30s", "rules": records},
            {"name": "dialler-burn", "rules": burning},
            {"name": "dialler-operations", "rules": [_alert(each) for each in ALERTS]},
        ]
    }


def _records(objective: Objective, window: str) -> list[dict[str, str]]:
    """Return what missed the objective, and after it, since it is read from there, the share."""
    total = f"{SUM} (increase({objective.total}[{window}]))"
    # Where none has been good yet there is no such series: that makes all of them bad.
    good = f"({SUM} (increase({objective.good}[{window}])) or 0 * {total})"
    missed = _recorded(objective, "missed", window)
    return [
        {"record": missed, "expr": f"{total} - {good}"},
        {"record": _recorded(objective, "bad_ratio", window), "expr": f"{missed} / {total}"},
    ]


def _recorded(objective: Objective, what: str, window: str) -> str:
    return f"dialler:{objective.name}:{what}_{window}"


def _burn_alert(
    objective: Objective, short: str, long: str, factor: float, lasts: str, severity: str
) -> dict[str, Any]:
    limit = round(factor * (1 - objective.target), 6)
    expression = (
        f"{_recorded(objective, 'bad_ratio', short)} > {limit}"
        f" and {_recorded(objective, 'bad_ratio', long)} > {limit}"
        f" and {_recorded(objective, 'missed', long)} >= {objective.missed_at_least}"
    )
    return {
        "alert": objective.alert,
        "expr": expression,
        "for": lasts,
        "labels": {"severity": severity, "window": long},
        "annotations": _annotations(objective.alert, objective.summary),
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": f"{alert.minutes}m",
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert.name, alert.summary),
    }


def _annotations(name: str, summary: str) -> dict[str, str]:
    return {"summary": summary, "runbook_url": f"{RUNBOOKS_URL}/{name}.md"}
