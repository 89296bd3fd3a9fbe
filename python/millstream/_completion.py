"""Completion of the command line in a shell: scripts generated from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["SHELLS", "completion"]

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class _Command:
    """A command, as a user types it, and what may follow."""

    words: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str, bool], ...]
    """Each with its help, and whether a value follows."""
    choices: tuple[str, ...]


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[_Command]:
    """Go over a parser and those of its commands."""
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    commands: list[tuple[str, str]] = []
    options: list[tuple[str, str, bool]] = []
    choices: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner += action.choices.items()
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [(name, helps.get(name, "")) for name in action.choices]
        elif action.option_strings:
            takes_value = action.nargs != 0
            options += [(option, action.help or "", takes_value) for option in action.option_strings]
        elif action.choices is not None:
            choices += [str(choice) for choice in action.choices]
    yield _Command(words, tuple(commands), tuple(options), tuple(choices))
    for name, each in inner:
        yield from _commands(each, (*words, name))


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that a shell reads to complete the command.

    Parameters
    ----------
    parser
        The parser of the command line.
    shell
        One of :data:`SHELLS`.

    Examples
    --------
    >>> import argparse
    >>> from millstream._completion import completion
    >>> parser = argparse.ArgumentParser(prog="tool")
    >>> _ = parser.add_argument("--fast", action="store_true", help="be quick")
    >>> "complete -c tool" in completion(parser, "fish")
    True
    """
    commands = list(_commands(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser.prog, commands)


def _candidates(command: _Command) -> list[str]:
    return [*(name for name, _ in command.commands), *command.choices, *(option for option, _, _ in command.options)]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _path(command: _Command) -> str:
    return " ".join(command.words)


def _bash(prog: str, commands: list[_Command]) -> str:
    words = " | ".join(sorted(f'"{_path(command)}"' for command in commands if command.words))
    cases = "\n".join(f'        "{_path(command)}") candidates={_quoted(" ".join(_candidates(command)))} ;;' for command in commands)
    return f"""# Completion of {prog} for bash: source it, or put it into ~/.local/share/bash-completion/completions/{prog}
_{prog}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="" next candidates="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        next="${{command:+$command }}${{COMP_WORDS[index]}}"
        case "$next" in
            {words}) command="$next" ;;
        esac
    done
    case "$command" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$candidates" -- "$current"))
}}
complete -o default -o bashdefault -F _{prog} {prog}
"""


def _zsh(prog: str, commands: list[_Command]) -> str:
    def described(pairs: Iterator[tuple[str, str]]) -> str:
        return " ".join(_quoted(f"{name.replace(':', chr(92) + ':')}:{text}") for name, text in pairs)

    words = " | ".join(sorted(f'"{_path(command)}"' for command in commands if command.words))
    cases = []
    for command in commands:
        pairs = [*command.commands, *((choice, "") for choice in command.choices), *((name, text) for name, text, _ in command.options)]
        cases.append(f'        "{_path(command)}") candidates=({described(iter(pairs))}) ;;')
    return f"""#compdef {prog}
# Completion of {prog} for zsh: put it as _{prog} into a directory of $fpath
_{prog}() {{
    local command="" next index
    local -a candidates
    for ((index = 2; index < CURRENT; index++)); do
        next="${{command:+$command }}${{words[index]}}"
        case "$next" in
            {words}) command="$next" ;;
        esac
    done
    case "$command" in
{chr(10).join(cases)}
    esac
    _describe '{prog}' candidates
    _files
}}
compdef _{prog} {prog}
"""


def _fish(prog: str, commands: list[_Command]) -> str:
    lines = [f"# Completion of {prog} for fish: put it into ~/.config/fish/completions/{prog}.fish"]
    for command in commands:
        taken = [f"__fish_seen_subcommand_from {word}" for word in command.words]
        others = " ".join(name for name, _ in command.commands)
        untaken = [f"not __fish_seen_subcommand_from {others}"] if others else []
        where = "; and ".join([*taken, *untaken]) or "true"
        for name, text in (*command.commands, *((choice, "") for choice in command.choices)):
            lines.append(f"complete -c {prog} -n {_quoted(where)} -a {_quoted(name)} -d {_quoted(text)}")
        where = "; and ".join(taken) or "__fish_use_subcommand"
        for option, text, takes_value in command.options:
            kind = "-l" if option.startswith("--") else "-s"
            value = " -r" if takes_value else ""
            lines.append(f"complete -c {prog} -n {_quoted(where)} {kind} {option.lstrip('-')}{value} -d {_quoted(text)}")
    return "\n".join(lines) + "\n"
