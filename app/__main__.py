"""``python -m app``: the same as the ``whisperd`` command."""

if __name__ == "__main__":
    # Imported here: children started by other means re-run this module under another name and must not load the CLI.
    from app.cli import main

    raise SystemExit(main())
