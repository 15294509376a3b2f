"""What a process tells of itself: metrics, logs, traces, health. Knows nothing of definitions or the database."""
