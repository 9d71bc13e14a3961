"""All checks of a database, one after the other, of one moment."""

from sqlalchemy import Connection, Table, func, select

from taskhub.doctor.findings import Examined, Findings
from taskhub.doctor.index import check_index
from taskhub.doctor.log import check_log
from taskhub.doctor.records import check_answers, check_batches
from taskhub.doctor.tickets import TicketCheck
from taskhub.storage import schema
from taskhub.storage.database import lift_time_limits
from taskhub.storage.migrate import newest_revision, revision_of
from taskhub.tickets.reference import load


class OtherSchema(Exception):
    """The database has not the schema of this program, so it cannot be judged."""

    def __init__(self, revision: str | None) -> None:
        has = "no schema" if revision is None else f"an older schema ({revision})"
        super().__init__(f"it has {has}; `taskhub migrate` brings it to the newest")


def examine(connection: Connection) -> Findings:
    """Look at everything, and change nothing: a unit for Database.read. Raises OtherSchema and NewerSchema."""
    lift_time_limits(connection)
    revision = revision_of(connection)
    if revision != newest_revision():
        raise OtherSchema(revision)
    findings = Findings()
    if connection.dialect.name == "sqlite":
        _check_file(connection, findings)
    _check_whole(connection, findings)
    for workspace in connection.execute(select(schema.workspaces).order_by(schema.workspaces.c.id)).all():
        references = load(connection, workspace.id, workspace.references_version)
        events = check_log(connection, workspace, findings)
        tickets = TicketCheck(connection, workspace, references, findings).run()
        check_answers(connection, workspace, findings)
        check_batches(connection, workspace, findings)
        findings.examined.append(
            Examined(workspace.id, tickets, events, workspace.oldest_seq, workspace.head_seq)
        )  # fmt: skip
    check_index(connection, findings)
    return findings


def _check_file(connection: Connection, findings: Findings) -> None:
    for (what,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if what != "ok":
            findings.add("file", None, what)
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        findings.add("file", None, f"row {row} of {table} refers to a row of {parent} that is not there")


def _check_whole(connection: Connection, findings: Findings) -> None:
    count = connection.execute(select(func.count()).select_from(schema.deployment)).scalar_one()
    if count != 1:
        findings.add("deployment", None, f"there are {count} deployments, and there must be one")
    # What has no foreign key to the workspaces.
    for table in (schema.events, schema.batches, schema.idempotency_keys):
        for workspace in _strangers(connection, table):
            findings.add("deployment", None, f"{table.name} has rows of the workspace {workspace}, which is not there")


def _strangers(connection: Connection, table: Table) -> list[str]:
    known = select(schema.workspaces.c.id)
    found = select(table.c.workspace_id).where(table.c.workspace_id.not_in(known)).distinct()
    return list(connection.execute(found).scalars())
