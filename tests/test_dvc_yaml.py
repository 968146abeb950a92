"""What dvc.yaml promises: deps cover every local import, training and explaining never see the truth, and editing a
parameter reruns what depends on it and nothing else."""

import ast
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flipside.core.params import value_at
from flipside.experiments.repetition import Repetition
from flipside.report.trainings import SERIES
from tests.quick_dvc import hurried

ROOT = Path(__file__).parents[1]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# The library from the ground up: a package imports itself and those below it, and no package imports stages/.
FLOORS = ("core", "artifacts", "scans", "cohort", "masks", "classifiers", "generators", "segmenters", "methods",
          "metrics", "report", "experiments", "published", "regression", "prediction", "cli")
# What comes before the slices, and what may read the truth; every other stage is blind, a new one by default.
PREPARING = ("simulate_scans", "simulate_effects", "extract_slices", "split_patients", "draw_anomalies", "cut_patches")
# What reads maps that were made elsewhere, and the grids in data/extracted that they lie on: it neither trains nor
# explains, and what the maps were made with is not known.
FOREIGN = ("read_foreign_maps", "extract_foreign_masks")
TAUGHT = ("train_supervised",)  # learns from lesion masks, as an upper bound
SEEING = ("extract_masks", "segment_scans", "check_inpainter", "evaluate", "published_tables", "report")
# Files that import every file of a folder, whatever its name.
FINDS = {"flipside/metrics/registry.py": "flipside/metrics/families",
         "flipside/scans/layouts/__init__.py": "flipside/scans/layouts"}
# The package whose file named as a `foreach` stage's key the stage runs.
KEYED = {"train_generator": "generators", "train_encoder": "generators", "explain": "methods"}
# What a stage loads by its name.
LOADED = {"train_segmenter": "flipside/generators/flip_mask.py"}


def resolved_stages(params=PARAMS, folder=ROOT):
    """A folder's dvc.yaml with `foreach` unrolled and values filled in: {name: {cmd, deps, params, outs}}."""
    stages = {}
    for name, stage in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in stage:
            values = {"dataset": params["dataset"], "segment_scans.method": params["segment_scans"]["method"]}
            stages[name] = fill(stage, values)
            continue
        items = value_at(params, stage["foreach"][2:-1])
        if isinstance(items, list):
            stages |= {f"{name}@{item}": stage["do"] for item in items}
        else:
            stages |= {f"{name}@{key}": fill(stage["do"], {"key": key, **{f"item.{k}": v for k, v in item.items()}})
                       for key, item in items.items()}
    return stages


def fill(node, values):
    text = json.dumps(node)
    for key, value in values.items():
        text = text.replace("${" + key + "}", str(value))
    return json.loads(text)


STAGES = resolved_stages()
WITH_FOREIGN = resolved_stages(PARAMS | {"foreign_maps": {"mine": {"pattern": "{case}.nii.gz", "values": "any"}}})


def paths(entries):
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def local_imports(file, seen=None):
    """All project files that a file imports, directly or through others (functions' inner imports too)."""
    seen = set() if seen is None else seen
    if file in FINDS:  # what stands in no import statement
        for found in (ROOT / FINDS[file]).glob("*.py"):
            path = found.relative_to(ROOT).as_posix()
            if path not in seen:
                seen.add(path)
                local_imports(path, seen)
    for path in named_in_imports(file) - seen:
        if path not in seen:
            seen.add(path)
            local_imports(path, seen)
    return {file for file in seen if (ROOT / file).stat().st_size}


@functools.cache
def named_in_imports(file):
    """The project's files that a file names in an import, with the packages that these lie in."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] not in ("flipside", "stages"):
                continue
            parts = name.split(".")
            packages = ["/".join((*parts[:depth], "__init__.py")) for depth in range(1, len(parts) + 1)]
            found |= {path for path in ("/".join(parts) + ".py", *packages) if (ROOT / path).is_file()}
    return found


def script_of(stage):
    words = stage["cmd"].split()
    return words[words.index("-m") + 1].replace(".", "/") + ".py"


def base(name):
    """A stage's name without the key of its `foreach`."""
    return name.partition("@")[0]


BLIND = [name for name in STAGES if base(name) not in (*PREPARING, *SEEING, *TAUGHT)]
# What handles all methods' explanations, those of the upper bound among them, or makes these.
WITH_UPPER_BOUND = ("explain@supervised", "judge_counterfactuals", "measure_realism")


@functools.cache
def code_of(name):
    """The stage's script, its local imports, and the files that it finds by their names."""
    files = {script_of(STAGES[name])}
    if base(name) in KEYED:
        files.add(f"flipside/{KEYED[base(name)]}/{name.partition('@')[2]}.py")
    if name in LOADED:
        files.add(LOADED[name])
    for file in sorted(files):
        files |= local_imports(file)
    return files


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_every_local_import(name):
    deps = paths(STAGES[name]["deps"])
    missing = {file for file in code_of(name) if not any(file == dep or file.startswith(dep + "/") for dep in deps)}
    assert not missing, f"stage {name} imports {sorted(missing)}, which its deps don't list"


@pytest.mark.parametrize("name", STAGES)
def test_declared_code_exists_and_is_used(name):
    """A folder is declared only where every file in it is used; all stages rest on flipside/core."""
    code = [dep for dep in paths(STAGES[name]["deps"]) if dep.startswith(("stages/", "flipside/"))]
    siblings = [other for other in STAGES if base(other) == base(name)]
    used = set().union(*(code_of(other) for other in siblings))  # a `foreach` has one list for all its stages
    for dep in code:
        assert (ROOT / dep).exists(), dep
        files = [dep] if dep.endswith(".py") else [
            file.relative_to(ROOT).as_posix() for file in (ROOT / dep).rglob("*.py") if file.stat().st_size]
        unused = [file for file in files if file not in used and not inside(file, "flipside/core")]
        assert not unused, f"stage {name} would rerun for {unused}, which it doesn't import"


def test_every_script_is_a_stage_and_named_as_it():
    scripts = {file.stem for file in (ROOT / "stages").iterdir() if file.name != "__pycache__"}
    scripts |= {"extract_foreign_masks"}  # the script of extract_masks, over another section
    assert scripts == {*yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]}
    assert all(script_of(stage) == f"stages/{base(name)}.py" for name, stage in STAGES.items())


def test_maps_from_files_have_a_stage_that_watches_them_and_masks_made_like_all_others():
    added = {name: stage for name, stage in WITH_FOREIGN.items() if name not in STAGES}
    assert {base(name) for name in added} == set(FOREIGN)
    read, masks = added["read_foreign_maps@mine"], added["extract_foreign_masks@mine"]
    assert "data/foreign/mine" in paths(read["deps"]) and paths(read["outs"]) == ["data/explanations/mine"]
    assert not any("truth" in dep for dep in paths(read["deps"]))
    as_own = fill(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["extract_masks"]["do"], {"key": "mine"})
    assert {key: value for key, value in masks.items() if key != "desc"} == {
        key: value for key, value in as_own.items() if key != "desc"}
    code = {dep for dep in paths(read["deps"]) if dep.startswith(("stages/", "flipside/"))}
    used = {script_of(read)} | local_imports(script_of(read))
    assert not {file for file in used if not any(inside(file, dep) for dep in code)}
    assert all(any(inside(file, dep) for file in used) for dep in code)


def test_the_report_depends_on_every_part_of_its_page():
    from flipside.report.html import PAGE

    deps = paths(STAGES["report"]["deps"])
    parts = [file.relative_to(ROOT).as_posix() for file in PAGE.iterdir()]
    assert parts and not [part for part in parts if not any(inside(part, dep) for dep in deps)]


def test_packages_import_only_downward():
    for file in sorted((ROOT / "flipside").rglob("*.py")):
        package = file.relative_to(ROOT / "flipside").parts[0]
        if package == "__init__.py":
            continue
        for imported in direct_imports(file.relative_to(ROOT)):
            assert imported.parts[0] == "flipside", f"{file.relative_to(ROOT)} imports {imported}"
            other = imported.parts[1]
            assert other == "__init__.py" or FLOORS.index(other) <= FLOORS.index(package), (
                f"{file.relative_to(ROOT)} imports {imported}, which stands above it")


def direct_imports(file):
    """The project's files that a file names in an import."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        files = [Path(name.replace(".", "/") + ".py") for name in names]
        found |= {file for file in files if file.parts[0] in ("flipside", "stages") and (ROOT / file).is_file()}
    return found


@functools.cache
def upstream(name):
    """All stages that a stage rests on, through deps and outs."""
    found = set()
    deps = paths(STAGES[name]["deps"])
    for other, stage in STAGES.items():
        outs = paths(stage.get("outs", []) + stage.get("metrics", []) + stage.get("plots", []))
        if other != name and any(inside(dep, out) or inside(out, dep) for dep in deps for out in outs):
            found |= {other} | upstream(other)
    return found


def inside(path, folder):
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@pytest.mark.parametrize("name", BLIND)
def test_no_stage_that_trains_or_explains_rests_on_the_truth(name):
    reached = {name} | {n for n in upstream(name) if base(n) not in PREPARING}
    assert (set(TAUGHT) <= reached) == (name in WITH_UPPER_BOUND)
    reached -= set(TAUGHT)
    for stage in reached:
        words = ("truth", "clean", "extracted", "data/raw")
        assert not any(word in dep for dep in paths(STAGES[stage]["deps"]) for word in words), stage
    for file in code_of(name):  # data/raw: lesion masks, and the images of simulated data sets without their effect
        for secret in ("lesion.npy", "clean.npy", "data/raw"):
            assert not any(secret in text for text in strings_of(file)), f"{file} could open the truth"


def test_a_classifier_is_shown_lesions_only_where_that_is_asked_for_and_dvc_yaml_then_says_so():
    assert PARAMS["strong_supervision"] == []
    assert not any("data/patches" in paths(STAGES[name][kind]) for name in STAGES for kind in ("deps", "outs")
                   if kind in STAGES[name])
    classifiers = {role: block | {"pretraining": "data/patches"} for role, block in PARAMS["classifiers"].items()}
    strong = resolved_stages(PARAMS | {"strong_supervision": ["mass_patches"], "classifiers": classifiers})
    cut = strong.pop("cut_patches@mass_patches")
    assert strong.keys() == STAGES.keys()
    assert "data/truth" in paths(cut["deps"]) and paths(cut["outs"]) == ["data/patches"]
    assert "data/patches" in paths(strong["train_classifier@classifier"]["deps"])
    script = script_of(cut)
    code = {dep for dep in paths(cut["deps"]) if dep.endswith(".py")}
    assert code == {file for file in (script, *local_imports(script)) if not inside(file, "flipside/core")}


def test_dvc_watches_the_folder_of_an_imported_classifier():
    own = {"source": "timm", "pretraining": "data/foreign"}
    stages = resolved_stages(PARAMS | {"classifiers": PARAMS["classifiers"] | {"classifier": own}})
    assert "data/foreign" in paths(stages["train_classifier@classifier"]["deps"])
    assert "data/foreign" not in paths(stages["train_classifier@judge"]["deps"])


@functools.cache
def strings_of(file):
    tree = ast.parse((ROOT / file).read_text())
    documentation = {id(node.body[0].value) for node in ast.walk(tree)
                     if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
                     and node.body and isinstance(node.body[0], ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation]


def test_the_store_that_training_reads_has_no_lesion_column():
    from flipside.core.store import INDEX_COLUMNS

    assert not any("lesion" in column for column in INDEX_COLUMNS)


def test_runtime_is_declared_by_no_stage():
    for name, stage in STAGES.items():
        assert not any(param.startswith("runtime") for param in paths(stage.get("params", []))), name
        assert "runtime" not in stage["cmd"], name
    assert "persist: true" not in (ROOT / "dvc.yaml").read_text()


def test_every_stage_says_what_it_does():
    for name, stage in STAGES.items():
        assert len(stage.get("desc", "")) > 20, name


# Editing a parameter. DVC itself answers, over stubs of the outputs that the real DAG declares.


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with the real dvc.yaml, params.yaml and code whose outputs are made up and committed as they are."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("dvc.yaml", "params.yaml", "datasets.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    for folder in ("stages", "flipside"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "reports").mkdir()
    shutil.copy(ROOT / "reports/trainings.json", root / "reports")
    dvc(root, "init", "--no-scm", "-q")
    for stage in STAGES.values():
        for out in paths(stage.get("outs", [])) + paths(stage.get("metrics", [])) + paths(stage.get("plots", [])):
            target = root / out
            if target.suffix:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("{}" if target.suffix == ".json" else "a,b\n1,2\n")
            else:
                target.mkdir(parents=True, exist_ok=True)
                (target / "made_up").write_text(out)
    dvc(root, "commit", "-f", "-q")
    return root


def dvc(root, *arguments):
    result = subprocess.run([sys.executable, ROOT / "tests/quick_dvc.py", *arguments], cwd=root, capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def status(root, *targets):
    """What `dvc status --json` prints; in this process, as a start of its own takes long."""
    with hurried(), contextlib.chdir(root), Repo(root) as repo:
        return repo.status(targets=list(targets))


def stale_after(repository, edit):
    """Stages that `dvc status` calls changed after an edit of params.yaml, what hangs on them not counted; nor the
    check of the parameters, which looks at any edit and writes the same whenever it passes."""
    before = (repository / "params.yaml").read_text()
    values = yaml.safe_load(before)
    edit(values)
    (repository / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    try:
        return set(status(repository)) - {"check_params"}
    finally:
        (repository / "params.yaml").write_text(before)


def downstream(names):
    return set(names) | {name for name in STAGES if upstream(name) & set(names)}


def test_nothing_is_stale_without_an_edit(repository):
    assert stale_after(repository, lambda values: None) == set()


@pytest.mark.parametrize(("dataset", "simulator"), [
    ("phantom", "simulate_scans@phantom"), ("synthetic_effect", "simulate_effects@synthetic_effect"), ("curvas", None),
    ("kits", None)])
def test_extraction_waits_for_its_own_data_set_alone(repository, tmp_path, dataset, simulator):
    """Real data are a folder in data/raw or, here, a link to one elsewhere; other data sets' folders needn't exist."""
    for name in ("dvc.yaml", "params.yaml", "datasets.yaml"):
        shutil.copy(repository / name, tmp_path / name)
    for folder in ("stages", "flipside"):
        (tmp_path / folder).symlink_to(repository / folder)
    dvc(tmp_path, "init", "--no-scm", "-q")
    values = yaml.safe_load((tmp_path / "params.yaml").read_text()) | {"dataset": dataset, "simulated": {
        "scans": [dataset] if dataset == "phantom" else [],
        "effects": [dataset] if dataset == "synthetic_effect" else []}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/scan").write_text("1")
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/checked_params.txt").touch()  # a dry run writes nothing
    if simulator is None:
        (tmp_path / f"data/raw/{dataset}").symlink_to(tmp_path / "elsewhere")
    else:  # a dry run refuses to go on without what the simulator would have written
        (tmp_path / "elsewhere").rename(tmp_path / f"data/raw/{dataset}")
    ran = [line.split("'")[1] for line in dvc(tmp_path, "repro", "--dry", "extract_slices").splitlines()
           if line.startswith("Running stage")]
    assert ran == ["check_params", *([simulator] if simulator else []), "extract_slices"]


def test_a_change_behind_a_link_makes_the_extraction_stale(repository, tmp_path):
    link, folder = repository / "data/raw/curvas", tmp_path / "curvas"
    folder.mkdir()
    (folder / "scan").write_text("1")
    link.symlink_to(folder)
    before = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(before.replace("dataset: phantom", "dataset: curvas", 1))
    lock = (repository / "dvc.lock").read_text()
    try:
        dvc(repository, "commit", "-f", "-q", "extract_slices")
        assert "extract_slices" not in status(repository, "extract_slices")
        other = shutil.copytree(folder, tmp_path / "other")
        link.unlink()
        link.symlink_to(other)  # to the same files
        assert "extract_slices" not in status(repository, "extract_slices")
        for change in (lambda: (other / "scan").write_text("2"), lambda: (other / "added").touch(),
                       lambda: (link.unlink(), link.symlink_to(tmp_path / "third"))):
            shutil.copytree(folder, other, dirs_exist_ok=True)
            (tmp_path / "third").mkdir(exist_ok=True)
            change()
            stale = status(repository, "extract_slices")
            assert stale["extract_slices"] == [{"changed deps": {"data/raw/curvas": "modified"}}]
    finally:
        (repository / "params.yaml").write_text(before)
        (repository / "dvc.lock").write_text(lock)
        link.unlink()


def test_every_data_set_lies_where_dvc_watches_it():
    for name, block in yaml.safe_load((ROOT / "datasets.yaml").read_text())["datasets"].items():
        assert inside(block["root"], f"data/raw/{name}"), name


def test_editing_a_generator_reruns_its_training(repository):
    def edit(values):
        for block in values["generators"].values():
            block["lambda_classifier"] = 4.5

    assert stale_after(repository, edit) == {f"train_generator@{name}" for name in PARAMS["generators"]}


@pytest.mark.parametrize("name", PARAMS["generators"])
def test_one_generator_concerns_what_depends_on_it_and_no_other(name):
    block = f"generators.{name}"
    readers = {stage for stage, content in STAGES.items() for entry in paths(content.get("params", []))
               if inside(block.replace(".", "/"), entry.replace(".", "/"))
               or inside(entry.replace(".", "/"), block.replace(".", "/"))}
    assert readers - {"check_params"} == {f"train_generator@{name}"}
    reached = downstream({f"train_generator@{name}"})
    fed = {method for method, block in PARAMS["methods"].items() if block["needs"].endswith(f"/{name}")}
    assert {f"{stage}@{method}" for stage in ("explain", "extract_masks") for method in fed} <= reached
    assert fed and {"evaluate", "report"} <= reached
    others = {stage for stage in STAGES if "@" in stage and stage.partition("@")[2] not in {name, *fed}}
    assert not reached & others
    assert not any(base(stage) in PREPARING for stage in reached)


@pytest.mark.parametrize(("edit", "first"), [
    (lambda values: values["encoders"]["blobgan"].update(lambda_latent=3.0), "train_encoder@blobgan"),
    (lambda values: values["inversions"]["blobgan"].update(steps=7), "invert@blobgan"),
    (lambda values: values["methods"]["tace"].update(steps=7), "explain@tace"),
])
def test_editing_a_step_of_the_blob_branch_trains_nothing_before_it(repository, edit, first):
    reached = downstream(stale_after(repository, edit))
    order = ["train_generator@blobgan", "train_encoder@blobgan", "invert@blobgan", "explain@tace"]
    assert [stage for stage in order if stage in reached] == order[order.index(first):]
    assert ("explain@octet" in reached) == (first != "explain@tace")


def test_editing_attfind_trains_nothing(repository):
    reached = downstream(stale_after(repository, lambda values: values["attributes"]["stylegan"].update(images=7)))
    assert {"find_attributes@stylegan", "explain@stylex", "evaluate", "report"} <= reached
    assert not {stage for stage in reached if stage.startswith(("train", "invert")) or stage == "explain@tace"}


def test_editing_one_method_reruns_that_one(repository):
    stale = stale_after(repository, lambda values: values["methods"]["rise"].update(masks=77))
    assert "explain@rise" in stale
    # judge, evaluate and report take the list of methods from here: they depend on explain@rise anyway.
    assert downstream(stale) == downstream({"explain@rise"})
    assert not any(name.startswith("train") for name in downstream(stale))


def test_editing_the_report_reruns_the_report_alone(repository):
    stale = stale_after(repository, lambda values: values["report"].update(gallery_cases=7))
    assert downstream(stale) == {"report"}


@pytest.mark.parametrize("series", SERIES)
def test_a_repetition_trains_again_and_keeps_data_judge_and_methods_that_are_not_trained(repository, series):
    def other_seeds(values):
        for key, value in Repetition(series, 1).values(values).items():
            section, name, leaf = key.split(".")
            values[section][name][leaf] = value

    stale = stale_after(repository, other_seeds)
    trained = {f"train_generator@{name}" for name in PARAMS["generators"]} | {
        f"train_encoder@{name}" for name in PARAMS["encoders"]}
    assert stale == trained | ({"train_classifier@classifier"} if series == "classifier" else set())
    rests = downstream(stale)
    assert {"explain@coin", "invert@blobgan", "evaluate"} <= rests
    assert ("explain@rise" in rests) == (series == "classifier")
    assert not {"draw_anomalies", "train_classifier@judge"} & rests


def test_editing_runtime_reruns_nothing(repository):
    assert stale_after(repository, lambda values: values["runtime"].update(threads=7)) == set()


def test_a_key_that_no_stage_reads_is_checked_before_all_others(repository):
    """`dvc exp run -S +key=value` adds a key; nothing but the check would notice a misspelt one."""
    before = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(before + "evaluat: {bootstrap: 7}\n")
    try:
        assert set(status(repository)) == {"check_params"}
        result = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=repository, capture_output=True, text=True,
                                check=False, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    finally:
        (repository / "params.yaml").write_text(before)
    assert result.returncode != 0 and "unknown parameter `evaluat`; known are:" in result.stderr + result.stdout
    assert all("check_params" in upstream(name) for name in STAGES if name != "check_params")


def test_every_parameter_is_declared_by_some_stage(repository):
    """A leaf that no stage declares could be edited without effect."""
    entries = [entry for stage in STAGES.values() for entry in stage.get("params", [])]
    keys = [key for entry in entries for key in (entry["datasets.yaml"] if isinstance(entry, dict) else [entry])]
    declared = {key.partition(".")[0] for key in keys}
    assert declared == {*PARAMS, "datasets"} - {"runtime"}
