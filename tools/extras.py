"""Print the requirements of one of the package's extras, one a line for pip.

pip could be asked for ``.[examples]``, but would build the engine again to read them.
"""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    print(*(requirement.replace(" ", "") for requirement in project["optional-dependencies"][sys.argv[1]]))


if __name__ == "__main__":
    main()
