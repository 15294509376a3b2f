"""What a call costs, against bare Temporal: `make bench` measures it and writes docs/performance.md."""
