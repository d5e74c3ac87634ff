"""All metadata lives in pyproject.toml; this file is where optional extensions will be declared."""

from setuptools import setup

setup()
