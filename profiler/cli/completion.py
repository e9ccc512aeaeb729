"""whyerrno completion: the script that makes a shell complete the command line."""

from __future__ import annotations

import click

from profiler.cli.root import common_options

VARIABLE = "_WHYERRNO_COMPLETE"  # the name click derives from the program's


@click.command(
    epilog="""\b
Examples:
  whyerrno completion bash > ~/.local/share/bash-completion/completions/whyerrno
  whyerrno completion zsh > ~/.zfunc/_whyerrno
  whyerrno completion fish > ~/.config/fish/completions/whyerrno.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print a completion script for SHELL: commands, options, scenarios, targets, system calls, errno names."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None  # the three names above are click's own
    # source() of the bash class would start bash to look at its version; the script alone is wanted.
    script = completion(context.find_root().command, {}, "whyerrno", VARIABLE)
    click.echo(script.source_template % script.source_vars())
    return 0
