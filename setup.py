"""What pyproject.toml cannot say: the wheel holds configs/ as chela/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["chela*", "tasks*"]), "chela.configs"],
    package_dir={"chela.configs": "configs"},
    include_package_data=False,  # of an sdist it would take the folders of configs/ for packages
    package_data={
        "chela.configs": ["**/*.yaml"],
        "chela.report": ["*.csv", "templates/*"],
    },
)
