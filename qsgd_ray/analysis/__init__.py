"""From rows to intervals and verdicts: tables in, tables out."""
