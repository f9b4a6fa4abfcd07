"""Consumers of verdicts: console, JSON, HTML, Markdown, JUnit and SARIF."""
