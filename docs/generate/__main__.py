"""Write what is generated and committed: `python -m docs.generate` renews README.md's table and docs/pipeline.svg."""

from pathlib import Path

from docs.generate import readme
from docs.generate.diagram import svg
from docs.generate.pipeline import read_stages

readme.write()
Path("docs/pipeline.svg").write_text(svg(read_stages()))
