"""A long-running service: alive or restarted, measured, quiet about patients, and drained when it is told to stop."""
