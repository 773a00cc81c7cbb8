"""Declared: a process that runs schedules takes up what the project declares now."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from seatrial import Project
from seatrial.folder.loading import BrokenProject
from seatrial.scheduling.control import Control
from seatrial.scheduling.declared import Declared
from tests.scheduling.worlds import World

ONE = 'from seatrial import Schedule\nSchedule("materialize", every="1h")\n'


def declared_in(folder):
    def read():
        with Project(folder) as project:
            return project._reading()

    return Declared(*read(), folder, read)


def names(declared):
    return [one.name for one in declared.in_force]


def test_a_schedule_that_is_added_changed_or_taken_away_is_taken_up_and_told(tmp_path):
    file = tmp_path / "project.py"
    file.write_text(ONE)
    declared = declared_in(tmp_path)
    assert declared.changed() == ""
    file.write_text(ONE + 'Schedule("alerts check", every="5m")\n')
    assert declared.changed() == "added: alerts-check"
    file.write_text(ONE.replace("1h", "30m") + 'Schedule("alerts check", every="5m")\n')
    assert declared.changed() == "changed: materialize"
    assert [str(one.timing) for one in declared.in_force] == ["every 30m", "every 5m"]
    file.write_text('from seatrial import Schedule\nSchedule("alerts check", every="5m")\n')
    assert declared.changed() == "gone: materialize"
    assert declared.changed() == ""


def test_a_file_that_is_touched_or_changed_otherwise_changes_nothing(tmp_path):
    file = tmp_path / "project.py"
    file.write_text(ONE)
    declared = declared_in(tmp_path)
    file.write_text(ONE + "# a word\n")
    assert declared.changed() == ""
    os.utime(file, (1, 1))
    assert declared.changed() == ""
    assert names(declared) == ["materialize"]


def test_a_project_that_cannot_be_read_is_told_once_and_what_was_declared_stays(tmp_path):
    file = tmp_path / "project.py"
    file.write_text(ONE)
    declared = declared_in(tmp_path)
    file.write_text(ONE + "Schedule(")
    with pytest.raises(BrokenProject):
        declared.changed()
    assert declared.changed() == ""
    assert names(declared) == ["materialize"]
    file.write_text(ONE + 'Schedule("alerts check", every="5m")\n')
    assert declared.changed() == "added: alerts-check"


def test_a_module_of_the_folder_and_a_file_that_is_added_count_too(tmp_path):
    package = tmp_path / "definitions"
    package.mkdir()
    (tmp_path / "how_often_f.py").write_text('EVERY = "1h"\n')
    imports = "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parents[1]))\n"
    text = "from how_often_f import EVERY\nfrom seatrial import Schedule\nSchedule('materialize', every=EVERY)\n"
    (package / "loops.py").write_text(imports + text)
    declared = declared_in(tmp_path)
    (tmp_path / "how_often_f.py").write_text('EVERY = "15m"\n')
    assert declared.changed() == "changed: materialize"
    (package / "more.py").write_text('from seatrial import Schedule\nSchedule("alerts check", every="5m")\n')
    assert declared.changed() == "added: alerts-check"


def test_settings_count_a_route_stands_for_looking_whether_anybody_is_silent(tmp_path):
    (tmp_path / "project.py").write_text(ONE)
    declared = declared_in(tmp_path)
    (tmp_path / "seatrial.toml").write_text('[alerts]\nheartbeat = "https://example.org/beat"\n')
    declared = declared_in(tmp_path)
    assert names(declared) == ["materialize", "alerts-check"]
    (tmp_path / "seatrial.toml").write_text("")
    assert declared.changed() == "gone: alerts-check"


def test_the_loop_runs_what_is_declared_now_and_says_what_it_could_not_read(tmp_path):
    world = World(tmp_path)
    file = tmp_path / "project.py"
    file.write_text(ONE)
    control = Control(world.metadata, declared_in(tmp_path), world.how(), say=world.said.append)
    control.look()
    file.write_text(ONE + "Schedule(")
    for _ in range(2):
        control._next_look = 0.0
        control.look()
    assert [line for line in world.said if "all stays as it was" in line] == world.said
    assert len(world.said) == 1
    file.write_text(ONE + 'Schedule("alerts check", every="1m")\n')
    control._next_look = 0.0
    control.look()
    assert world.said[1:] == ["2024-03-01T10:00:30Z  the project declares other schedules now; added: alerts-check"]
    assert [one.name for one in control._schedules] == ["materialize", "alerts-check"]
    world.metadata.close()


def test_what_is_installed_in_an_environment_of_the_folder_is_not_imported_anew(tmp_path, monkeypatch):
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "heavy_for_declared.py").write_text("THINGS = object()\n")
    monkeypatch.syspath_prepend(installed)
    file = tmp_path / "project.py"
    file.write_text("import heavy_for_declared\n" + ONE)
    declared = declared_in(tmp_path)
    before = sys.modules["heavy_for_declared"]
    file.write_text("import heavy_for_declared\n" + ONE.replace("1h", "30m"))
    assert declared.changed() == "changed: materialize"
    assert sys.modules["heavy_for_declared"] is before
    del sys.modules["heavy_for_declared"]


def test_what_a_reading_lacked_is_looked_for_again_and_said_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "project.py"
    file.write_text(ONE)
    declared = declared_in(tmp_path)
    file.write_text("import fresh_for_declared\n" + ONE.replace("1h", "30m"))
    with pytest.raises(BrokenProject):
        declared.changed()
    assert [declared.changed(), declared.changed()] == ["", ""]
    (tmp_path / "fresh_for_declared.py").write_text("THING = 1\n")
    assert declared.changed() == "changed: materialize"
    del sys.modules["fresh_for_declared"]


def test_a_folder_reached_by_a_link_and_python_within_it_are_told_apart(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.syspath_prepend(tmp_path / "link")
    (real / "linked_for_declared.py").write_text('EVERY = "1h"\n')
    (real / "project.py").write_text(
        'from linked_for_declared import EVERY\nfrom seatrial import Schedule\nSchedule("materialize", every=EVERY)\n'
    )
    declared = declared_in(tmp_path / "link")
    assert "linked_for_declared" in declared._imported()
    (real / "linked_for_declared.py").write_text('EVERY = "45m"\n')
    assert declared.changed() == "changed: materialize"
    del sys.modules["linked_for_declared"]
    everything = Declared([], [], Path("/"), lambda: ([], []))
    assert not {"os", "threading", "numpy", "seatrial.core.clock"} & set(everything._imported())


def test_a_module_of_the_folder_that_was_broken_is_read_again_when_it_is_mended(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = tmp_path / "helper_for_declared.py"
    helper.write_text('EVERY = "1h"\n')
    (tmp_path / "project.py").write_text(
        'from helper_for_declared import EVERY\nfrom seatrial import Schedule\nSchedule("materialize", every=EVERY)\n'
    )
    declared = declared_in(tmp_path)
    for broken in ("EVERY = (", "EVERY = ((("):
        helper.write_text(broken)
        with pytest.raises(BrokenProject):
            declared.changed()
        assert declared.changed() == ""
    helper.write_text('EVERY = "45m"\n')
    assert declared.changed() == "changed: materialize"
    del sys.modules["helper_for_declared"]
