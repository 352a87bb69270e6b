"""`python -m stream_iwae` is `stream-iwae`."""

from stream_iwae.cli import main

if __name__ == "__main__":
    main()
