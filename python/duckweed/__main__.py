"""`python -m duckweed`: the same command line, for places where the script is not on PATH."""

from duckweed.cli.main import main

if __name__ == "__main__":
    main()
