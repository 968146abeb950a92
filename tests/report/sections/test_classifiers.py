"""What the report says of the classifiers."""

from types import SimpleNamespace

import pytest

from flipside.report.sections.classifiers import describe_architectures, name_architecture


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


def test_what_an_imported_one_was_trained_on_is_not_known():
    trained = {"architecture": "small_resnet"}
    imported = {"architecture": "resnet50", "source": "torchvision", "module": None}
    said = {role: describe_architectures(SimpleNamespace(made_with={"models": {"judge": trained, "classifier": one}}))
            for role, one in (("trained", trained), ("imported", imported))}
    assert "resnet50 of torchvision (imported" in said["imported"] and "not known here" in said["imported"]
    assert "not known here" not in said["trained"] and "built alike" in said["trained"]
