"""What pyproject.toml cannot say: the wheel holds configs/ as chela/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["chela*", "tasks*"]), "chela.configs"],
    package_dir={"chela.configs": "configs"},
    package_data={
        "chela.configs": ["**/*.yaml"],
        "chela.report": ["*.csv", "templates/*"],
    },
)
