"""Reports of fault-injection campaigns: console, Markdown, HTML and plots.

They are given a `harness.inject.summary.Summary` and import it for the type checker only: what makes a report knows
nothing of how faults are injected or counted (import-linter).
"""
