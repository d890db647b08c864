"""The run: rows in, requests out under limits, records to a sink."""
