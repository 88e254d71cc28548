"""Ray Data actors that hold an engine: rows in, the rows that they lacked out, durable in the ledger."""
