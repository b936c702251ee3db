"""Parsers under coverage-guided fuzzing."""
