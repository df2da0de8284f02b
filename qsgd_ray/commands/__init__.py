"""The subcommands of `qsgd-ray`, one file each; every argument is documented by its typer option."""
