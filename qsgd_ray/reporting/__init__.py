"""The page, the terminal's tables and the figures of a study: result tables in, HTML and text out."""
