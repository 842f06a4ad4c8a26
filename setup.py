"""Everything about the package stands in settings.ini: edit it there, not here."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]

needed = "lib_name version description keywords author author_email min_python requirements console_scripts".split()
missing = [k for k in needed if k not in cfg]
assert not missing, f"settings.ini lacks {', '.join(missing)}"

extras = {k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")}
readme = here / "README.md"

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["memo_bert", "memo_bert.*"]),
    package_data={"memo_bert": ["assets/*", "assets/*/*", "assets/*/*/*"]},
    exclude_package_data={"memo_bert": ["assets/memo/model.safetensors", "assets/memo/training.json", "assets/corpus/*"]},  # the workbook's: they come with a clone
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
