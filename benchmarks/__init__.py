"""What a call costs. `python -m benchmarks.stages` tells its CPU by stage; `comparison` sets it against bare Temporal."""
