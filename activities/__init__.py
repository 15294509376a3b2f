"""I/O: the method pipeline and the connection-side work, as Temporal activities."""
