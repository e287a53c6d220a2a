"""Single steps, measured by pytest-benchmark; `benchmarks.suites.micro` runs them."""
