"""The examples, run as a reader runs them, but for the seconds in which TensorFlow is imported (`tests.warm`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.warm import Warm

FOLDER = Path(__file__).parent.parent / "examples"
LIMIT = 120  # seconds

#: A line that each script prints, or a part of one.
LINES = {
    "partitioned_generator.py": "accuracy on files never trained on: ",
    "shared_memory.py": "7 copies would take 1,792",
    "serialized_structures.py": "all three gave the same 400 pictures",
    "text.py": "accuracy with ragged tokens, on new reviews: ",
    "database.py": "1,200 rows came, in the order of the query",
    "moving_from/grain_dataset.py": "accuracy on other pictures of Grain's: ",
    "moving_from/hugging_face.py": "accuracy on other rows of the dataset: ",
    "moving_from/keras_pydataset.py": "accuracy of a PyDataset's model: ",
    "moving_from/tf_data.py": "accuracy on other elements: ",
    "moving_from/tfds.py": "accuracy on the other split: ",
    "moving_from/torch_dataset.py": "accuracy on pictures never trained on: ",
    "moving_from/torch_dataloader.py": "accuracy on walks never trained on: ",
}


def test_every_example_is_run_and_has_a_line_in_the_readme() -> None:
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py")} == set(LINES)
    readme = (FOLDER / "README.md").read_text()
    assert all(f"[{name}]({name})" in readme for name in [*LINES, "notebook.ipynb"])


def test_moving_changes_at_most_ten_lines_and_the_new_ones_are_those_of_the_script() -> None:
    for path in (FOLDER / "moving_from").glob("*.py"):
        lines = path.read_text().splitlines()
        changed = [line for line in lines if line.startswith(("# - ", "# + "))]
        assert 3 <= len(changed) <= 10, path
        code = {line.strip() for line in lines}
        assert {line[4:].strip() for line in changed if line.startswith("# + ")} <= code, path


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm("keras", "tensorflow") as made:
        yield made


#: What these show is tested elsewhere too; `make stress` runs them.
LONG = "grain_dataset", "hugging_face", "tf_data", "tfds", "torch_dataset", "serialized_structures", "database"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.stress if Path(name).stem in LONG else ()) for name in LINES]
)
def test_a_script_trains_its_model(name: str, warm: Warm, tmp_path: Path) -> None:
    result = warm.run(FOLDER / name, cwd=tmp_path, timeout=LIMIT)  # none of them depends on where it is run
    assert result.returncode == 0, result.stdout + result.stderr
    assert LINES[name] in result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stress
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / "notebook.ipynb", as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    NotebookClient(
        notebook, kernel_name="python3", timeout=LIMIT, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    (printed,) = notebook.cells[-1].outputs
    assert printed.text.startswith("accuracy in the last epoch: ")


def test_the_page_about_orders_runs_from_top_to_bottom(tmp_path: Path) -> None:
    page = (FOLDER.parent / "docs" / "orders.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) == 6
    script = tmp_path / "orders.py"
    script.write_text("\n".join(blocks))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=LIMIT)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
