"Installs speciarl. Everything that describes it is in settings.ini, which nbdev reads too."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
readme = HERE / "README.md"


def needs(*names: str) -> list[str]:
    "The requirements listed under `NAME_requirements`, for each name."
    return [requirement for name in names for requirement in cfg[f"{name}_requirements"].split()]


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    package_data={cfg["lib_path"]: ["py.typed", "assets/**/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={
        "train": needs("train"),
        "vllm": needs("vllm"),
        "xlsx": needs("xlsx"),
        "photos": needs("photos", "train"),
        "paper": needs("paper"),
        "dev": needs("dev", "train", "paper", "xlsx", "photos"),
        "docs": needs("docs"),
    },
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
