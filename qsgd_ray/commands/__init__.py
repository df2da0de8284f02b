"""The words after `qsgd-ray`, one a file."""
