"""What the report says of the classifiers."""

import pytest

from flipside.report.sections.classifiers import name_architecture


@pytest.mark.parametrize(("parameters", "expected"), [
    ({"architecture": "small_resnet"}, "small_resnet"),
    ({"architecture": "resnet18", "source": "trained"}, "resnet18"),
    ({"architecture": "convnext_tiny", "source": "timm", "module": None},
     "convnext_tiny of timm (imported, not trained here)"),
    ({"architecture": "torchscript", "source": "torchscript", "checkpoint": "w.ts", "module": None},
     "TorchScript file, w.ts (imported, not trained here)"),
    ({"architecture": "build", "source": "python", "module": "net.py"},
     "build of net.py (imported, not trained here)"),
])
def test_an_imported_classifier_is_called_so(parameters, expected):
    assert name_architecture(parameters) == expected
