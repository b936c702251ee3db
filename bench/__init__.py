"""Measuring: load generators and what the figures are compared with. docs/performance.md says how."""
