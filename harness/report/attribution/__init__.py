"""Reports of the harness measured on labelled defects: console, Markdown, HTML, and the figures in our documents.

They are given a `harness.attribution.summary.Summary` and import it for the type checker only: what makes a report
knows nothing of how defects are planted or counted (import-linter).
"""
