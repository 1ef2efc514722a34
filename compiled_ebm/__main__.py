"""``python -m compiled_ebm``."""

from compiled_ebm.cli import main

if __name__ == "__main__":
    main()
