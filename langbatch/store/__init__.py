"""Job state in a database."""
