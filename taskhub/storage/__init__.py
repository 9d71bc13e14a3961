"""The database: schema, migrations, connections, the transaction that a change is, and the SQL event log."""
