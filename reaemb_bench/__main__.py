"""`python -m reaemb_bench`, the form in which `torchrun` starts the command line."""

from reaemb_bench.cli.app import main

if __name__ == "__main__":
    main()
