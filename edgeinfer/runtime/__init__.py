"""The run trip: container -> plan -> arena and program -> outputs. Never imports the compress trip."""
