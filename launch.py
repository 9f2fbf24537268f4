#!/usr/bin/env python
"""Start GLM Workbench: prepare the Python environment once, then open the page.

    python launch.py                     the page, at http://127.0.0.1:7860
    python launch.py --model PATH_OR_ID  another model than the built-in one
    python launch.py prepare             only prepare the environment; prints its Python
    python launch.py test [--slow]       run the tests; what follows is handed to pytest
    python launch.py lint                ruff and mypy
    python launch.py hash-password       turn a password into a line for an --auth file
    python launch.py --help              every option

This file keeps to syntax that Python 3.6 can parse, so that an old interpreter gets a sentence
instead of a traceback. Everything else is in launcher/.
"""

import sys

MINIMUM = (3, 11)
PYTHON_TOO_OLD = 3


def main(argv):
    if sys.version_info < MINIMUM:
        sys.stderr.write(
            "GLM Workbench needs Python {}.{} or newer; this is Python {}.{} ({}). "
            "Run launch.py with a newer one, for example: python3.12 launch.py\n".format(
                *(MINIMUM + tuple(sys.version_info[:2]) + (sys.executable,))
            )
        )
        return PYTHON_TOO_OLD
    from launcher.verbs import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
