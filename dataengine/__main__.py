"""`python -m dataengine`, also for `accelerate launch -m dataengine train ...`."""

from dataengine.cli import main

if __name__ == "__main__":  # worker processes import this file again
    main()
