"""Reporting: a `StudyAnalysis` in; its page, its figures and its tables for a terminal out."""
