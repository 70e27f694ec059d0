"""JupyterLab as `make lab` opens it: a chapter that is only read is never asked to be saved, and cells that are for
nbdev or Colab alone are folded.

JupyterLab writes the name of the kernel and its Python version into a notebook when it opens it, and then holds it for
changed. The files have neither, so that they are the same on every machine; a notebook gets both on its way to the
browser. What is saved is cleaned by `nbdev_clean`, as ever.
"""

import re

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

spec = KernelSpecManager().get_kernel_spec("python3")
WRITTEN = {
    "kernelspec": {"name": "python3", "display_name": spec.display_name, "language": spec.language},
    "language_info": IPythonKernel.language_info,
}
FOLDED = r'#\|\s*(default_exp|hide)\b|.*"google\.colab" in sys\.modules'


class Chapters(AsyncLargeFileManager):
    "The files of the checkout, notebooks as JupyterLab would leave them."

    async def get(self, *args, **options):
        "A file or folder; see `jupyter_server`."
        model = await super().get(*args, **options)
        if model["type"] == "notebook" and model["content"] is not None:
            model["content"]["metadata"] |= WRITTEN
            for cell in model["content"]["cells"]:
                if cell["cell_type"] == "code" and re.match(FOLDED, cell["source"], re.DOTALL):
                    cell["metadata"]["jupyter"] = {"source_hidden": True}
        return model


c = get_config()  # noqa: F821 - traitlets gives it
c.ServerApp.contents_manager_class = Chapters
