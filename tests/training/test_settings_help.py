from dataclasses import fields

import pytest

from training.cli import main
from training.grpo.train import GrpoSettings
from training.sft.train import SftSettings


@pytest.mark.parametrize(("command", "kind"), [("sft", SftSettings), ("grpo", GrpoSettings)])
def test_help_names_every_setting_with_its_default(command, kind, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for setting in fields(kind):
        assert f"\n  {setting.name} " in said
    assert "learning_rate" in said
    assert "MISSING" not in said
