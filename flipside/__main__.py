"""`python -m flipside` is `flipside`."""

from flipside.cli import main

if __name__ == "__main__":
    main()
