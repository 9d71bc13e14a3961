"""`taskhub`, `python -m taskhub`: the command line."""

import sys


def main() -> int:
    """Run the command that the arguments name. Answers the exit status."""
    try:
        # Imported here, so that Ctrl-C during the second that imports take prints no traceback.
        from taskhub.cli.parser import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `taskhub watch | head`
        sys.stderr.close()
        return 141


if __name__ == "__main__":
    sys.exit(main())
