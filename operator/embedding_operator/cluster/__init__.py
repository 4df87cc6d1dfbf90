"""Everything that reads from or writes to the API server; nothing here decides."""
