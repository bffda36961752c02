"""``sfumato completion``: the Tab key knows the commands and their options."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg


def completion(shell: Annotated[Positional[Literal["bash", "zsh"]], arg(metavar="SHELL")] = "bash") -> int:
    """Print a script that completes commands and options by the Tab key.

    For this session: source <(sfumato completion bash). For good, write it where your shell looks for such scripts:

        sfumato completion bash > ~/.local/share/bash-completion/completions/sfumato
        sfumato completion zsh > ~/.zfunc/_sfumato

    Arguments:
        shell: bash or zsh.
    """
    import tyro

    from sfumato.cli._main import commands

    tyro.extras.subcommand_cli_from_dict(
        commands(), prog="sfumato", args=["--tyro-print-completion", shell], config=(tyro.conf.FlagCreatePairsOff,)
    )
    return 0
