"""A Triton server on this machine: started, put under load, asked what it did."""

from benchmarks.served.server import Step, executions, memory_mb, serving, steps, totals

__all__ = ["Step", "executions", "memory_mb", "serving", "steps", "totals"]
