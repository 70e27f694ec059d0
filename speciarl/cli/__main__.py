"`python -m speciarl.cli` is `speciarl`."

from . import main

if __name__ == "__main__":
    main()
