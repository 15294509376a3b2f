"""What a call costs: CPU by stage (`python -m benchmarks.stages`), and against bare Temporal (`comparison`)."""
